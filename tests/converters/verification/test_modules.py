"""Packages of modules that are called in every way, against the modules themselves."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from converters import export, export_module, load_package, verify
from ondevice import create_model
from ondevice.errors import ConfigError
from ondevice.signature.samples import sample_images

from ...support.lowered import as_module

X = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)


def exported(module, inputs, folder):
    return export_module(module, inputs, folder / "x.mlpackage", precision="float32")


def test_a_module_in_training_mode_is_verified_in_eval_mode_and_stays_as_it_was(tmp_path):
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm(6), nn.Dropout(0.5))
    net.layers[1].running_mean += 0.3
    mean = net.layers[1].running_mean
    path = exported(net, mx.array(X), tmp_path)
    assert verify(net, path, [X, 2 * X]).passed
    assert net.training
    assert net.layers[2].training
    assert net.layers[1].running_mean is mean


def test_a_cache_is_not_filled_by_verifying(tmp_path):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self._table = None

        def __call__(self, x):
            if self._table is None:
                self._table = mx.arange(8.0)
            self.last = x
            return x + self._table

    net = Lazy().eval()
    assert verify(net, exported(net, mx.array(X), tmp_path), [X]).passed
    assert net._table is None
    assert "last" not in net


HALF = {"float16": mx.float16, "bfloat16": mx.bfloat16}


def rounded(dtype, of=lambda x: x):
    """Two layers with half precision between them."""
    mx.random.seed(0)
    first, second = nn.Linear(8, 64), nn.Linear(64, 8)
    module = as_module(lambda x: second(of(first(x).astype(dtype)).astype(mx.float32)))
    module.layers = [first, second]
    return module.eval()


@pytest.mark.parametrize("kind", HALF)
def test_a_model_that_rounds_inside_is_held_to_that(kind, tmp_path):
    net = rounded(HALF[kind], mx.tanh)
    report = verify(net, exported(net, mx.array(X), tmp_path), [X, 2 * X])
    assert report.passed, report.failures
    assert f"the model computes in {kind} inside, the package in float32" in report.notes[0]


@pytest.mark.parametrize("kind", HALF)
def test_what_is_wrong_by_more_fails_all_the_same(kind, tmp_path):
    path = exported(rounded(HALF[kind], lambda x: 1.04 * mx.tanh(x)), mx.array(X), tmp_path)
    assert not verify(rounded(HALF[kind], mx.tanh), path, [X, 2 * X]).passed


def test_a_constant_in_half_precision_is_no_rounding(tmp_path):
    net = as_module(lambda x: x * mx.array(0.3, mx.bfloat16).astype(mx.float32)).eval()
    report = verify(net, exported(net, mx.array(X), tmp_path), [X])
    assert report.passed, report.failures
    assert not report.notes


@pytest.mark.parametrize("scale", [0.5, np.float32(0.5), np.array(0.5), np.array([0.5])])
def test_a_scalar_goes_in_as_what_it_is(scale, tmp_path):
    """And the module is given an array without an axis, as when it was exported."""
    net = as_module(lambda x, s: mx.stack([s, s + 1]) + x[..., :2])
    path = exported(net, [mx.array(X), 0.25], tmp_path)
    assert verify(net, path, [(X, scale)]).passed
    found = load_package(path).predict({"input_0": X, "input_1": scale})
    np.testing.assert_allclose(found["output"], X[..., :2] + [0.5, 1.5], rtol=1e-6)


def test_a_mask_of_truth_values_is_one_on_both_sides(tmp_path):
    """Of zeros and ones it would be added to the scores."""

    def attention(x, mask):
        return mx.fast.scaled_dot_product_attention(x, x, x, scale=0.5, mask=mask)

    x, mask = X[None], np.tril(np.ones((4, 4), bool))
    net = as_module(attention)
    path = exported(net, [mx.array(x), mx.array(mask)], tmp_path)
    report = verify(net, path, [(x, mask), (x, mask.astype(np.float32))], baselines=True)
    assert report.passed, report


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda x: x, "cannot be called: TypeError"),
        (lambda x, s: x / (1 // 0), "cannot be called: ZeroDivisionError"),
        (lambda x, s: None, "the module gives NoneType"),
    ],
)
def test_another_module_that_cannot_be_called_so_is_told_in_one_line(fn, said, tmp_path):
    path = exported(as_module(lambda x, s: x * s), [mx.array(X), 0.25], tmp_path)
    with pytest.raises(ConfigError, match=said):
        verify(as_module(fn), path, [(X, 0.5)])


class Named(nn.Module):
    def __call__(self, a, b, *, scale):
        return {"found": a - b * scale}


def test_keywords_may_come_in_any_order(tmp_path):
    given = {"scale": np.float32(3), "b": 2 * X, "a": X}
    net = Named().eval()
    path = exported(net, given, tmp_path)
    turned = dict(reversed(given.items()))
    assert verify(net, path, [given, turned, tuple(given.values())], baselines=True).passed
    np.testing.assert_allclose(load_package(path).predict(turned)["found"], -5 * X, rtol=1e-6)
    with pytest.raises(ConfigError, match="takes scale, b, a; given a, c"):
        verify(net, path, [{"a": X, "c": X}])


class Masked(nn.Module):
    def __call__(self, x):
        return mx.where(x > 0, x, -mx.inf), mx.where(x < 1, x, mx.nan)


def test_infinite_and_nan_values_that_the_model_has_as_well_are_no_fault(tmp_path, monkeypatch):
    """Scores of what is not to be chosen, for one."""
    net = Masked().eval()
    path = exported(net, mx.array(X), tmp_path)
    report = verify(net, path, [X, 2 * X])
    assert report.passed
    assert all(c.finite and c.psnr_db > 100 for c in report.comparisons)
    other = as_module(lambda x: (mx.where(x > 1, x, -mx.inf), mx.where(x < 1, x, -mx.inf)))
    failed = verify(other, path, [X, 2 * X]).failures
    assert [f for f in failed if "NaN or infinite" in f] == [
        "as saved: output_0 has or lacks NaN or infinite values, unlike MLX",
        "as saved: output_1 has or lacks NaN or infinite values, unlike MLX",
    ]


def test_values_that_are_never_finite_show_nothing(tmp_path):
    net = as_module(lambda x: mx.log(x - 100))
    path = exported(net, mx.array(X), tmp_path)
    (failed,) = verify(net, path, [X, 2 * X]).failures
    assert failed == (
        "as saved: output has NaN and infinite values alone, in MLX too: there is nothing to "
        "compare"
    )


@pytest.mark.parametrize("kind", HALF)
def test_weights_in_half_precision_are_folded_in_float32(kind, tmp_path):
    model = create_model("shvit_nano.cifar10", dtype=HALF[kind])
    path = export(model, tmp_path / "x.mlpackage", precision="float32")
    report = verify(model, path, sample_images(96))
    assert report.passed, report.failures
    assert {p.dtype for _, p in tree_flatten(model.parameters())} == {HALF[kind]}
