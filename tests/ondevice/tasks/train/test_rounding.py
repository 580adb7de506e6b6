"""Training that rounds: what export writes, with gradients as if nothing were rounded."""

from __future__ import annotations

import json
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from converters import export, load_package, rounding
from converters.compress.plan import Request
from converters.compress.recipe import CompressionRecipe, Rule
from converters.compress.training import own_recipe
from converters.coreml.backend import BACKEND
from converters.coreml.settings import CoreMLSettings
from converters.export.build import build
from converters.function import model_function
from ondevice.errors import ConfigError
from ondevice.image.preprocess import normalize
from ondevice.nn.rounding import RoundedInput, move_to, rounded_model, rounding_errors
from ondevice.tasks.train.fit import Callback
from ondevice.tasks.train.run import train
from ondevice.tasks.train.state import state_path
from ondevice.tasks.train.trainer import Settings, Trainer

from . import photos
from .test_train import QUICK, interrupted, same

RECIPES = ("palette4", "palette6", "int8", "w8a8", "prune-palette4")
NOWHERE = CompressionRecipe((Rule("nowhere", "quantize"),), name="nowhere")
ROUGH = CompressionRecipe((Rule("*", "palettize", bits=2),), name="rough")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.write(tmp_path_factory.mktemp("photos"), 20)


def pixels(count=8, size=96):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(count)]


def prepared(recipe, model=None):
    """A model whose ``info`` has the recipe, and the rounding by it."""
    model = model or ondevice.create_model("shvit_nano.cifar10", pretrained=True)
    chosen = rounding(recipe)
    model.info.recipe.update(chosen.prepare(model, pixels()))
    chosen.begin(json.loads(json.dumps(model.info.recipe)))
    return model, chosen


def compressed(model):
    """What becomes of a model that is exported with samples and without a recipe given."""
    accounts = []
    request = Request(**own_recipe(model, {}), calibration=pixels(12), account=accounts.append)
    settings = CoreMLSettings(target="iOS18")
    build(model_function(model, model.signature), BACKEND, settings, request)
    return accounts[0]


@pytest.mark.parametrize("name", RECIPES)
def test_training_rounds_what_export_writes(name):
    model, chosen = prepared(name)
    assert same_rounding(model, chosen) == 62


@pytest.mark.parametrize("name", ["shvit_s1", "fastvit_t8"])
def test_of_any_family(name):
    """Their first weights are large enough to be compressed, and hold the scale of pixels; of
    large kernels, rounded to half precision first, some get the next code."""
    mx.random.seed(0)
    model, chosen = prepared("int8", ondevice.create_model(name, num_classes=3))
    first = [rule["pattern"] for rule in model.info.recipe["rules"] if rule["method"] == "none"]
    assert len(first) == 1
    assert same_rounding(model, chosen, tolerance=1.1 / 127) > 50


def same_rounding(model, chosen, tolerance=0.0):
    """How many weights training and export round to the same values."""
    fused = {k: np.array(v) for k, v in tree_flatten(ondevice.fuse(model).parameters())}
    wanted = chosen.weights(fused, fresh=True)
    forms = compressed(model).forms
    assert forms.keys() == wanted.keys()
    for path, form in forms.items():
        dense = form.dense().astype(np.float32)
        dense = np.moveaxis(dense, 1, -1) if dense.ndim == 4 else dense
        bound = tolerance * np.abs(dense).max()
        np.testing.assert_allclose(dense, wanted[path], rtol=0, atol=bound, err_msg=path)
    return len(forms)


def test_training_starts_where_second_order_rounding_ends():
    """Weights lie on their table, which is found again, and hardly anything is lost."""
    model, chosen = prepared("palette4")
    x = normalize(mx.array(np.stack(pixels(16))), model.info.preprocess)
    exact = np.array(model(x))

    def loss():
        errors = rounding_errors(model, chosen, fresh=True)
        found = np.array(rounded_model(model, errors, {}).eval()(x))
        return np.linalg.norm(found - exact), max(
            float(mx.abs(e).max()) for e in errors.values()
        )

    before, _ = loss()
    wanted = chosen.start(model, pixels(16))
    move_to(model, wanted)
    after, largest = loss()
    assert len(wanted) > 100
    assert largest < 1e-5
    assert after < before


