"""Compressed constants: what we say they stand for is what coremltools unpacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, types

from converters.compress.forms import Affine, Palette, Sparse, bits_per_weight, snr_db
from converters.compress.kmeans import kmeans, nearest
from converters.compress.methods import compress, divisor_near
from converters.compress.rounding import Statistics, Weight, output_error
from converters.coreml.compressed import emit, pack
from converters.coreml.reference.plan import compile_function
from converters.coreml.target import opset
from converters.verification.stored_weights import likeness
from ondevice.errors import ConfigError

SHAPES = [(37, 1, 3, 3), (66, 34, 1, 1), (29, 34), (16, 8, 3, 3)]
METHODS = {  # name, options, least target
    "int8": ("quantize", {"bits": 8}, "iOS16"),
    "uint8": ("quantize", {"bits": 8, "mode": "affine"}, "iOS16"),
    "palette8": ("palettize", {"bits": 8}, "iOS16"),
    "palette6": ("palettize", {"bits": 6}, "iOS16"),
    "palette4": ("palettize", {"bits": 4}, "iOS16"),
    "palette2": ("palettize", {"bits": 2}, "iOS16"),
    "palette1": ("palettize", {"bits": 1}, "iOS16"),
    "prune": ("prune", {"sparsity": 0.4}, "iOS16"),
    "palette3": ("palettize", {"bits": 3}, "iOS18"),
    "grouped": ("palettize", {"bits": 4, "group": 16}, "iOS18"),
    "int8 table": ("palettize", {"bits": 4, "group": 16, "table_bits": 8}, "iOS18"),
    "int4 block": ("quantize", {"bits": 4, "block": 32}, "iOS18"),
    "uint4 block": ("quantize", {"bits": 4, "block": 32, "mode": "affine"}, "iOS18"),
    "prune int8": ("prune", {"then": "quantize", "bits": 8}, "iOS18"),
    "prune palette4": ("prune", {"then": "palettize", "bits": 4}, "iOS18"),
}


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def weight(shape, seed=0, dtype=np.float16):
    rng = np.random.default_rng(seed)
    value = rng.standard_normal(shape) * np.exp(
        rng.standard_normal((shape[0], *[1] * (len(shape) - 1)))
    )
    return Weight("w", value.astype(np.float32), dtype)


def unpacked(form, target):
    """The form as a saved program would give it back, by coremltools' own decompression."""
    inputs = {"x": mb.placeholder((1,), types.fp32)}
    with Function(inputs, opset_version=opset(target)) as function:
        emit(form, "w", target)
        function.set_outputs([mb.identity(x=function.inputs["x"])])
    return compile_function(function).constants["w"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_a_form_is_what_core_ml_unpacks(name, shape):
    method, options, least = METHODS[name]
    form = compress(weight(shape), method, options)
    for target in {least, "iOS18"}:
        np.testing.assert_array_equal(
            unpacked(form, target), form.dense().astype(np.float32), strict=False
        )
    assert form.shape == shape
    assert form.dense().dtype == np.float16


@pytest.mark.parametrize("name", METHODS)
def test_a_form_of_a_float32_package_is_float32(name):
    method, options, _ = METHODS[name]
    form = compress(weight((24, 16), dtype=np.float32), method, options)
    assert form.dense().dtype == np.float32
    np.testing.assert_array_equal(unpacked(form, "iOS18"), form.dense())


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_packed_integers_come_back(bits, rng):
    from coremltools.optimize._utils import restore_elements_from_packed_bits

    values = rng.integers(0, 2**bits, 77, dtype=np.uint8)
    packed = pack(values, bits)
    assert len(packed) == -(-77 * bits // 8)
    assert np.array_equal(restore_elements_from_packed_bits(packed, bits, 77), values)


def test_stored_bits_count_codes_scales_and_tables():
    codes = np.zeros((4, 8), np.int8)
    assert Affine(codes, np.ones((4, 1), np.float16), 8).stored_bits == 32 * 8 + 4 * 16
    palette = Palette(codes.astype(np.uint8), np.zeros((2, 1, 16), np.float16), 4)
    assert palette.stored_bits == 32 * 4 + 2 * 16 * 16
    assert bits_per_weight(palette) == 4 + 16
    mask = np.zeros((4, 8), np.uint8)
    mask[:2] = 1
    assert Sparse(mask, np.zeros((4, 8), np.float16)).stored_bits == 32 + 16 * 16
    assert Sparse(mask, palette).stored_bits == 32 + 16 * 4 + 2 * 16 * 16


def test_noise_is_counted_in_decibels():
    assert snr_db(np.full(4, 10.0), np.full(4, 9.0)) == pytest.approx(20)
    assert snr_db(np.ones(4), np.ones(4)) == float("inf")


def test_kmeans_is_optimal_where_every_partition_can_be_tried(rng):
    from itertools import combinations

    for _ in range(5):
        x = np.sort(rng.standard_normal(12))
        w = rng.uniform(0.1, 3, 12)
        best = min(
            sum(
                np.sum(w[a:b] * (x[a:b] - np.average(x[a:b], weights=w[a:b])) ** 2)
                for a, b in zip((0, *cuts), (*cuts, 12), strict=True)
            )
            for cuts in combinations(range(1, 12), 3)
        )
        table = kmeans(x, 4, w)
        assert np.sum(w * (x - table[nearest(x, table)]) ** 2) <= best * (1 + 1e-6)


def test_kmeans_of_a_normal_comes_near_lloyd_and_max(rng):
    """Max, 1960: 0.009497 for sixteen levels of the unit normal."""
    x = rng.standard_normal(100_000)
    table = kmeans(x, 16)
    assert np.mean((x - table[nearest(x, table)]) ** 2) < 0.0097


def test_few_distinct_values_are_all_kept():
    table = kmeans(np.array([3.0, 1.0, 3.0, 1.0]), 4)
    assert list(table) == [1, 3, 3, 3]


def test_what_weighs_more_is_met_better(rng):
    x = rng.standard_normal(2000)
    w = np.where(x > 1, 100.0, 1.0)
    plain, weighted = kmeans(x, 4), kmeans(x, 4, w)
    upper = x[x > 1]

    def error(table):
        return np.mean((upper - table[nearest(upper, table)]) ** 2)

    assert error(weighted) < error(plain) / 2


@pytest.mark.parametrize(
    ("number", "wanted", "found"),
    [(66, 16, 22), (34, 16, 17), (37, 16, 37), (1, 32, 1), (64, 16, 16)],
)
def test_a_width_that_does_not_divide_takes_the_nearest_that_does(number, wanted, found):
    assert divisor_near(number, wanted) == found


def correlated(inputs, groups=1, seed=1):
    """Second moments of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((groups, inputs, inputs)) * np.exp(rng.standard_normal(inputs))
    x = rng.standard_normal((groups, 400, inputs)) @ mix + 0.5
    return Statistics(
        x.swapaxes(1, 2) @ x / 400, x.mean(axis=1), x[0], np.abs(x[0]).max(axis=0)
    )


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"uint8", "uint4 block", "palette8"}))
@pytest.mark.parametrize(("shape", "groups"), [((24, 40), 1), ((32, 1, 3, 3), 32)], ids=str)
def test_gptq_changes_the_output_less(name, shape, groups):
    method, options, _ = METHODS[name]
    given = weight(shape)
    given = Weight(
        "w", given.value, np.float16, statistics=correlated(9 if groups > 1 else 40, groups)
    )
    naive = compress(given, method, {**options, "rounding": "nearest"})
    ours = compress(given, method, options)
    assert output_error(given, ours.dense()) <= output_error(given, naive.dense())
    assert ours.stored_bits == naive.stored_bits


def test_four_bits_lose_half_of_what_rounding_to_the_nearest_does():
    given = Weight("w", weight((48, 64)).value, np.float16, statistics=correlated(64))
    options = {"bits": 4}
    naive = compress(given, "palettize", {**options, "rounding": "nearest"})
    ours = compress(given, "palettize", options)
    assert output_error(given, ours.dense()) < output_error(given, naive.dense()) / 2


def test_inputs_that_hardly_vary_are_no_obstacle():
    x = 5 + 1e-9 * np.random.default_rng(0).standard_normal((1, 50, 8))
    moments, means = (x.swapaxes(1, 2) @ x / 50).astype(np.float32), x.mean(axis=1)
    seen = (x[0], np.abs(x[0]).max(axis=0))
    for share in (1, 0):
        statistics = Statistics(moments * share, means * share, *seen)
        given = Weight("w", weight((6, 8)).value, np.float16, 0, statistics.centred())
        form = compress(given, "palettize", {"bits": 4})
        assert np.isfinite(form.dense()).all()


def test_a_scale_is_never_zero_nor_lost_in_half_precision():
    """coremltools raises constants below 6e-8 to it, and a scale of zero makes NaN of codes."""
    value = np.full((4, 8), 1e-9, np.float32)
    value[1] = 0
    form = compress(Weight("w", value), "quantize", {"bits": 8})
    assert (form.scale > 0).all()
    assert np.isfinite(form.dense()).all()
    assert np.abs(form.dense() - value).max() <= 2**-24  # the smallest scale


def test_a_channel_keeps_its_own_scale():
    """Per output channel: coremltools 9.0 takes the maximum along another axis."""
    value = np.random.default_rng(0).standard_normal((8, 16, 1, 1)).astype(np.float32)
    value[3] *= 1e-2
    form = compress(Weight("w", value), "quantize", {"bits": 8})
    assert form.scale.shape == (8, 1, 1, 1)
    assert snr_db(value[3], form.dense()[3]) > 40


def test_a_transposed_convolution_is_scaled_along_its_outputs():
    value = np.random.default_rng(0).standard_normal((6, 9, 2, 2)).astype(np.float32)
    form = compress(Weight("w", value, axis=1), "quantize", {"bits": 8})
    assert form.scale.shape == (1, 9, 1, 1)
    np.testing.assert_array_equal(unpacked(form, "iOS17"), form.dense().astype(np.float32))


def test_a_table_costs_at_most_half_a_bit_a_weight():
    form = compress(weight((64, 1, 3, 3)), "palettize", {"bits": 4, "group": 16})
    assert bits_per_weight(form) <= 4.5


def test_pruning_keeps_what_matters_and_no_more():
    form = compress(weight((24, 40)), "prune", {"sparsity": 0.25})
    assert form.mask.sum() == 24 * 40 * 3 / 4
    kept = np.abs(weight((24, 40)).value)
    assert kept[form.mask == 1].min() >= kept[form.mask == 0].max()


def hardly_varying(inputs=8):
    """Statistics about the mean of large inputs that hardly vary: by rounding, some variances
    are negative."""
    rng = np.random.default_rng(0)
    x = (100 + 1e-4 * rng.standard_normal((1, 50, inputs))).astype(np.float32)
    moments = (x.swapaxes(1, 2) @ x / np.float32(50)).astype(np.float64)
    found = Statistics(
        moments, x.mean(axis=1, dtype=np.float64), x[0], np.abs(x[0]).max(axis=0)
    )
    found = found.centred()
    assert np.diagonal(found.moments[0]).min() < 0
    return found


@pytest.mark.parametrize("name", METHODS)
def test_negative_variances_count_as_none(name):
    """The root of one is NaN, which is sorted last: those weights would all be kept."""
    method, options, _ = METHODS[name]
    given = Weight("w", weight((40, 8)).value, np.float16, 0, hardly_varying())
    with np.errstate(all="raise"):
        assert given.importance().min() == 0
        form = compress(given, method, options)
    assert np.isfinite(form.dense()).all()
    assert output_error(given, form.dense()) >= 0


def test_pruning_keeps_the_weights_of_inputs_that_vary():
    statistics = hardly_varying()
    moments = statistics.moments.copy()
    moments[0, 3, 3] = 4.0
    given = Weight(
        "w", weight((40, 8)).value, np.float16, 0, replace(statistics, moments=moments)
    )
    kept = compress(given, "prune", {"sparsity": 0.5, "rounding": "nearest"}).mask
    assert kept[:, 3].all()


def test_a_weight_with_nan_is_refused_by_name():
    value = weight((24, 40)).value
    value[3, 4] = np.nan
    with pytest.raises(ConfigError, match="w has NaN, which no method can compress"):
        compress(Weight("w", value, np.float16), "quantize", {"bits": 8})


def test_a_mask_of_infinities_is_kept_and_counted_without_them():
    mask = np.triu(np.full((32, 32), -np.inf, np.float32), k=1)
    given = Weight("mask", mask, np.float32)
    with np.errstate(all="raise"):
        assert given.is_mask
        dense = compress(given, "palettize", {"bits": 1}).dense()
        assert snr_db(mask, dense) == np.inf
    np.testing.assert_array_equal(dense, mask)
    assert likeness(mask, dense) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_a_palette_finds_values_that_a_weight_nearly_has(seed):
    """Also the rare ones far out, which lie in one quantile with others."""
    rng = np.random.default_rng(seed)
    wanted = np.cumsum(rng.uniform(0.3, 1, 16))
    counts = rng.permutation(np.geomspace(2, 4000, 16).astype(int))
    values = np.repeat(wanted, counts) + rng.normal(0, 1e-7, counts.sum())
    np.testing.assert_allclose(kmeans(values, 16), wanted, atol=1e-5)
