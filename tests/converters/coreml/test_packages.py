"""Saved packages of every form: compressed, eight-bit, several functions, images, labels."""

from __future__ import annotations

import json
import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from converters import load_package
from converters.coreml.reader import quiet
from converters.coreml.reference.elementwise import erf
from converters.coreml.reference.rounding import round_to_float16
from ondevice.errors import ImageError, PackageError
from tests.support.mil import convert, ct, mb, save, save_model

with quiet():
    import coremltools.optimize.coreml as cto

_RNG = np.random.default_rng(3)
_INPUT = {"image": ((1, 16, 12, 12), "float16")}
X = _RNG.normal(size=(1, 16, 12, 12)).astype(np.float16).astype(np.float32)


def _weight(*shape: int) -> np.ndarray[Any, Any]:
    return (_RNG.normal(size=shape) / math.sqrt(np.prod(shape[1:]))).astype(np.float16)


def small_net(image: Any, width: int = 64) -> Any:
    x = mb.conv(x=image, weight=_weight(width, 16, 3, 3), pad_type="same", name="stem")
    x = mb.relu(x=x)
    x = mb.conv(x=x, weight=_weight(width, 1, 3, 3), groups=width, pad_type="same", name="dw")
    x = mb.conv(x=x, weight=_weight(width, width, 1, 1), name="pw")
    x = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False)
    return mb.linear(x=x, weight=_weight(32, width), name="head")


@pytest.fixture(scope="session")
def models():
    return {
        target: convert(small_net, _INPUT, target=target, precision="float16")
        for target in ("iOS16", "iOS18")
    }


def quantizer(**options: Any) -> Any:
    config = _config(cto.OpLinearQuantizerConfig, **options)
    return lambda model: cto.linear_quantize_weights(model, config)


def palettizer(**options: Any) -> Any:
    return lambda model: cto.palettize_weights(
        model, _config(cto.OpPalettizerConfig, **options)
    )


def pruner(config: Any, **options: Any) -> Any:
    return lambda model: cto.prune_weights(model, _config(config, **options))


def then(first: Any, second: Any) -> Any:
    return lambda model: second(first(model))


def joint(method: Any, config: Any, **options: Any) -> Any:
    return lambda model: method(model, _config(config, **options), joint_compression=True)


def _config(config: Any, **options: Any) -> Any:
    return cto.OptimizationConfig(global_config=config(weight_threshold=64, **options))