def test_training_rounds_the_inputs_that_export_rounds():
    model, chosen = prepared("w8a8")
    graph = compressed(model).graph
    pairs = {n.outputs[0].name: n.args for n in graph.nodes if n.op == "Dequantize"}
    rounded = {
        node.inputs[1]: pairs[node.inputs[0]]
        for node in graph.nodes
        if len(node.inputs) > 1 and node.inputs[0] in pairs
    }
    assert len(rounded) > 50
    assert rounded == {path: tuple(given) for path, given in chosen.ranges.items()}


@pytest.mark.parametrize(("name", "share"), [("palette4", 0.1), ("w8a8", 0.8)])
def test_the_package_computes_what_was_trained(name, share, tmp_path):
    """It is nearer to what was trained than to the exact network, by this share; had each
    rounded for itself it would be 1.4 times as far. Of 8-bit activations, sums in half
    precision let some fall the other way, and what follows with them."""
    model, chosen = prepared(name)
    errors = rounding_errors(model, chosen, fresh=True)
    network = rounded_model(model, errors, chosen.ranges).eval()
    package = load_package(export(model, tmp_path / "nano.mlpackage", outputs="logits"))
    images = pixels(16)
    x = normalize(mx.array(np.stack(images)), model.info.preprocess)
    wanted, exact = np.array(network(x)), np.array(model(x))
    got = np.concatenate([package.predict({"image": image})["logits"] for image in images])
    assert np.linalg.norm(got - wanted) < share * np.linalg.norm(got - exact)
    assert json.loads(package.metadata["ondevice.recipe"])["name"] == name


def test_export_says_and_can_leave_out_the_recipe(tmp_path):
    model, _ = prepared("palette4")
    path = export(model, tmp_path / "plain.mlpackage", recipe="none")
    assert "ondevice.recipe" not in load_package(path).metadata
    path = export(model, tmp_path / "other.mlpackage", recipe="int8")
    assert json.loads(load_package(path).metadata["ondevice.recipe"])["name"] == "int8"


def test_tables_that_are_kept_round_to_the_nearest():
    _, chosen = prepared("palette4")
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    table = np.unique(chosen.weights({"head.weight": weight}, fresh=True)["head.weight"])
    moved = chosen.weights({"head.weight": weight + 0.3}, fresh=False)["head.weight"]
    assert {*np.unique(moved)} <= {*table}
    distance = np.abs(weight[..., None] + 0.3 - table).min(axis=-1)
    np.testing.assert_allclose(np.abs(weight + 0.3 - moved), distance, atol=1e-6)


def test_gradients_pass_the_rounding_of_weights():
    """They are those at the rounded weights."""
    trainer = Trainer(ondevice.create_model("shvit_nano", num_classes=3), Settings(), steps=9)
    images = mx.array(np.stack(pixels(4, 32)))
    targets = mx.eye(3)[mx.array([0, 1, 2, 0])]
    _, chosen = prepared("palette4", trainer.model)
    trainer.train_mode()
    trainer.round_by(chosen)
    errors = trainer._errors()
    _, found = trainer._gradients(images, targets, mx.array(1.0), errors)
    path, own = "head.weight", "head.linear.weight"
    network = rounded_model(trainer.model, errors, {})
    spec = trainer.model.info.preprocess
    features = network.pooled(normalize(images, spec))

    def loss(weight):
        return trainer.loss(features @ weight.T + network.head.bias, targets)

    wanted = mx.grad(loss)(network.head.weight)
    norm = trainer.model.head.bn
    scale = norm.weight * mx.rsqrt(norm.running_var + norm.eps)
    assert mx.abs(errors[path]).max() > 1e-4
    shift = norm.bias - norm.running_mean * scale
    bias = mx.grad(lambda b: trainer.loss(features @ network.head.weight.T + b, targets))
    into_bias = bias(network.head.bias)[:, None] * shift
    np.testing.assert_allclose(found[own], wanted * scale + into_bias, rtol=1e-4, atol=1e-6)
    assert all(mx.isfinite(gradient).all() for gradient in found.values())


def test_gradients_pass_the_rounding_of_inputs_within_their_range():
    layer = RoundedInput(nn.Identity(), 0.5, -128)  # 0 to 127.5
    x = mx.array([-3.0, 0.2, 0.3, 100.3, 200.0])
    np.testing.assert_allclose(layer(x), [0, 0, 0.5, 100.5, 127.5])
    gradient = mx.grad(lambda x: layer(x).sum())(x)
    np.testing.assert_allclose(gradient, [0, 1, 1, 1, 0])


