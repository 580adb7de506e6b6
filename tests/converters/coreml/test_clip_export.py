"""Both encoders of a CLIP as Core ML packages."""

from __future__ import annotations

import json
import sys
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from converters import export, load_package, verify
from converters.compress.apply import LEAST
from converters.compress.recipe import PRESETS, CompressionRecipe, Rule
from ondevice import create_model, load, load_clip
from ondevice.errors import ConfigError
from ondevice.models.clip_text import example_tokens
from ondevice.signature.samples import CAPTIONS
from ondevice.tasks.clip.load import load_text
from ondevice.tasks.clip.tokenizer import Tokenizer

from ...support import clips

pytest.importorskip("tokenizers")


def small_text(name: str):
    model = create_model(f"{name}_text", **clips.TEXT, vocab=clips.VOCAB)
    return clips.scrambled(model, seed=3)


@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip_b"])
@pytest.mark.parametrize(("precision", "gate"), [("float32", "relative"), ("float16", "psnr")])
def test_a_text_encoder_computes_the_same_in_its_package(tmp_path, name, precision, gate):
    model = small_text(name)
    package = load_package(export(model, tmp_path / "t.mlpackage", precision=precision))
    (given,) = package.inputs.values()
    assert (given.name, given.shape, given.dtype) == ("text", (1, 77), "int32")
    assert package.outputs["embedding"].shape == (1, 16)
    texts = [np.array(row)[None] for row in example_tokens(model.config, texts=4)]
    (step,) = verify(model, package, texts).steps
    (found,) = step.comparisons
    assert found.relative_error < 1e-5 if gate == "relative" else found.psnr_db > 55


SPARSE = CompressionRecipe((Rule("*", "prune", sparsity=0.7),), name="prune 70 %")


@pytest.mark.parametrize("recipe", [*PRESETS, SPARSE], ids=lambda r: getattr(r, "name", r))
def test_a_text_encoder_is_compressed_whole(tmp_path, recipe):
    """Calibrated on texts; what hides later words from earlier ones stays as it is."""
    mx.random.seed(0)
    model = small_text("mobileclip_b")
    texts = [np.array(row)[None] for row in example_tokens(model.config, texts=16)]
    accounts = []
    options = {"recipe": recipe, "calibration": texts, "account": accounts.append}
    path = export(model, tmp_path / "t.mlpackage", target="iOS18", **options)
    assert all(row.path in accounts[0].forms for row in accounts[0].rows if row.size >= LEAST)
    (mask,) = (row for row in accounts[0].rows if row.shape == (1, 1, 77, 77))
    assert (mask.bits < 1.01, mask.snr_db) == (True, float("inf"))
    package = load_package(path)
    wanted = np.array(model(mx.array(np.concatenate(texts))))
    found = np.concatenate([package.predict({"text": x})["embedding"] for x in texts])
    pruned = recipe == SPARSE or recipe.startswith("prune")
    assert (wanted * found).sum(axis=1).mean() > (0.9 if pruned else 0.98)


def test_operations_of_a_text_encoder_are_few(tmp_path):
    """No transposed map, no gather but that of the words, the norms and GELUs whole."""
    path = export(small_text("mobileclip_s0"), tmp_path / "t.mlpackage")
    found = Counter(load_package(path).operations)
    assert (found["gather"], found["layer_norm"], found["gelu"]) == (1, 5, 4)
    assert found["gather_along_axis"] == found["batch_norm"] == 0
    assert found["transpose"] <= 1


def test_the_first_end_counts_where_padding_is_ends(tmp_path):
    model = small_text("mobileclip_b")  # causal: what follows the end has no effect
    package = load_package(export(model, tmp_path / "t.mlpackage", precision="float32"))
    zeros = np.array(example_tokens(model.config, texts=4)[:1])
    ends = np.where(np.arange(77) > zeros.argmax(), clips.VOCAB - 1, zeros).astype(np.int32)
    rows = [package.predict({"text": ids})["embedding"] for ids in (zeros, ends)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-7)