INT8 = {
    "method": cto.linear_quantize_weights,
    "config": cto.OpLinearQuantizerConfig,
    "mode": "linear_symmetric",
}
PRUNED = pruner(cto.OpMagnitudePrunerConfig, target_sparsity=0.7)
COMPRESSIONS = {
    "int8": ("iOS16", quantizer(mode="linear_symmetric")),
    "int8 affine": ("iOS16", quantizer(mode="linear")),
    "4-bit palette": ("iOS16", palettizer(mode="uniform", nbits=4)),
    "6-bit palette": ("iOS16", palettizer(mode="uniform", nbits=6)),
    "sparse": ("iOS16", PRUNED),
    "int8, iOS18": ("iOS18", quantizer(mode="linear_symmetric")),
    "uint8 per tensor": (
        "iOS18",
        quantizer(mode="linear", dtype="uint8", granularity="per_tensor"),
    ),
    "int4": ("iOS18", quantizer(mode="linear_symmetric", dtype="int4")),
    "int4 per block": (
        "iOS18",
        quantizer(
            mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=16
        ),
    ),
    "3-bit palette": ("iOS18", palettizer(mode="uniform", nbits=3)),
    "8-bit palette": ("iOS18", palettizer(mode="uniform", nbits=8)),
    "grouped palette": (
        "iOS18",
        palettizer(mode="uniform", nbits=4, granularity="per_grouped_channel", group_size=16),
    ),
    "grouped palette with scales": (
        "iOS18",
        palettizer(
            mode="uniform",
            nbits=4,
            granularity="per_grouped_channel",
            group_size=16,
            enable_per_channel_scale=True,
        ),
    ),
    "sparse 3 of 4": ("iOS18", pruner(cto.OpMagnitudePrunerConfig, n_m_ratio=(3, 4))),
    "palette of int8": (
        "iOS18",
        then(
            palettizer(mode="uniform", nbits=4),
            joint(**INT8, granularity="per_tensor"),
        ),
    ),
    "sparse int8": (
        "iOS18",
        then(
            PRUNED,
            joint(**INT8),
        ),
    ),
    "sparse palette": (
        "iOS18",
        then(
            PRUNED,
            joint(cto.palettize_weights, cto.OpPalettizerConfig, mode="uniform", nbits=4),
        ),
    ),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_compressed_package_equals_its_decompressed_twin(name, models, tmp_path):
    target, compress = COMPRESSIONS[name]
    with quiet():
        compressed = compress(models[target])
        decompressed = cto.decompress_weights(compressed)
    package = load_package(save_model(compressed, tmp_path / "compressed.mlpackage"))
    twin = load_package(save_model(decompressed, tmp_path / "twin.mlpackage"))
    assert any(op.type.startswith("constexpr_") for op in package.stored().everything)
    assert not any(op.type.startswith("constexpr_") for op in twin.stored().everything)
    (given,), (wanted,) = (p.predict({"image": X}).values() for p in (package, twin))
    np.testing.assert_array_equal(given, wanted)


def test_eight_bit_activations_follow_the_formula(tmp_path):
    weight = _RNG.integers(-127, 128, size=(4, 16, 1, 1)).astype(np.int8)
    step = np.float16(0.01)

    def body(image):
        levels = mb.quantize(input=image, scale=np.float16(0.02), output_dtype="int8")
        x = mb.dequantize(input=levels, scale=np.float16(0.02), name="restored")
        w = mb.constexpr_affine_dequantize(
            quantized_data=weight,
            zero_point=np.int8(0),
            scale=np.float16(0.01),
            axis=np.int32(0),
        )
        return mb.conv(x=x, weight=w, name="y")

    package = load_package(save(body, _INPUT, tmp_path / "w8a8.mlpackage", fuse=False))
    values = package.run({"image": X})
    scale = np.float32(np.float16(0.02))
    levels = np.clip(np.rint(X / scale), -128, 127)
    restored = (levels * scale).astype(np.float16)
    np.testing.assert_array_equal(values["restored"], restored)
    w = (weight * step).astype(np.float32)[:, :, 0, 0]
    y = np.einsum("oc,bchw->bohw", w, restored.astype(np.float32))
    np.testing.assert_allclose(values["y"], y, rtol=1e-3, atol=1e-3)  # float16's spacing


@pytest.mark.parametrize("zero_point", [None, np.int8([1, -2, 3])])
def test_dequantize_per_channel(tmp_path, zero_point):
    scale = np.float32([0.1, 0.2, 0.3])
    options = {} if zero_point is None else {"zero_point": zero_point}

    def body(x):
        levels = mb.quantize(input=x, scale=scale, axis=1, output_dtype="int8", **options)
        return mb.dequantize(input=levels, scale=scale, axis=1, **options)

    path = save(body, {"x": ((2, 3), "float32")}, tmp_path / "x.mlpackage", fuse=False)
    x = np.float32([[0.46, -1, 7], [100, 0.29, -0.14]])
    (given,) = load_package(path).predict({"x": x}).values()
    zero = 0 if zero_point is None else zero_point.astype(np.float32)
    levels = np.clip(np.rint(x / scale) + zero, -128, 127)
    np.testing.assert_allclose(given, (levels - zero) * scale, rtol=1e-6)


def test_every_function_of_a_package_can_be_run(tmp_path):

    parts = {"double": 2.0, "triple": 3.0}
    for name, factor in parts.items():
        model = convert(
            lambda x, factor=factor: mb.mul(x=x, y=factor, name="y"),
            {"x": ((2,) if name == "double" else (3,), "float32")},
            target="iOS18",
        )
        save_model(model, tmp_path / f"{name}.mlpackage")
    with quiet():
        both = ct.utils.MultiFunctionDescriptor()
        for name in parts:
            both.add_function(str(tmp_path / f"{name}.mlpackage"), "main", name)
        both.default_function_name = "triple"
        ct.utils.save_multifunction(both, str(tmp_path / "both.mlpackage"))
    package = load_package(tmp_path / "both.mlpackage")
    assert package.functions == ["double", "triple"]
    assert package.inputs["x"].shape == (3,)
    np.testing.assert_array_equal(package.predict({"x": [1, 2, 3]})["y"], [3, 6, 9])
    np.testing.assert_array_equal(
        package.predict({"x": [1, 2]}, function="double")["y"], [2, 4]
    )
    with pytest.raises(PackageError, match="no function 'half'; it has double, triple"):
        package.predict({"x": [1, 2, 3]}, function="half")


# float16


def test_rounding_is_numpys_cast_to_float16_for_every_kind_of_value():
    scales = 10.0 ** np.arange(-9, 6)
    x = (_RNG.normal(size=(len(scales), 5000)) * scales[:, None]).astype(np.float32)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 65503, 65519.99, 65520, 1e30, -1e30]
    halves = [2049, 2051, 1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25, -(2**-14)]
    for values in (x, np.float32(special), np.float32(halves), np.float32(65520), x[:0]):
        with np.errstate(over="ignore"):
            wanted = np.asarray(values).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(round_to_float16(values), wanted)


def test_values_stored_as_float16_are_rounded_and_overflow(tmp_path):
    def body(x):
        square = mb.mul(x=x, y=x, name="square")
        return mb.mul(x=square, y=np.float16(0.5), name="half")

    inputs = {"x": ((3,), "float16")}
    package = load_package(save(body, inputs, tmp_path / "x.mlpackage", precision="float16"))
    values = package.run({"x": [1.001, 255, 300]}, keep=["square"])
    x = np.float16([1.001, 255, 300])
    with np.errstate(over="ignore"):
        square = x * x
    np.testing.assert_array_equal(values["square"], square)
    np.testing.assert_array_equal(values["half"], square * np.float16(0.5))
    assert values["half"][2] == np.inf