class Kept(Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch(self, epoch):
        self.epochs.append(epoch)


def test_a_rounded_model_learns_what_rounding_took(folder, tmp_path):
    """With four values a tensor nothing is left, but by training for them."""
    kept = Kept()
    options = {**QUICK, "epochs": 8, "lr": 3e-3, "layer_decay": 1.0}
    options |= {"rounding": rounding(ROUGH), "qat_epochs": 7}
    model = train(folder, tmp_path / "out", **options, callbacks=[kept])
    plain = train(folder, tmp_path / "plain", **{**QUICK, "epochs": 8, "lr": 3e-3})
    _, chosen = prepared(ROUGH, plain)
    network = rounded_model(plain, rounding_errors(plain, chosen, fresh=True), {})
    found = [
        network(ondevice.preprocess(folder / name / f"{i:02}.png", plain.info.preprocess))
        for name in plain.info.labels
        for i in range(20)
    ]
    right = np.mean([int(y.argmax()) == i // 20 for i, y in enumerate(found)])
    assert model.info.metrics["val_top1_rounded"] >= 100 * right + 5
    rounded = [epoch.score for epoch in kept.epochs[1:]]
    assert model.info.metrics["val_top1_rounded"] == round(100 * max(rounded), 2)


def test_a_folder_remembers_what_it_was_trained_for(folder, tmp_path):
    train(folder, tmp_path / "out", **QUICK, rounding=rounding("palette4"))
    saved = ondevice.load(tmp_path / "out")
    assert saved.info.recipe["name"] == "palette4"
    path = export(saved, tmp_path / "out.mlpackage")
    said = json.loads(load_package(path).metadata["ondevice.recipe"])
    assert (said["name"], said["trained"], "ranges" in said) == ("palette4", True, False)
    again = train(folder, tmp_path / "two", **{**QUICK, "model": str(tmp_path / "out")})
    assert again.info.recipe == {}


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_one_goes_on_to_the_same_bits(folder, tmp_path, stop):
    options = {"rounding": rounding("w8a8"), "qat_epochs": 2, "size": 64}
    train(folder, tmp_path / "whole", **QUICK | options)
    interrupted(folder, tmp_path / "out", after=stop, **options)
    changed = options | {"rounding": rounding("int8")}
    with pytest.raises(ConfigError, match="recipe was 'w8a8', now 'int8'"):
        train(folder, tmp_path / "out", **QUICK | changed, resume=True)
    assert state_path(tmp_path / "out").exists()
    train(
        folder,
        tmp_path / "out",
        **QUICK | options | {"rounding": rounding("w8a8")},
        resume=True,
    )
    assert same(tmp_path / "out", tmp_path / "whole")
    one, two = (ondevice.load(tmp_path / n).info for n in ("out", "whole"))
    assert one.recipe == two.recipe
    assert len(one.recipe["ranges"]) > 30


@pytest.mark.parametrize(("given", "peak"), [({}, 3e-5), ({"lr": 1e-4}, 1e-4)])
def test_where_all_epochs_round_small_steps_are_taken(folder, tmp_path, given, peak):
    options = {"epochs": 1, "warmup": 0, "rounding": rounding("int8")}
    kept = Kept()
    train(folder, tmp_path / "out", **QUICK | options | given, callbacks=[kept])
    assert math.isclose(kept.epochs[0].lr, peak)


REFUSED = {
    "probe": (
        {"method": "probe", "rounding": rounding("int8")},
        "a rounding goes with --method full",
    ),
    "epochs": ({"qat_epochs": 2}, "rounded by a recipe: give one"),
    "many": ({"qat_epochs": 4, "rounding": rounding("int8")}, "qat_epochs=4"),
    "pattern": ({"rounding": rounding(NOWHERE)}, "no weight matches nowhere"),
    "patience": ({"patience": 2, "rounding": rounding("int8")}, "patience=2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(folder, tmp_path, case):
    options, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        train(folder, tmp_path / "out", **QUICK | options)
    assert not list(tmp_path.iterdir())


def test_classes_that_are_known_keep_their_head(folder, tmp_path):
    train(folder, tmp_path / "one", **{**QUICK, "epochs": 6, "lr": 3e-3})
    before = ondevice.load(tmp_path / "one")
    kept = Kept()
    again = {**QUICK, "model": str(tmp_path / "one"), "lr": 1e-9, "epochs": 1}
    after = train(folder, tmp_path / "two", **again, callbacks=[kept])
    weights = (m.head.linear.weight for m in (before, after))
    np.testing.assert_allclose(*weights, atol=1e-6)
    assert math.isclose(
        100 * kept.epochs[0].score, before.info.metrics["val_top1"], abs_tol=0.01
    )
