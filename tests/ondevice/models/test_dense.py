"""Depth and masks: transformers' numbers, any size, and what comes out of a package."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from converters import export, load_package, verify
from converters.export.build import lay_out, rename_inputs, to_graph
from ondevice import create_model, fuse, list_models, model_spec
from ondevice.errors import ConfigError
from ondevice.image.colours import palette
from ondevice.tasks.dense import predict

from ...parity.dense_cases import DenseCase
from ...support.lowered import function_of

SMALL = {
    "depth_anything_v2_small": {
        "embed_dim": 24,
        "depth": 4,
        "heads": 2,
        "out": (1, 2, 3, 4),
        "neck_dims": (8, 12, 16, 24),
        "fusion_dim": 12,
        "head_dim": 8,
        "table": 5,
    },
    "segformer_b0": {
        "num_classes": 7,
        "dims": (8, 16, 40, 64),
        "depths": (1, 2, 1, 1),
        "decoder_dim": 24,
    },
    "light_fpn_shvit_nano": {"num_classes": 7, "dim": 24},
}
SIZES = {"depth_anything_v2_small": 84, "segformer_b0": 64, "light_fpn_shvit_nano": 64}


def small(name):
    """A small network of the variant's kind whose numbers differ from each other."""
    mx.random.seed(0)
    return scrambled(create_model(name, **SMALL[name]))


def scrambled(model):
    """The model with norms and biases that are not those of before training."""
    spread = [
        (path, value + 0.2 * mx.random.normal(value.shape))
        for path, value in tree_flatten(model.parameters())
        if value.ndim == 1 and not path.endswith(("running_var", "n_points_scale"))
    ]
    model.load_weights(spread, strict=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_depth_is_that_of_transformers(prepare):
    case = DenseCase("depth_anything_v2_small-266")
    depth = np.array(prepare(case.create())(case.input))
    assert case.error("predicted_depth", depth) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [lambda model: model, fuse], ids=["plain", "fused"])
def test_scores_of_pixels_are_those_of_transformers(prepare):
    case = DenseCase("segformer_b0-512")
    scores = np.array(prepare(case.create())(case.input[:1]))
    kept = scores.transpose(0, 3, 1, 2)[:, ::5]  # every fifth class, as the reference has
    assert case.error("logits", kept) < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_fused_gives_the_same(name):
    model = small(name)
    x = (
        mx.random.normal((2, 84, 84, 3))
        if name.startswith("depth")
        else mx.random.normal((2, 64, 96, 3))
    )
    wanted, found = model(x), fuse(model)(x)
    assert float(mx.abs(wanted - found).max()) < 1e-4 * float(wanted.std())


