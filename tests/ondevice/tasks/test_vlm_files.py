"""Checkpoints of FastVLM in every layout, and what is none."""

from __future__ import annotations

import json
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import ondevice
from ondevice.errors import ConfigError, OnDeviceError, WeightsError
from ondevice.tasks.clock import Clock
from ondevice.tasks.vlm import Vision, load_vision
from ondevice.tasks.vlm.reduce import relative_error
from ondevice.weights.hub import mention_license

from ..weights.test_hub import put
from .vlm import tiny


@pytest.fixture(scope="module")
def arrays():
    return tiny.official()


@pytest.fixture(scope="module")
def wanted(arrays, tmp_path_factory):
    return seen(load(tiny.write(tmp_path_factory.mktemp("vlm"), arrays)))


def load(folder, **options):
    return ondevice.load_vlm(folder, vision=Vision(size=128), **options)


def seen(vlm):
    """Tokens of an image, and logits of a prompt with it."""
    tokens = vlm.encode_image(tiny.image())
    inputs = vlm.splice(vlm.tokenize("What is this?", 1), [tokens])
    return tokens, vlm.language(mx.array([]), input_embeddings=inputs[None])


def refusal(folder):
    with pytest.raises(OnDeviceError) as error:
        load(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


LAYOUTS = {
    "transformers": tiny.transformers,
    "mlx-vlm": tiny.mlx_vlm,
    "half": lambda arrays: {k: v.astype(mx.bfloat16) for k, v in arrays.items()},
    "quantized": tiny.quantized,
}
# Of the spread: bfloat16 has 8 bits, eight-bit matrices in groups of 32 about as many.
ERRORS = {"transformers": 1e-6, "mlx-vlm": 1e-6, "half": 0.05, "quantized": 0.05}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_model(layout, arrays, wanted, tmp_path):
    vlm = load(tiny.write(tmp_path, LAYOUTS[layout](arrays)))
    for found, expected in zip(seen(vlm), wanted, strict=True):
        assert relative_error(found, expected) < ERRORS[layout]


def test_a_checkpoint_in_several_files_is_read_whole(arrays, wanted, tmp_path):
    vlm = load(tiny.write(tmp_path, arrays, shards=3))
    assert mx.array_equal(seen(vlm)[1], wanted[1])
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    assert "it lacks model-00002-of-00003.safetensors" in refusal(tmp_path)


def test_a_head_in_the_file_is_used_whatever_the_config_says(arrays, wanted, tmp_path):
    untied = tiny.CONFIG | {"tie_word_embeddings": False}
    tied = {k: v for k, v in arrays.items() if not k.startswith("lm_head")}
    assert mx.array_equal(seen(load(tiny.write(tmp_path / "a", arrays, untied)))[1], wanted[1])
    vlm = load(tiny.write(tmp_path / "b", tied, untied))
    same = arrays | {"lm_head.weight": arrays["model.embed_tokens.weight"]}
    assert mx.allclose(seen(vlm)[1], seen(load(tiny.write(tmp_path / "c", same)))[1], atol=1e-5)
    assert not mx.allclose(seen(vlm)[1], wanted[1])


@pytest.mark.parametrize(
    "config",
    [
        tiny.CONFIG | {"vision_config": {}, "text_config": {}},  # FastVLM-1.5B-int8's
        tiny.CONFIG | {"vocab_size": 152_064},  # of another size than the file's
        {"model_type": "fast_vlm", "text_config": tiny.LLM | {"vocab_size": 1}},
        {
            "model_type": "fastvlm",
            "text_config": {k: v for k, v in tiny.LLM.items() if k != "rope_theta"}
            | {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        },
    ],
    ids=["empty vision_config", "another vocabulary", "text_config", "rope_parameters"],
)
def test_configs_of_all_kinds_are_understood(config, arrays, wanted, tmp_path):
    assert mx.array_equal(seen(load(tiny.write(tmp_path, arrays, config)))[1], wanted[1])


def test_rope_theta_is_taken_from_the_config(arrays, wanted, tmp_path):
    config = {**tiny.CONFIG, "rope_theta": 100.0}
    assert not mx.allclose(seen(load(tiny.write(tmp_path, arrays, config)))[1], wanted[1])


def test_a_quantized_language_model_stays_quantized(arrays, tmp_path):
    language = load(tiny.write(tmp_path, tiny.quantized(arrays))).language
    assert language.model.layers[0].mlp.up_proj.weight.dtype == mx.uint32


def test_the_language_model_computes_as_it_is_stored_or_on_a_cpu_in_float32(arrays, tmp_path):
    folder = tiny.write(tmp_path, LAYOUTS["half"](arrays))
    wanted = mx.float32 if mx.default_device() == mx.cpu else mx.bfloat16
    for _, array in tree_flatten(load(folder).language.parameters()):
        assert array.dtype == wanted


def test_the_encoder_computes_in_the_type_asked_for(arrays, wanted, tmp_path):
    vlm = load(tiny.write(tmp_path, arrays), dtype=mx.bfloat16)
    tokens = vlm.encode_image(tiny.image())
    assert tokens.dtype == mx.bfloat16
    assert 1e-6 < relative_error(tokens, wanted[0]) < 0.05


def test_the_licence_is_said_once(arrays, tmp_path, caplog):
    mention_license.cache_clear()
    folder = tiny.write(tmp_path, arrays)
    load(folder)
    assert load(folder).tower.encoder.info.license == "apple-amlr"
    (line,) = [m for m in caplog.messages if "licence" in m]
    assert str(folder) in line
    assert "apple-amlr" in line


# --- encoder and projector as MLX quantizes


def mixed(key):
    """Bits of each layer, of encoder and projector alone."""
    return ("vision_tower" in key or "projector" in key) and (4 if "qkv" in key else 8)


def tokens(folder, arrays):
    tower = load_vision(tiny.write(folder, arrays))
    return tower.embed(tiny.image(), Vision(size=128), Clock())[0]


@pytest.mark.parametrize("scales", [mx.float32, mx.bfloat16])
def test_a_quantized_encoder_is_what_its_numbers_say(scales, arrays, wanted, tmp_path):
    packed = {
        k: v.astype(scales) if k.endswith((".scales", ".biases")) else v
        for k, v in tiny.quantized(arrays, mixed).items()
    }
    stems = [k for k in packed if k.endswith(".scales")]
    assert sum("vision_tower" in k for k in stems) == 16
    assert sum("projector" in k for k in stems) == 2
    found = tokens(tmp_path / "packed", packed)
    assert mx.array_equal(found, tokens(tmp_path / "by hand", tiny.unpacked(packed)))
    assert 1e-4 < relative_error(found, wanted[0]) < 0.05


QKV = "vision_tower.vision_model.network.7.0.token_mixer.qkv"
UNFIT = {  # of a layer of 64 inputs: codes (192, 8), scales and biases (192, 2)
    "fewer scales": ("scales", lambda x: x[:, :1], r"scales \(192, 1\)"),
    "fewer biases": ("biases", lambda x: x[:4], r"biases \(4, 2\)"),
    "fewer codes": ("weight", lambda x: x[:, :7], r"weight \(192, 7\)"),
    "fewer rows": ("weight", lambda x: x[:8], r"weight \(8, 8\)"),
    "wrong type": ("weight", lambda x: x.astype(mx.int32), "of mlx.core.int32"),
    "one number": ("weight", lambda x: x[0, 0], r"weight \(\)"),
    "no numbers": ("scales", lambda x: x[:, :0], r"scales \(192, 0\)"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_codes_and_scales_that_do_not_fit_are_refused_in_a_line(case, arrays, tmp_path):
    part, change, said = UNFIT[case]
    packed, key = tiny.quantized(arrays, mixed), f"{QKV}.{part}"
    folder = tiny.write(tmp_path, changed(packed, key, change(packed[key])))
    said = rf"do not fit together: stages\.3\.\S+qkv has .*{said}.* for 64 inputs; convert"
    with pytest.raises(WeightsError, match=said) as error:
        load_vision(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("weight", r"qkv has scales \(192, 2\) of \S+, biases \(192, 2\) of \S+ for 64"),
        ("biases", r"qkv has weight \(192, 8\) of .*, scales \(192, 2\) of \S+ for 64"),
        ("scales", r"unexpected 1: stages\.3\.\S+qkv\.biases; .*has shape \(192, 8\)"),
    ],
)
def test_codes_scales_and_biases_go_together(part, said, arrays, tmp_path):
    packed = tiny.quantized(arrays, mixed)
    with pytest.raises(WeightsError, match=said):
        load_vision(tiny.write(tmp_path, without(packed, f"{QKV}.{part}")))


@pytest.mark.parametrize(
    ("bits", "group", "mode"), [(4, 16, "nvfp4"), (4, 32, "mxfp4"), (8, 32, "mxfp8")]
)
def test_scales_of_eight_bits_are_understood(bits, group, mode, arrays, wanted, tmp_path):
    packed = tiny.mlx_vlm(arrays)
    weight = packed[f"{QKV}.weight"]
    given = mx.quantize(weight, group_size=group, bits=bits, mode=mode)
    packed |= {f"{QKV}.{k}": v for k, v in zip(("weight", "scales"), given, strict=True)}
    assert 1e-4 < relative_error(tokens(tmp_path, packed), wanted[0]) < 0.05


# --- what is no FastVLM


def without(arrays, *names):
    return {k: v for k, v in arrays.items() if not any(n in k for n in names)}


def changed(arrays, key, array):
    assert key in arrays
    return arrays | {key: array}


PROJECTION = "model.mm_projector.0.weight"
BROKEN = {
    "of the app": (
        lambda a: without(a, "vision_tower"),
        "no vision encoder: in the folders of",
    ),
    "no language": (lambda a: without(a, "model.layers", "norm.", "embed_", "lm_"), "language"),
    "no projector": (lambda a: without(a, "mm_projector"), "no weights of the projector"),
    "one layer": (lambda a: without(a, "mm_projector.2"), "mlp2x_gelu: two layers"),
    "another tower": (lambda a: without(a, "network.9", "network.10"), "is no FastViTHD"),
    "foreign": (lambda a: a | {"model.image_newline": mx.zeros(4)}, "has 1 arrays no FastVLM"),
    "a layer less": (lambda a: without(a, "model.layers.1.mlp"), "does not fit: Missing 3"),
    "misshapen": (lambda a: changed(a, PROJECTION, mx.zeros((64, 32))), "has shape"),
    "not a number": (
        lambda a: changed(a, "model.mm_projector.0.bias", mx.array([np.nan] * 64)),
        "has NaN",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_do_not_fit_are_refused_in_a_line(case, arrays, tmp_path):
    spoil, said = BROKEN[case]
    assert said in refusal(tiny.write(tmp_path, spoil(arrays)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "llava"}', "holds a model of type 'llava', no FastVLM"),
        ("{", "config.json cannot be used"),
        ("[]", "it is no table"),
        ('{"model_type": "llava_qwen2"}', "does not fit: "),
        (json.dumps(tiny.CONFIG | {"num_attention_heads": 0}), "does not fit: "),
        (json.dumps(tiny.CONFIG | {"num_hidden_layers": "2"}), "does not fit: "),
    ],
)
def test_a_config_that_says_no_fastvlm_is_refused(text, said, arrays, tmp_path):
    folder = tiny.write(tmp_path, arrays)
    (folder / "config.json").write_text(text)
    assert said in refusal(folder)


def test_a_folder_without_its_files_is_told_all_it_lacks(tmp_path):
    assert refusal(tmp_path).endswith(
        "it lacks config.json, tokenizer.json or vocab.json and merges.txt, "
        "model.safetensors or model.safetensors.index.json"
    )


def test_a_tokenizer_of_two_files_is_read_as_well(arrays, wanted, tmp_path):
    folder = tiny.write(tmp_path, arrays)
    (folder / "tokenizer.json").unlink()
    whole = json.loads(tiny.tokenizer())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in whole["added_tokens"]}
    options = json.loads((folder / "tokenizer_config.json").read_text())
    options |= {"added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    vlm = load(folder)
    assert mx.array_equal(seen(vlm)[1], wanted[1])
    assert vlm.generate("What?", tiny.image(), max_tokens=5).timings.tokens == 5


def test_a_broken_tokenizer_is_refused(arrays, tmp_path):
    folder = tiny.write(tmp_path, arrays)
    (folder / "tokenizer.json").write_text("{")
    assert "has no usable tokenizer" in refusal(folder)


@pytest.mark.parametrize(
    "name", ["fastvlm", "shvit_s1", "a/b/c", "../no-such-folder", "/no/such/folder"]
)
def test_a_name_that_means_nothing_is_refused(name):
    with pytest.raises(ConfigError, match="is no FastVLM: give a folder of one, or a rep"):
        ondevice.load_vlm(name)


def test_a_cached_repository_is_used_if_nothing_is_missing(arrays, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    tiny.write(tmp_path / "files", arrays, shards=2)
    files = {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    put(tmp_path, files, repo="a/whole", ref="v1")
    assert load("a/whole", revision="v1").name == "a/whole"
    del files["model-00002-of-00002.safetensors"]
    put(tmp_path, files, repo="a/part")
    assert "a/part is not in the cache" in refusal("a/part")


def test_without_mlx_lm_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    with pytest.raises(ConfigError, match=r"pip install 'ondevice\[vlm\]'"):
        ondevice.load_vlm(tmp_path)


def test_the_encoder_needs_no_mlx_lm(arrays, tmp_path, monkeypatch):
    wanted = load(tiny.write(tmp_path / "a", arrays)).encode_image(tiny.image())
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    assert mx.array_equal(tokens(tmp_path / "a", arrays), wanted)
    assert relative_error(tokens(tmp_path / "b", tiny.quantized(arrays, mixed)), wanted) < 0.05


def test_the_encoder_of_the_largest_is_taken_out_of_its_many_files(
    arrays, wanted, tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    tiny.write(tmp_path / "files", arrays, shards=4)
    files = {path.name: path.read_bytes() for path in (tmp_path / "files").iterdir()}
    put(tmp_path, files, repo="apple/FastVLM-7B")
    tower = load(tmp_path / "files").tower
    sizes = {key: getattr(tower.encoder.config, key) for key in ("embed_dim", "depth")}
    encoder = ondevice.create_model("fastvithd.fastvlm_7b", pretrained=True, **sizes)
    (pixels,) = tower.pixels(tiny.image(), Vision(size=128))
    tokens = encoder(mx.array(pixels[None]).astype(mx.float32) / 255)
    assert relative_error(tower.projector(tokens)[0], wanted[0]) < 1e-6
    assert encoder.info.license == "apple-amlr"


def test_a_truncated_file_is_refused(arrays, tmp_path):
    path = tiny.write(tmp_path, arrays) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="the file is truncated"):
        load(tmp_path)
