"""Zero-shot classes, from a folder, an imported file and the hub's cache."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice import create_model, fuse, load_clip, model_spec, registry
from ondevice.errors import ConfigError, HubError, WeightsError
from ondevice.models.clip_text import example_tokens
from ondevice.tasks.clip import CLIP
from ondevice.tasks.clip.model import check_labels
from ondevice.tasks.embeddings.encode import encode

from ...support import clips, torchfiles

pytest.importorskip("tokenizers")

LABELS = ["cat", "dog", "the white picture"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips.save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    room = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 80, 70, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(room / f"{i}.png")
    return [str(room / f"{i}.png") for i in range(3)]


def norms(x: mx.array) -> list[float]:
    return mx.linalg.norm(x, axis=-1).tolist()


def test_images_and_texts_are_unit_vectors_of_one_space(clip, photos):
    images, texts = clip.encode_image(photos), clip.encode_text(["a cat", "a dog"])
    assert (images.shape, texts.shape) == ((3, 16), (2, 16))
    assert norms(images) + norms(texts) == pytest.approx([1] * 5, abs=1e-6)
    assert clip.encode_text("a cat").shape == (1, 16)


def test_a_prediction_is_the_softmax_of_scaled_cosines(clip, photos):
    (found, *_) = clip.zero_shot(photos, LABELS, "a photo of a {}.", top_k=2)
    texts = clip.encode_text([f"a photo of a {label}." for label in LABELS])
    cosines = np.array(clip.encode_image(photos[0]) @ texts.T)[0]
    scores = np.exp(math.exp(2.0) * cosines)
    scores /= scores.sum()
    best = np.argsort(-scores)[:2]
    assert [p.label for p in found] == [LABELS[i] for i in best]
    assert [p.score for p in found] == pytest.approx(scores[best].tolist(), rel=1e-5)


def test_a_scale_is_at_most_a_hundred(tmp_path):
    clip = clips.clip(tmp_path)
    clip.text.logit_scale = mx.array(9.0)
    assert clip.scale == 100


def test_the_vectors_of_several_templates_are_averaged(clip):
    templates = ["a photo of a {}.", "the {} {}"]
    rows = [clip.encode_text([t.replace("{}", x) for x in LABELS]) for t in templates]
    mean = (rows[0] + rows[1]) / 2
    wanted = mean / mx.linalg.norm(mean, axis=-1, keepdims=True)
    assert mx.allclose(clip.classifier(LABELS, templates), wanted, atol=1e-6)


def test_labels_are_encoded_once(tmp_path, monkeypatch):
    clip = clips.clip(tmp_path)
    first = clip.classifier(LABELS)
    monkeypatch.setattr(clip, "encode_text", None)  # cannot be called
    assert clip.classifier([f" {label} " for label in LABELS]) is first
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        clip.classifier(LABELS[:2])


def test_vectors_of_labels_are_kept_on_the_disk(tmp_path, monkeypatch):
    first = clips.clip(tmp_path, cache=tmp_path / "kept").classifier(LABELS)
    again = clips.clip(tmp_path, cache=tmp_path / "kept")
    monkeypatch.setattr(again, "encode_text", None)
    assert mx.array_equal(again.classifier(LABELS), first)


def test_vectors_of_other_weights_and_damaged_ones_are_not_taken(tmp_path):
    clip = clips.clip(tmp_path, cache=tmp_path / "kept")
    first = clip.classifier(LABELS)
    text = clips.scrambled(clips.towers()[1], seed=9)
    other = CLIP(clip.image, text, clip.tokenizer, cache=clip.cache)
    assert not mx.allclose(other.classifier(LABELS), first, atol=1e-3)
    (kept,) = (p for p in (tmp_path / "kept").iterdir() if clip._key(LABELS, [*T]) in p.name)
    kept.write_bytes(b"damaged")
    assert mx.array_equal(clips.clip(tmp_path, cache=kept.parent).classifier(LABELS), first)


T = ("a photo of a {}.",)


def test_a_broken_image_is_left_out_and_named(clip, photos, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"none")
    problems = {}
    found = clip.zero_shot([photos[0], bad], LABELS, on_error=problems.__setitem__)
    assert (len(found), list(problems)) == (1, [1])
    assert clip.zero_shot([bad], LABELS, on_error=lambda i, e: None) == []


@pytest.mark.parametrize(
    ("labels", "templates", "said"),
    [
        ([], T, "no labels were given"),
        (["cat", "  "], T, "label 2 is empty"),
        (["cat", "dog", " cat"], T, "given twice: cat"),
        ("cat", T, "not one text"),
        (["cat"], [], "no templates"),
        (["cat"], ["a photo"], "has no {} for the label"),
    ],
)
def test_labels_that_cannot_be_are_one_line(clip, photos, labels, templates, said):
    with pytest.raises(ConfigError, match=said) as caught:
        clip.zero_shot(photos, labels, templates)
    assert "\n" not in str(caught.value)


def test_twenty_thousand_labels_are_checked_at_once():
    assert len(check_labels([f"label {i}" for i in range(20_000)])) == 20_000


# The text encoder


@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip_s1", "mobileclip_b"])
def test_fuse_keeps_the_vectors(name):
    text = clips.scrambled(
        create_model(f"{name}_text", **clips.TEXT, vocab=clips.VOCAB), seed=3
    )
    tokens = example_tokens(text.config, texts=3)
    assert mx.allclose(fuse(text)(tokens), text(tokens), atol=1e-6)
    names = [key for key, _ in mx_names(fuse(text))]
    assert not any("running_mean" in key or "layer_scale" in key for key in names)


def mx_names(model):
    from mlx.utils import tree_flatten

    return tree_flatten(model.parameters())


@pytest.mark.parametrize(("name", "sees"), [("mobileclip_s1", True), ("mobileclip_b", False)])
def test_only_a_causal_encoder_is_blind_to_what_follows_the_end(name, sees):
    text = clips.scrambled(create_model(f"{name}_text", **clips.TEXT, vocab=99), seed=3)
    tokens = mx.array([[97, 5, 6, 98] + [0] * 73, [97, 5, 6, 98] + [7] * 73])
    first, second = text(tokens)
    assert bool(mx.abs(first - second).max() > 1e-3) == sees


def test_half_precision_stays_near():
    _, text = clips.towers()
    tokens = example_tokens(text.config, texts=2)
    wanted = text(tokens)
    text.set_dtype(mx.float16)
    found = text(tokens)
    assert found.dtype == mx.float16
    assert mx.abs(found.astype(mx.float32) - wanted).max() < 5e-3  # 11 bits over some 20 layers


def test_example_tokens_are_texts():
    rows = example_tokens(model_spec("mobileclip_s0_text").config, texts=4).tolist()
    assert all(row[0] == 49406 and row.count(49407) == 1 for row in rows)
    assert [row.index(49407) for row in rows] == [19, 38, 57, 76]
    assert all(set(row[row.index(49407) + 1 :]) <= {0} for row in rows)


# Files


def write_file(folder, form, name):
    image, text = clips.towers(name)
    path = folder / "open_clip_model.safetensors"
    mx.save_safetensors(str(path), clips.published(image, text, form), {"format": "pt"})
    return path, image, text


@pytest.fixture
def small(monkeypatch):
    """The specs of mobileclip_s0 and mobileclip_s1, but small."""
    for name in ("mobileclip_s0", "mobileclip_s1"):
        image = model_spec(name)
        text = model_spec(image.text)
        preprocess = replace(image.preprocess, size=64)
        file = replace(image.checkpoints[0], preprocess=preprocess)
        shrunk = replace(
            image, config=replace(image.config, **clips.IMAGE), checkpoints=(file,)
        )
        config = replace(text.config, **clips.TEXT, vocab=clips.VOCAB)
        monkeypatch.setitem(registry._SPECS, name, shrunk)
        monkeypatch.setitem(
            registry._SPECS, image.text, replace(text, config=config, checkpoints=(file,))
        )


@pytest.mark.parametrize(
    ("form", "name"),
    [("open_clip", "mobileclip_s1"), ("apple", "mobileclip_s1"), ("apple", "mobileclip_s0")],
)
def test_an_imported_file_gives_the_same_vectors(
    ondevice_, tmp_path, small, photos, form, name
):
    path, image, text = write_file(tmp_path, form, name)
    clips.write_tokenizer(tmp_path)
    assert ondevice_("import", path, "--model", name, "--out", tmp_path / "out")[0] == 0
    clip = load_clip(tmp_path / "out")
    x = ondevice.preprocess(photos, clip.info.preprocess)
    assert mx.allclose(clip.encode_image(photos), image(x), atol=1e-6)
    tokens = clip.tokenizer(LABELS)
    assert mx.allclose(clip.encode_text(LABELS), text(tokens), atol=1e-6)
    assert clip.scale == pytest.approx(math.exp(2))
    assert "open_clip_model.safetensors, SHA-256" in clip.info.provenance


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache, repo, files):
    from ..weights.test_hub import put as lay_out

    lay_out(cache, {path.name: path.read_bytes() for path in files}, repo=repo)


@pytest.mark.parametrize(
    "repo", ["apple/MobileCLIP-S1-OpenCLIP", "openai/clip-vit-base-patch32"]
)
def test_a_clip_comes_out_of_the_cache_by_name(ondevice_, tmp_path, small, cache, photos, repo):
    path, *_ = write_file(tmp_path, "open_clip", "mobileclip_s1")
    words = clips.write_tokenizer(tmp_path)
    found = {"apple/MobileCLIP-S1-OpenCLIP": [path]}
    found.setdefault(repo, []).append(words)
    for name, files in found.items():
        put(cache, name, files)
    status, out, _ = ondevice_(
        "zeroshot", photos[0], "--labels", "cat,dog", "--model", "mobileclip_s1", "--json"
    )
    assert status == 0
    answer = json.loads(out)
    assert answer["model"] == "mobileclip_s1.datacompdr"
    predictions = answer["results"][0]["predictions"]
    assert {p["label"] for p in predictions} == {"cat", "dog"}
    assert sum(p["score"] for p in predictions) == pytest.approx(1, abs=1e-6)


def test_without_a_tokenizer_anywhere_it_says_where_it_looked(tmp_path, small, cache, folder):
    path, *_ = write_file(tmp_path, "open_clip", "mobileclip_s1")
    put(cache, "apple/MobileCLIP-S1-OpenCLIP", [path])
    said = (
        r"^mobileclip_s1 comes without tokenizer.json, and openai/clip-vit-base-patch32 is not"
    )
    with pytest.raises(HubError, match=said) as caught:
        load_clip("mobileclip_s1")
    assert "\n" not in str(caught.value)


def test_a_file_of_apples_is_read_out_of_the_cache_without_torch(tmp_path, small, cache):
    image, text = clips.towers("mobileclip_s0")
    arrays = clips.published(image, text, "apple")
    path = tmp_path / "mobileclip_s0.pt"
    path.write_bytes(torchfiles.weights({k: np.array(v, order="C") for k, v in arrays.items()}))
    put(cache, "apple/MobileCLIP-S0", [path, clips.write_tokenizer(tmp_path)])
    clip = load_clip("mobileclip_s0")
    tokens = clip.tokenizer(LABELS)
    assert mx.allclose(clip.encode_text(LABELS), text(tokens), atol=1e-6)


@pytest.mark.parametrize("name", ["mobileclip_s2", "mobileclip_b"])
def test_a_checkpoint_of_another_architecture_is_one_line(tmp_path, small, name):
    path, *_ = write_file(tmp_path, "apple", "mobileclip_s0")
    from converters import import_weights

    with pytest.raises(WeightsError, match=f"{name} cannot take .*: missing \\d+: ") as caught:
        import_weights(path, name, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_texts_is_refused_by_name():
    with pytest.raises(
        ConfigError, match=r"shvit_s1 has no text encoder; there are mobileclip2"
    ):
        load_clip("shvit_s1")


def test_a_folder_without_its_text_encoder_is_one_line(tmp_path):
    image, _ = clips.towers()
    ondevice.save_model(image, tmp_path / "m")
    with pytest.raises(ConfigError, match="has no text encoder: there is no folder text in it"):
        load_clip(tmp_path / "m")


def test_towers_of_two_clips_are_refused(tmp_path):
    folder = clips.save(tmp_path)
    _, text = clips.towers("mobileclip_s1")
    ondevice.save_model(text, folder / "text", force=True)
    with pytest.raises(
        ConfigError, match="holds mobileclip_s1_text, expected mobileclip_s0_text"
    ):
        load_clip(folder)


# The commands


def test_zeroshot_prints_a_table(ondevice_, folder, photos, tmp_path):
    (tmp_path / "labels.txt").write_bytes("\ufeffcat\r\n\r\n  dog \nKatze ü\n".encode())
    args = ("--labels-file", tmp_path / "labels.txt", "--template", "{}", "--top-k", 2)
    status, out, err = ondevice_("zeroshot", *photos[:2], "--model", folder, *args)
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["image", "score", "label"]
    assert len(rows) == 4
    assert rows[0].startswith(photos[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no labels"),
        (b" \n\n", "has no labels"),
        (b"cat\n\xff\xfe\n", "is no UTF-8 text: byte 4"),
        (None, "cannot be read: No such file"),
        (b"cat\ndog\ncat\n", "given twice: cat"),
    ],
)
def test_a_file_of_labels_that_cannot_be_is_one_line(
    ondevice_, folder, photos, tmp_path, content, said
):
    if content is not None:
        (tmp_path / "l.txt").write_bytes(content)
    args = ("--labels-file", tmp_path / "l.txt", "--model", folder)
    assert_one_line(ondevice_("zeroshot", photos[0], *args), said)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "Give the labels with --labels or with --labels-file"),
        (("--labels", "a,b", "--labels-file", "x"), "Give the labels"),
        (("--labels", "cat,,dog"), "label 2 is empty"),
        (("--labels", "cat"), "one label is no choice: every image would be 'cat' to 100 %"),
        (("--labels", "cat", "--template", "photo"), "has no {} for the label"),
        (("--labels", "cat", "--model", "shvit_s1"), "shvit_s1 has no text encoder"),
        (("--labels", "cat", "--tokenizer", "no.json"), "no.json is no readable tokenizer"),
    ],
)
def test_a_mistake_is_one_line(ondevice_, folder, photos, args, said):
    model = () if "--model" in args else ("--model", folder)
    assert_one_line(ondevice_("zeroshot", photos[0], *args, *model), said)


def assert_one_line(result, said):
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_clip_has_no_classes_of_its_own(ondevice_, folder, photos):
    result = ondevice_("classify", photos[0], "--model", folder)
    assert_one_line(result, "has no classes but those you name: ondevice zeroshot")


def test_a_text_finds_its_images_in_an_index(ondevice_, folder, clip, photos, tmp_path):
    encode(clip.image, photos, tmp_path / "i.safetensors")
    args = ("--index", tmp_path / "i.safetensors", "--model", folder, "--json")
    status, out, err = ondevice_("search", "--text", "a cat", *args)
    assert (status, err) == (0, "")
    cosines = np.array(clip.encode_image(photos) @ clip.encode_text("a cat").T)[:, 0]
    order = np.argsort(-cosines)
    found = json.loads(out)["results"]
    assert [match["path"] for match in found] == [photos[i] for i in order]
    assert [m["score"] for m in found] == pytest.approx(cosines[order].tolist(), abs=1e-6)
    assert_one_line(ondevice_("search", *args[:2]), "Give an image or --text")