def test_depth_of_any_multiple_of_14():
    model = small("depth_anything_v2_small")
    for height, width in ((70, 70), (56, 98), (14, 140)):
        assert model(mx.random.normal((1, height, width, 3))).shape == (1, height, width, 1)
    with pytest.raises(ConfigError, match="multiples of 14"):
        model(mx.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("name", SMALL)
def test_a_package_needs_no_transpose(name):
    function = function_of(small(name), size=SIZES[name])
    graph = lay_out(rename_inputs(to_graph(function), function.input_names), function)
    assert "Transpose" not in {node.op for node in graph.nodes}


@pytest.mark.parametrize(
    ("name", "outputs", "kinds"),
    [
        (
            "depth_anything_v2_small",
            ["depth", "depth_array", "depth_grey"],
            ["grayscale_float16", "float16", "grayscale"],
        ),
        (
            "segformer_b0",
            ["mask", "mask_image", "mask_colours", "scores"],
            ["int32", "grayscale", "RGB", "float16"],
        ),
        (
            "light_fpn_shvit_nano",
            ["mask", "mask_image", "mask_colours", "scores"],
            ["int32", "grayscale", "RGB", "float16"],
        ),
    ],
)
def test_a_package_gives_images(name, outputs, kinds, tmp_path):
    model, size = small(name), SIZES[name]
    path = export(model, tmp_path / "dense.mlpackage", outputs=outputs, size=size)
    package = load_package(path)
    assert [package.outputs[name].dtype for name in outputs] == kinds
    samples = model.signature.resized(size).samples(2)
    report = verify(model, path, samples, baselines=True).require()
    assert {c.output for c in report.comparisons} == set(outputs)


@pytest.mark.parametrize("name", list_models("light_fpn_*"))
def test_a_light_pyramid_is_as_large_as_is_listed(name):
    spec = model_spec(name)
    model = spec.build(spec.config)
    model.train()
    count = sum(v.size for _, v in tree_flatten(model.trainable_parameters()))
    assert count == spec.params
    side = 5 * spec.stride  # which is halved to odd maps
    shapes = [(-(-side // f.stride),) * 2 + (f.channels,) for f in spec.config.feature_info]
    maps = model.maps(mx.zeros((1, side, side, 3)))
    assert [x.shape[1:] for x in maps] == shapes
    assert [f.stride for f in spec.config.feature_info] == [4, 8, 16, 32, 64]


@pytest.mark.parametrize("name", ["light_fpn_shvit_nano", "light_fpn_efficientvit_m0"])
def test_a_light_pyramid_takes_maps_of_odd_size(name, tmp_path):
    mx.random.seed(0)
    model = scrambled(create_model(name, num_classes=3, dim=8))
    path = export(model, tmp_path / "odd.mlpackage", size=80, outputs=["scores"])
    assert load_package(path).outputs["scores"].shape == (1, 3, 20, 20)
    verify(model, path, model.signature.resized(80).samples(1)).require()
    with pytest.raises(ConfigError, match="multiples of 16"):
        model(mx.zeros((1, 72, 80, 3)))


def test_half_precision_is_measured_on_images_of_a_size_that_fits(tmp_path):
    """Large images are measured small: as multiples of 14, too."""
    model = small("depth_anything_v2_small")
    path = export(model, tmp_path / "depth.mlpackage", size=518)
    assert load_package(path).outputs["depth"].shape == (518, 518)


def test_a_float32_package_has_depth_as_an_array(tmp_path):
    """Core ML has no image of float32."""
    model = small("depth_anything_v2_small")
    options = {"size": 56, "precision": "float32"}
    path = export(model, tmp_path / "depth.mlpackage", **options)
    assert load_package(path).outputs["depth"].dtype == "float32"
    verify(model, path, model.signature.resized(56).samples(1)).require()


def test_a_package_says_how_xcode_shows_it(tmp_path):
    model = small("depth_anything_v2_small")
    package = load_package(export(model, tmp_path / "depth.mlpackage", size=56))
    key = "com.apple.coreml.model.preview.type"
    assert package.metadata[key] == "depthEstimation"


def test_a_segmenter_says_its_classes_and_their_colours(tmp_path):
    from dataclasses import replace

    model = small("segformer_b0")
    model.info = replace(model.info, labels=tuple("abcdefg"))
    package = load_package(export(model, tmp_path / "mask.mlpackage", size=64))
    said = package.metadata["com.apple.coreml.model.preview.params"]
    assert package.metadata["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    assert '"labels": ["a", "b", "c", "d", "e", "f", "g"]' in said
    assert '"#800000"' in said
    assert package.labels == tuple("abcdefg")


def test_a_wrong_mask_fails_though_its_numbers_are_near(tmp_path):
    model = small("segformer_b0")
    path = export(model, tmp_path / "mask.mlpackage", size=64)
    other = small("segformer_b0")
    other.decode_head.classifier.bias = other.decode_head.classifier.bias[::-1]
    report = verify(other, path, model.signature.resized(64).samples(2))
    assert any("equal_pixels" in line for line in report.failures)


def test_colours_are_those_of_the_classes():
    model, x = small("segformer_b0"), mx.random.normal((1, 64, 64, 3))
    classes = np.array(model.classes(x))[..., 0]
    table = np.array(palette(7))
    assert len({*map(tuple, table)}) == 7
    assert (np.array(model.colours(x)) == table[classes]).all()


def test_a_grey_image_goes_from_the_farthest_to_the_nearest():
    model, x = small("depth_anything_v2_small"), mx.random.normal((2, 56, 56, 3))
    depth, grey = np.array(model(x)), np.array(model.grey(x))
    for d, g in zip(depth, grey, strict=True):
        assert (g.min(), g.max()) == (0, 255)
        assert g.ravel()[d.argmax()] == 255
        assert (g == np.rint(g)).all()


def test_one_photo_is_one_and_its_rows_are_none():
    model = create_model("light_fpn_shvit_nano.shapes")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    (wanted,) = predict(model, [pixels], "mask")
    for one in (pixels, Image.fromarray(pixels), pixels[None]):
        (found,) = predict(model, one, "mask")
        assert np.array_equal(found.found, wanted.found)
