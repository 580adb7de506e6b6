"""Networks that no one of us registered, written as any user of mlx.nn would."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export, export_module, load_package
from ondevice import create_model
from ondevice.errors import ConfigError, OutputError, UnsupportedOpError

from ...support.lowered import as_module, assert_lowered, ops
from .test_clip_export import small_text

X = mx.random.normal((2, 4), key=mx.random.key(0))


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiHeadAttention(dim, 4, bias=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def __call__(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y)
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.cls, self.pos = mx.random.normal((1, 1, 16)), mx.random.normal((1, 17, 16))
        self.blocks = [Block(16) for _ in range(2)]
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def __call__(self, x):
        x = self.patch(x)
        B, H, W, C = x.shape
        cls = mx.broadcast_to(self.cls, (B, 1, C))
        x = mx.concatenate([cls, x.reshape(B, H * W, C)], axis=1) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class ConvNeXtBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.dw, self.norm = nn.Conv2d(16, 16, 7, padding=3, groups=16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.gamma = mx.random.normal((16,))

    def __call__(self, x):
        x = self.stem(x)
        x = x + self.gamma * self.down(nn.gelu(self.up(self.norm(self.dw(x)))))
        return x.mean(axis=(1, 2))


class CNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm(12), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(12, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.SiLU(),
            nn.MaxPool2d(3, 2, 1), nn.Conv2d(12, 8, 1), nn.Hardswish(), nn.Upsample(2),
        )  # fmt: skip
        self.head = nn.Linear(8 * 8 * 8, 3)
        norm = self.body.layers[1]
        norm.running_mean, norm.bias = mx.random.normal((2, 12))
        norm.running_var, norm.weight = mx.random.uniform(0.5, 2, (2, 12))

    def __call__(self, x):
        return self.head(self.body(x).reshape(x.shape[0], -1))


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.pos = nn.Embedding(50, 16), mx.random.normal((10, 16))
        self.blocks = [Block(16) for _ in range(2)]

    def __call__(self, ids):
        x = self.embed(ids) + self.pos
        for block in self.blocks:
            x = block(x)
        return x.max(axis=1)


IMAGE = mx.random.normal((1, 16, 16, 3), key=mx.random.key(1))
IDS = mx.array([[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]])
NETS = {
    "vit": (ViT, IMAGE),
    "convnext": (ConvNeXtBlock, IMAGE),
    "cnn": (CNN, IMAGE),
    "text": (TextEncoder, IDS),
}


@pytest.mark.parametrize("net", NETS)
def test_a_network_of_a_users_own_becomes_a_program(net):
    build, x = NETS[net]
    assert_lowered(build(), x)


def test_a_vit_keeps_one_transpose_and_folds_into_one_op_a_layer():
    found = ops(ViT(), IMAGE)
    assert found["Transpose"] == 1  # the NHWC input's
    assert found["LayerNorm"] == 5
    assert found["Gelu"] == 2
    assert found["Affine"] == 0
    assert found["Linear"] == 0  # all of them are 1x1 convolutions of (1, C, 1, S)


def test_a_package_of_a_users_module_takes_and_gives_mlx_shapes(tmp_path):
    net = as_module(CNN())
    path = export_module(
        net, IMAGE, tmp_path / "net.mlpackage", precision="float32", input_names=["x"]
    )
    got = load_package(path).predict({"x": np.array(IMAGE)})
    assert np.abs(got["output"] - np.array(net(IMAGE))).max() < 1e-6


def test_what_is_not_supported_is_listed_whole_with_its_place(tmp_path):
    class Act(nn.Module):
        def __call__(self, x):
            return mx.erfinv(mx.tanh(x))

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.acts = nn.Linear(4, 4), [Act(), Act()]

        def __call__(self, x):
            for act in self.acts:
                x = act(self.first(x))
            return x.astype(mx.int32) ^ 5, mx.linalg.inv(x @ x.T)

    with pytest.raises(UnsupportedOpError) as error:
        export_module(as_module(Odd()), mx.zeros((2, 4)), tmp_path / "odd.mlpackage")
    text = str(error.value)
    assert "ErfInv (x2, in acts.0, acts.1: " in text
    assert "): no inverse error function; approximate it with logarithms and roots; " in text
    assert "BitwiseBinary (x1, in the module itself: " in text
    assert "Inverse (x1, in the module itself: " in text
    assert "\n" not in text
    assert "@lower" not in text
    assert not list(tmp_path.iterdir())


def test_what_a_lowering_refuses_is_listed_whole_as_well(tmp_path):
    class Counts(nn.Module):
        def __call__(self, x):
            return (x.astype(mx.uint32) - 7).astype(mx.float32)

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = [Counts(), Counts()]

        def __call__(self, x):
            x = self.parts[1](mx.tanh(self.parts[0](x)))
            return x, x.astype(mx.int64) * 2**33

    with pytest.raises(UnsupportedOpError) as error:
        export_module(as_module(Odd()), X, tmp_path / "odd.mlpackage", precision="float32")
    text = str(error.value)
    assert "Subtract in parts.0: of uint32: Core ML has no integers without a sign" in text
    assert "Subtract in parts.1: of uint32: " in text
    assert "Multiply in the module itself: an integer of 8589934592 does not fit" in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


def test_an_existing_package_is_kept_unless_forced(tmp_path):
    path = tmp_path / "net.mlpackage"
    net = as_module(nn.Linear(4, 2))
    export_module(net, mx.zeros((1, 4)), path)
    before = (path / "Manifest.json").read_bytes()
    with pytest.raises(OutputError, match="--force"):
        export_module(net, mx.zeros((1, 4)), path)
    assert (path / "Manifest.json").read_bytes() == before
    export_module(net, mx.zeros((1, 4)), path, force=True)
    assert (path / "Manifest.json").read_bytes() != before


class Two(nn.Module):
    def __call__(self, x, y):
        return x + y


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (Two(), X, "Two is not called with 1 arrays: missing a required argument: 'y'"),
        (Two(), [X, X, X], "Two is not called with 3 arrays: too many positional arguments"),
        (mx.tanh, X, "tanh is no mlx.nn.Module"),
    ],
)
def test_what_cannot_be_called_so_is_told_in_one_line(module, inputs, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        export_module(module, inputs, tmp_path / "x.mlpackage")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"inputs": None}, "an array or a number; given NoneType: give an array, a list"),
        ({"inputs": "x"}, "given str"),
        ({"inputs": [object()]}, "given object"),
        ({"inputs": np.array(["a"])}, "given ndarray"),
        ({"input_names": [1]}, r"names of inputs and outputs are words in a list; given \[1\]"),
        ({"output_names": None}, "given None"),
        ({"output_names": 3}, "given 3"),
        ({"front": True}, "a front is of a search: give a budget or a least agreement"),
    ],
)
def test_what_does_not_apply_is_told_in_one_line(options, said, tmp_path):
    given = {"inputs": mx.zeros((2, 4)), "path": tmp_path / "x.mlpackage", **options}
    with pytest.raises(ConfigError, match=said):
        export_module(nn.Linear(4, 4).eval(), **given)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": []}, r"a size is a number of pixels, or a list of them; given \[\]"),
        ({"size": 96.0}, "given 96.0"),
        ({"size": "96"}, "given '96'"),
        ({"size": [96, "x"]}, "given"),
        ({"size": True}, "given True"),
        ({"outputs": 5}, "outputs are names in a list; given 5"),
        ({"outputs": [None]}, "given"),
    ],
)
def test_a_size_or_an_output_of_another_kind_is_told_in_one_line(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        export(small_text("mobileclip_s0"), tmp_path / "x.mlpackage", **options)


def test_all_inputs_go_in_and_numpys_arrays_are_as_good(tmp_path):
    x = np.array(X)
    path = export_module(Two().eval(), [x, 2 * x], tmp_path / "x.mlpackage")
    got = load_package(path).predict({"input_0": x, "input_1": 2 * x})
    np.testing.assert_allclose(got["output"], 3 * x, atol=4e-3 * np.abs(x).max())


def test_a_module_of_ones_own_needs_inputs(tmp_path):
    with pytest.raises(ConfigError, match=r"export_module\(Two, inputs, path\)"):
        export(Two().eval(), tmp_path / "x.mlpackage")


@pytest.mark.parametrize("call", [export, export_module])
def test_an_option_that_there_is_not_is_refused(call, tmp_path):
    path = tmp_path / "x.mlpackage"
    with pytest.raises(ConfigError, match="no option colour of Core ML; there are account"):
        call(
            *((Two(), [X, X]) if call is export_module else (create_model("shvit_nano"),)),
            path,
            colour=1,
        )
    assert not path.exists()


def test_one_name_may_be_a_string(tmp_path):
    path = export(create_model("shvit_nano"), tmp_path / "n.mlpackage", outputs="embedding")
    assert list(load_package(path).outputs) == ["embedding"]
    net = nn.Linear(4, 2).eval()
    names = {"input_names": "left", "output_names": "right"}
    package = load_package(export_module(net, X, tmp_path / "x.mlpackage", **names))
    assert (*package.inputs, *package.outputs) == ("left", "right")


def test_options_of_images_are_none_of_a_text_encoder(tmp_path):
    for option in ({"size": 64}, {"input": "array"}):
        with pytest.raises(ConfigError, match=f"{next(iter(option))} is of images; mobileclip"):
            export(small_text("mobileclip_s0"), tmp_path / "t.mlpackage", **option)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda i: mx.array([1.0, 2, 3])[i - 5], "Subtract in the module itself: of uint32"),
        (lambda i: i.astype(mx.int64) * 2**33, "does not fit Core ML's 32 bits"),
    ],
)
def test_integers_that_core_ml_has_not_are_refused(fn, said, tmp_path):
    net = as_module(fn)
    with pytest.raises(UnsupportedOpError, match=said):
        export_module(net, mx.array([7], mx.uint32), tmp_path / "x.mlpackage")


@pytest.mark.parametrize(
    ("fn", "x", "said"),
    [
        (
            mx.real,
            mx.array([1 + 2j]),
            r"^input \(complex64\[1\]\): no complex numbers go in or out",
        ),
        (lambda x: (x, x * mx.array(2j)), X, r"^output_1 \(complex64\[2, 4\]\): no complex"),
        (lambda x: (x, mx.array([2j])), X, r"^output_1 \(complex64\[1\]\): no complex numbers"),
        (lambda x: {"a": x, "all": x.reshape(2, 1, 1, 2, 1, 2)}, X, r"^all \(float32\[2, 1, "),
        (lambda x: x.sum(), mx.zeros((1,) * 6), r"^input \(float32\[1, 1, 1, 1, 1, 1\]\): an"),
    ],
)
def test_what_cannot_go_in_or_out_is_told_by_its_name(fn, x, said, tmp_path):
    with pytest.raises(UnsupportedOpError, match=said):
        export_module(as_module(fn), x, tmp_path / "x.mlpackage")
    assert not any(tmp_path.iterdir())
