"""SigLIP's encoders beside NumPy's, its tokens, and probabilities of each label by itself."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice import create_model, fuse, list_models, load_clip, model_spec
from ondevice.errors import ConfigError, HubError
from ondevice.models.clip_text import example_tokens
from ondevice.tasks.clip import CLIP, SigLIPTokenizer
from ondevice.tasks.clip.tokenizer import canonical, read_tokenizer

from ...parity import siglip_numpy
from ...parity.weightgen import image_batch
from ...support import clips, siglips

pytest.importorskip("tokenizers")

ONE, TWO = "siglip_base_patch16_224", "siglip2_base_patch32_256"
NAMES = list_models("siglip*_base_*")


def error(found: mx.array, wanted: np.ndarray) -> float:
    return float(np.abs(np.array(found) - wanted).max() / wanted.std())


@pytest.mark.parametrize("name", NAMES)
def test_both_encoders_of_one_file_compute_what_numpy_does(name):
    size = siglips.size(name)
    image, text = siglips.towers(name)
    w = siglip_numpy.weights(size)
    ids = example_tokens(text.config, texts=4)
    x = image_batch(0, 2, size.pixels)
    for form in (lambda model: model, fuse):
        found = form(text)(ids), form(image)(mx.array(x.transpose(0, 2, 3, 1)))
        assert error(found[0], siglip_numpy.text(w, np.array(ids), size)) < 1e-5
        assert error(found[1], siglip_numpy.image(w, x, size)) < 1e-5


def test_the_activation_of_either_encoder_is_seen():
    """Which of the two GELUs it is moves the vectors a hundred times the tolerance."""
    size = siglips.size(TWO)
    assert size.tanh == ("text", "image")
    assert siglips.size(ONE).tanh == ()
    assert model_spec("vit_base_patch32_siglip_gap_256").config.act == "gelu_tanh"
    w = siglip_numpy.weights(size)
    ids = np.array(example_tokens(siglips.towers(TWO)[1].config, texts=2))
    other = siglip_numpy.text(w, ids, siglip_numpy.Size(patch=32))
    assert error(mx.array(other), siglip_numpy.text(w, ids, size)) > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_many_as_published(name):
    c = model_spec(f"{name}_text").config
    block = 12 * c.width**2 + 13 * c.width
    count = (c.vocab + c.context + 2) * c.width + c.depth * block
    count += c.width * c.embed_dim + c.embed_dim + 2
    assert model_spec(f"{name}_text").params == pytest.approx(count, rel=1e-3)


def test_example_tokens_are_texts():
    rows = example_tokens(model_spec(f"{ONE}_text").config, texts=4).tolist()
    assert [row.index(1) for row in rows] == [16, 32, 47, 63]
    assert all(set(row[row.index(1) :]) == {1} for row in rows)
    assert all(2 < i < 32_000 for row in rows for i in row[: row.index(1)])
    other = example_tokens(model_spec(f"{TWO}_text").config, texts=2).tolist()
    assert set(other[0][other[0].index(1) + 1 :]) == {0}


# Tokens


@pytest.fixture(params=["t5", "gemma"])
def tokenizer(request, tmp_path):
    path = siglips.write_tokenizer(tmp_path, request.param)
    return SigLIPTokenizer(path, tokens=request.param, vocab=90)


def words(tokenizer, text):
    row = tokenizer([text]).tolist()[0]
    return [tokenizer._pieces.id_to_token(i) for i in row[: row.index(tokenizer.end)]]


def test_a_text_is_its_tokens_an_end_and_filling(tokenizer):
    rows = tokenizer(["cat", ""])
    assert (rows.shape, rows.dtype, tokenizer.end) == ((2, 64), mx.int32, 1)
    filling = tokenizer._pieces.token_to_id("<pad>" if tokenizer.filling == 0 else "</s>")
    assert rows[1].tolist() == [1] + [filling] * 63
    assert rows[0].tolist()[1:] == [1] + [filling] * 62
    assert words(tokenizer, "cat") in (["▁cat"], ["cat"])


def test_a_long_text_is_cut_and_keeps_its_end(tokenizer):
    row = tokenizer(["cat dog " * 5000]).tolist()[0]
    assert (len(row), row.index(1)) == (64, 63)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A  Photo\tof\n“CAT's”! ", "a photo of cats"),
        ("a_photo of &lt;cat&gt;", "a photo of cat"),
        ("</s> <eos> <extra_id_0>", "s eos extra id 0"),
        ("Straße ÉTÉ", "straße été"),
    ],
)
def test_texts_lose_punctuation_and_capitals(tokenizer, text, same):
    assert canonical(text) == same
    assert words(tokenizer, text) == words(tokenizer, same)


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    config = model_spec(f"{ONE}_text").config
    for kind, said in (("t5", "has 87 tokens, expected about 32000"), ("gemma", "</s> among")):
        with pytest.raises(ConfigError, match=said):
            read_tokenizer(siglips.write_tokenizer(tmp_path, kind), config)
    with pytest.raises(ConfigError, match="is no tokenizer of this SigLIP"):
        SigLIPTokenizer(clips.write_tokenizer(tmp_path), vocab=clips.VOCAB)
    few = SigLIPTokenizer(siglips.write_tokenizer(tmp_path, "t5"), vocab=60)
    few.vocab = 8
    with pytest.raises(ConfigError, match="makes token 8 of 'a dog', the model has 8"):
        few(["a dog"])


# Both together


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    room = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 80, 70, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(room / f"{i}.png")
    return [str(room / f"{i}.png") for i in range(2)]


@pytest.fixture
def imported(tmp_path, monkeypatch, ondevice_):
    """What `ondevice import` makes of timm's file and the tokenizer beside it."""

    def of(name):
        siglips.shrink(monkeypatch, name)
        out = tmp_path / "out"
        path = siglips.write(tmp_path, name)
        assert ondevice_("import", path, "--model", name, "--out", out)[0] == 0
        return out

    return of


