"""The numbers of timm, from golden cases (see parity/README.md) and from a live timm."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, fuse

from .parity.cases import NAMES, Case, outputs
from .parity.compact import positions

TOLERANCE = 1e-4  # of the spread; torch's float32 is up to 6e-5 from its float64


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return Case(request.param)


@pytest.fixture(scope="module")
def model(case):
    return case.create()


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_every_output_is_that_of_timm(case, model, prepare):
    images = case.meta["batch"] if case.meta["size"] == 224 else 1  # the larger are slow
    found = outputs(prepare(model), case.input[:images])
    errors = {name: _error(case, name, found[name]) for name in found if name in case.arrays}
    assert len(errors) >= len(model.config.feature_info) + 1
    assert all(error < TOLERANCE for error in errors.values()), errors


def _error(case: Case, name: str, found: np.ndarray) -> float:
    """Largest error of the kept values that ``found`` has, over the spread of the output."""
    wanted = case.arrays[name]
    if name in ("logits", "pooled"):
        return np.abs(found - wanted[: len(found)]).max() / wanted.std()
    index = positions(found.size // len(found) * case.meta["batch"])
    inside = index < found.size
    assert inside.sum() > 100
    wanted, spread = wanted[inside], case.arrays[f"{name}.std"]
    if name == "features":  # values of fifty times the spread have errors in proportion
        spread = spread + np.abs(wanted)
    return (np.abs(found.ravel()[index[inside]] - wanted) / spread).max()


def test_a_file_gives_the_same_model_as_its_arrays(tmp_path):
    case = Case("fastvit_t8-256")
    path = tmp_path / "model.safetensors"
    mx.save_safetensors(str(path), case.weights(), {"format": "pt"})
    from_file = dict(tree_flatten(create_model(case.model, weights=path).parameters()))
    for name, array in tree_flatten(case.create().parameters()):
        assert mx.array_equal(from_file[name], array), name