def test_erf_is_within_2e_7():
    x = np.linspace(-6, 6, 24_001, dtype=np.float32)
    exact = np.array([math.erf(v) for v in x.tolist()])
    assert np.abs(erf(x) - exact).max() < 2e-7


# Images, labels, contract


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Says which channel is the brightest: of BGR input, scaled to 0..1 with a bias."""

    def body(image):
        means = mb.reduce_mean(x=image, axes=[2, 3], keep_dims=False)
        return mb.softmax(x=means, axis=-1, name="probs")

    model = convert(
        body,
        {"image": ((1, 3, 8, 8), "float32")},
        inputs=[
            ct.ImageType(
                name="image",
                shape=(1, 3, 8, 8),
                scale=1 / 255.0,
                bias=[0, 0, -0.1],
                color_layout=ct.colorlayout.BGR,
            )
        ],
        classifier_config=ct.ClassifierConfig(["blue", "green", "red"]),
    )
    contract = {"size": 8, "crop_pct": 0.5, "interpolation": "nearest"}
    model.user_defined_metadata["ondevice.preprocess"] = json.dumps(contract)
    model.author, model.license = "us", "MIT"
    path = tmp_path_factory.mktemp("classifier") / "x.mlpackage"
    return load_package(save_model(model, path))


def test_an_image_becomes_a_label_and_scores(classifier):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255
    result = classifier.predict({"image": pixels})
    assert result.keys() == {"classLabel", "classLabel_probs"}
    assert result["classLabel"] == "red"
    e = np.exp([0, 0, 0.9])
    wanted = dict(zip(["blue", "green", "red"], e / e.sum(), strict=True))
    assert result["classLabel_probs"] == pytest.approx(wanted, abs=1e-6)


def test_the_contract_is_applied_where_it_is_asked_for(classifier, tmp_path):
    photo = np.zeros((16, 16, 3), np.uint8)
    photo[4:12, 4:12, 1] = 255  # the half that the contract keeps
    photo[:4, :, 0] = 255
    assert classifier.preprocess.crop_pct == 0.5
    pixels = classifier.resize_and_crop(Image.fromarray(photo))
    assert np.array_equal(pixels, photo[4:12, 4:12])
    wanted = classifier.predict({"image": pixels})
    # What has the input's size is taken as it is, as Core ML does: not cropped once more.
    Image.fromarray(pixels).save(tmp_path / "cropped.png")
    path = tmp_path / "cropped.png"
    image = Image.fromarray(pixels)
    for ready in (image, image.convert("RGBA"), path, mx.array(pixels)):
        assert classifier.predict({"image": ready}) == wanted
    with pytest.raises(PackageError, match=r"resize_and_crop\(photo\) makes it of a photo"):
        classifier.predict({"image": Image.fromarray(photo)})
    with pytest.raises(PackageError, match=r"shape \[8, 8, 3\]; given \[16, 16, 3\]"):
        classifier.predict({"image": photo})
    with pytest.raises(PackageError, match="pixels are uint8; given float64"):
        classifier.predict({"image": photo[4:12, 4:12] / 255})


def test_a_package_says_what_it_is(classifier):
    assert classifier.inputs["image"].kind == "image"
    assert classifier.inputs["image"].shape == (8, 8)
    assert classifier.inputs["image"].dtype == "BGR"
    assert [f.kind for f in classifier.outputs.values()] == ["string", "dictionary"]
    assert classifier.metadata["author"] == "us"
    assert classifier.operations == ["mul", "add", "reduce_mean", "softmax", "classify"]


@pytest.mark.skipif("sys.platform == 'darwin'")
def test_core_ml_is_refused_elsewhere_in_one_line(classifier):
    with pytest.raises(PackageError, match="is Core ML on macOS"):
        classifier.predict({"image": np.zeros((8, 8, 3), np.uint8)}, run_on="device")


def test_wrong_inputs_are_named(classifier):
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(PackageError, match="takes image; given photo"):
        classifier.predict({"photo": pixels})
    with pytest.raises(PackageError, match="takes image; given nothing"):
        classifier.predict({})
    for value in (None, 3, pixels.tolist()):
        with pytest.raises(ImageError, match=f"^{type(value).__name__} is no image; give"):
            classifier.predict({"image": value})


def test_intermediate_values_are_kept_on_request(classifier):
    pixels = {"image": np.zeros((8, 8, 3), np.uint8)}
    everything = classifier.run(pixels)
    assert everything["probs"].shape == (1, 3)
    assert classifier.run(pixels, keep=["probs"]).keys() == {
        "probs",
        *classifier.run(pixels, keep=False),
    }
    assert "probs" in classifier.run(pixels, keep=lambda name: name.startswith("pro"))