def test_packages_of_both_encoders_give_the_cosines_of_the_model(tmp_path):
    clip = clips.clip(tmp_path)
    image = load_package(
        export(clip.image, tmp_path / "i.mlpackage", precision="float32", outputs=["embedding"])
    )
    text = load_package(export(clip.text, tmp_path / "t.mlpackage", precision="float32"))
    levels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    words = ["a photo of a cat.", "a photo of a dog."]
    rows = [
        text.predict({"text": np.array(t)})["embedding"] for t in clip.tokenizer(words)[:, None]
    ]
    found = image.predict({"image": levels})["embedding"] @ np.concatenate(rows).T
    wanted = np.array(clip.encode_image(levels) @ clip.encode_text(words).T)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_commands_export_and_verify_either_encoder(ondevice_, tmp_path):
    folder = clips.save(tmp_path)
    for part, output in (("image", "embedding"), ("text", "embedding")):
        path = tmp_path / f"{part}.mlpackage"
        model = {"image": folder, "text": folder / "text"}[part]
        status, out, _ = ondevice_("export", model, "--out", path, "--json")
        report = json.loads(out)
        assert (status, report["inputs"], report["outputs"]) == (
            0,
            part,
            output,
        )
        assert report["license"] == "apple-amlr"
        status, out, _ = ondevice_("verify", path, "--model", model, "--json", "--no-baselines")
        assert (status, json.loads(out)["passed"]) == (0, True)


@pytest.mark.parametrize("named", [True, False])
def test_a_text_package_takes_no_images(ondevice_, tmp_path, named):
    folder = clips.save(tmp_path)
    path = export(load_text(folder), tmp_path / "t.mlpackage")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    model = ("--model", folder / "text") if named else ()
    status, out, err = ondevice_("verify", path, "--images", tmp_path / "a.png", *model)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "takes no images (text: array int32 [1, 77]): leave out --images" in err
    with pytest.raises(ConfigError, match=r"an array, text: int32 \[1, 77\], is expected"):
        verify(load_text(folder), path, [tmp_path / "a.png"])


def test_a_text_encoder_is_verified_on_captions_of_all_lengths(tmp_path):
    folder = clips.save(tmp_path)
    tokenizer = Tokenizer(folder / "tokenizer.json", vocab=clips.VOCAB)
    text = load(folder / "text")
    rows = np.concatenate(text.signature.samples(4))
    assert np.array_equal(rows, tokenizer(CAPTIONS[::-1]))
    ends = rows.argmax(axis=1)
    assert (ends[0], ends[-1] < 77 / 2) == (76, True)
    any_words = np.concatenate(load_text(folder).signature.samples(4))
    assert np.array_equal(any_words, example_tokens(text.config, texts=4))


def test_the_ladder_of_a_text_encoder_is_measured_on_texts(tmp_path, monkeypatch):
    """Zeros alone would not show how large its values get."""
    seen = []
    home = sys.modules["converters.export.build"]
    real = home.make_safe
    monkeypatch.setattr(
        home, "make_safe", lambda g, it, *more: seen.append(it.inputs[0]) or real(g, it, *more)
    )
    model = small_text("mobileclip_s0")
    path = export(model, tmp_path / "t.mlpackage")
    report = verify(model, path, list(example_tokens(model.config, 2)[:, None]), baselines=True)
    assert report.passed
    assert len(seen) == 2
    assert all(np.array_equal(tokens, example_tokens(model.config)) for tokens in seen)


def test_the_folder_of_a_clip_is_its_image_encoder(ondevice_, tmp_path):
    folder = clips.save(tmp_path)
    path = tmp_path / "m.mlpackage"
    assert ondevice_("export", folder, "--out", path)[0] == 0
    package = load_package(path)
    assert (list(package.inputs), list(package.outputs)) == (["image"], ["embedding"])
    assert package.metadata["ondevice.model"] == "mobileclip_s0"
    assert load_clip(folder).info.preprocess == package.preprocess


def test_images_are_not_for_a_text_encoder(ondevice_, tmp_path):
    folder = clips.save(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "m.mlpackage"
    for options, said in {
        (
            "--calibrate",
            tmp_path,
        ): "--calibrate has images; mobileclip_s0_text takes text: int32",
        ("--size", 64): "size is of images; mobileclip_s0_text takes text: int32",
        ("--input", "array"): "input is of images; mobileclip_s0_text takes text: int32",
    }.items():
        status, printed, err = ondevice_("export", folder / "text", "--out", out, *options)
        assert (status, printed, err.count("\n")) == (2, "", 1)
        assert said in err


def test_a_package_and_a_model_of_other_inputs_are_one_line(ondevice_, tmp_path):
    folder = clips.save(tmp_path)
    path = export(load_text(folder), tmp_path / "t.mlpackage")
    status, _, err = ondevice_("verify", path, "--model", folder)
    assert (status, err.count("\n")) == (2, 1)
    assert "takes text: array int32 [1, 77]; mobileclip_s0 takes image" in err
