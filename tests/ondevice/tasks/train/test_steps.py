"""Steps of training against PyTorch's: losses, gradients, running statistics."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model
from ondevice.registry import model_spec
from ondevice.weights.fit import rename

from ....parity import cases, weightgen

CASES = sorted((Path(cases.__file__).parent / "train").glob("*.npz"))
LEAST = 1e-3  # of the whole gradient's norm: smaller ones are rounding


def loss(model, x, labels):
    return nn.losses.cross_entropy(model(x), labels, reduction="mean")


def reference(path):
    """What a case says of itself, and its arrays by their kind and our names."""
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(arrays.pop("meta").tobytes())
    spec = model_spec(meta["model"])
    found = {}
    for kind, flat in arrays.items():
        for upstream in meta[kind]:
            size = int(np.prod(meta["shapes"][upstream])) if kind == "buffer" else 1
            value, flat = flat[:size], flat[size:]
            for name in rename({upstream: mx.array(0)}, spec):
                found[kind, name] = value
        assert not flat.size
    return meta, found


@pytest.mark.parametrize("operations", cases.OPERATIONS)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_two_steps_are_those_of_pytorch(path, operations):
    meta, wanted = reference(path)
    arrays = weightgen.state_dict(meta["seed"], meta["shapes"], meta["gains"])
    weights = {key: mx.array(array) for key, array in arrays.items()}
    model = create_model(meta["model"], weights=weights, num_classes=meta["num_classes"])
    model.train()
    pixels = weightgen.image_batch(meta["seed"], meta["batch"], meta["size"])
    x, labels = mx.array(pixels.transpose(0, 2, 3, 1)), mx.array(meta["labels"])
    optimizer, losses = optim.SGD(meta["lr"]), []
    with cases.OPERATIONS[operations]():
        for step in range(2):
            value, gradients = nn.value_and_grad(model, loss)(model, x, labels)
            optimizer.update(model, gradients)
            mx.eval(value, gradients, model.state)
            losses.append(value.item())
            if step == 0:
                check_gradients(dict(tree_flatten(gradients)), wanted)
                check_statistics(dict(tree_flatten(model.parameters())), wanted)
    np.testing.assert_allclose(losses, meta["losses"][:2], rtol=1e-4)  # of 1e-3 allowed


def check_gradients(gradients, wanted):
    norms = {name: v.item() for (kind, name), v in wanted.items() if kind == "grad_norm"}
    assert norms.keys() == gradients.keys()
    total = np.linalg.norm(list(norms.values()))
    compared = {name for name, norm in norms.items() if norm > LEAST * total}
    assert len(compared) > 100
    for name in compared:
        flat = np.asarray(gradients[name]).astype(np.float64)
        assert np.linalg.norm(flat) == pytest.approx(norms[name], rel=2e-4), name
        torch_layout = (flat.transpose(0, 3, 1, 2) if flat.ndim == 4 else flat).ravel()
        direction = np.random.default_rng(0).standard_normal(flat.size)
        dot = wanted["grad_dot", name].item()
        assert torch_layout @ direction == pytest.approx(dot, abs=1e-3 * norms[name]), name


def check_statistics(arrays, wanted):
    statistics = {name: value for (kind, name), value in wanted.items() if kind == "buffer"}
    assert statistics
    for name, value in statistics.items():
        error = np.abs(np.asarray(arrays[name]) - value).max()
        assert error <= 1e-5 * np.abs(value).max(), name