@pytest.mark.parametrize("name", [ONE, TWO])
def test_a_label_has_a_probability_of_its_own(ondevice_, imported, photos, name):
    folder = imported(name)
    w, size = siglip_numpy.weights(siglips.size(name)), siglips.size(name)
    clip = load_clip(folder)
    x = np.array(ondevice.preprocess(photos, clip.info.preprocess)).transpose(0, 3, 1, 2)
    texts = np.array(clip.tokenizer(["a photo of a cat.", "a photo of a dog."]))
    rows = siglip_numpy.image(w, x, size), siglip_numpy.text(w, texts, size)
    wanted = siglip_numpy.probabilities(w, *rows)
    for labels in ("cat,dog", "dog"):
        status, out, _ = ondevice_(
            "zeroshot", *photos, "--labels", labels, "--model", folder, "--json"
        )
        found = json.loads(out)
        assert (status, found["scores"]) == (0, "sigmoid")
        for result, row in zip(found["results"], wanted, strict=True):
            scores = {p["label"]: p["score"] for p in result["predictions"]}
            of = dict(zip(("cat", "dog"), row, strict=True))
            assert scores == pytest.approx({k: of[k] for k in labels.split(",")}, rel=1e-3)


def test_a_scale_above_a_hundred_is_as_trained(imported):
    clip = load_clip(imported(ONE))
    assert clip.scale == pytest.approx(np.exp(np.float32(4.7)))
    cosines = mx.array([[0.1, -0.1]])
    wanted = 1 / (1 + np.exp(12.5 - clip.scale * np.array(cosines)))
    np.testing.assert_allclose(clip.probabilities(cosines), wanted, rtol=1e-5)


def test_a_mobileclip_still_wants_two_labels(tmp_path, photos):
    clip = clips.clip(tmp_path)
    assert not clip.sigmoid
    with pytest.raises(ConfigError, match="one label is no choice"):
        clip.zero_shot(photos, ["cat"])


def test_without_its_tokenizer_it_takes_no_other(imported, monkeypatch):
    folder = imported(ONE)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"out comes without tokenizer.json: give it with"):
        load_clip(folder)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError):
        load_clip(ONE)


def test_a_siglip_comes_out_of_the_cache_by_name(tmp_path, monkeypatch):
    """Both encoders and the tokenizer from one repository."""
    from huggingface_hub import constants

    from ..weights.test_hub import put

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    siglips.shrink(monkeypatch, TWO)
    path = siglips.write(tmp_path, TWO)
    files = {p.name: p.read_bytes() for p in (path, tmp_path / "tokenizer.json")}
    put(tmp_path / "hub", files, repo="timm/ViT-B-32-SigLIP2-256")
    clip = load_clip(TWO)
    ids = clip.tokenizer(["a cat"])
    w, size = siglip_numpy.weights(siglips.size(TWO)), siglips.size(TWO)
    wanted = siglip_numpy.text(w, np.array(ids), size)
    assert error(clip.encode_text("A cat!"), wanted) < 1e-5
    assert clip.info.name == f"{TWO}.webli"


def test_vectors_of_an_image_and_a_text_are_as_long(imported):
    folder = imported(ONE)
    image = ondevice.load(folder)
    assert (image.dim, create_model("mobileclip_s0", **clips.IMAGE).dim) == (48, 16)
    assert isinstance(load_clip(folder), CLIP)
