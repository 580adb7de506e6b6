"""What the pages of ``ondevice studio`` compute, without a browser."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ondevice import create_model, save_model
from ondevice.cli import run
from ondevice.cli.studio.attention import attention_map, read_positions
from ondevice.cli.studio.find import find
from ondevice.cli.studio.inside import inside
from ondevice.cli.studio.look import look
from ondevice.cli.studio.similar import similar
from ondevice.cli.studio.smaller import Cost, _curve, costs
from ondevice.cli.studio.words import fitting
from ondevice.cli.studio.workshop import PACKAGES, PLAIN, SAMPLES, SHIPPED, Workshop
from ondevice.errors import ConfigError, ImageError, UnknownModelError
from ondevice.image.open import open_image
from ondevice.image.preprocess import resize_and_crop
from ondevice.tasks.embeddings.encode import encode

MODEL = SHIPPED[0]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """One for all that only look: a compressed package takes seconds."""
    return Workshop(tmp_path_factory.mktemp("work"))


def test_a_photo_goes_through_the_model_and_both_packages(workshop, photo):
    found = look(workshop, MODEL, "palette4", photo)
    assert [sum(s.values()) for s in (found.model, found.package, found.compressed)] == (
        pytest.approx([1, 1, 1], abs=2e-3)
    )
    assert found.apart(found.package) < 5e-3
    assert 0 < found.apart(found.package) < found.apart(found.compressed) < 0.3
    assert [text.split()[0] for _, text in found.steps] == (
        "upright reduced resized cropped".split()
    )
    assert found.heat.size == found.attention.size == (384, 384)


def test_attention_is_that_of_the_last_block(workshop, photo):
    package, model = workshop.package(MODEL), workshop.model(MODEL)
    found = attention_map(package, resize_and_crop(open_image(photo), model.info.preprocess))
    assert found.shape == (2, 2)
    assert found.max() == 1
    assert 0 < found.min() < 0.99


def test_attention_is_read_by_the_class_token_or_by_all():
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.1, 1, (1, 3, 9, 9))
    rows /= rows.sum(axis=-1, keepdims=True)
    read = rows[0].mean(axis=(0, 1)).reshape(3, 3)
    np.testing.assert_allclose(read_positions(rows), read / read.max(), rtol=1e-5)
    turned = read_positions(rows.swapaxes(-1, -2))
    np.testing.assert_allclose(turned, read / read.max(), rtol=1e-5)
    token = rng.uniform(0.1, 1, (1, 10, 10))
    token /= token.sum(axis=-1, keepdims=True)
    one = token[0, 0, 1:].reshape(3, 3)
    np.testing.assert_allclose(read_positions(token), one / one.max(), rtol=1e-5)
    assert read_positions(rng.uniform(size=(4, 3, 9, 9))) is None  # in windows
    assert read_positions(rows, 36) is None  # in windows, side by side with the heads
    assert read_positions(rows, 9) is not None
    assert read_positions(token, 9) is not None
    assert read_positions(rng.uniform(size=(1, 7, 7))) is None


def test_a_net_without_attention_is_shown_without(tmp_path, photo):
    model = create_model("mobileone_s0")
    info = replace(model.info, labels=tuple(f"l{i}" for i in range(model.config.num_classes)))
    model.info = replace(info, preprocess=replace(info.preprocess, size=64))
    save_model(model, tmp_path / "saved")
    found = look(
        Workshop(tmp_path / "work", [str(tmp_path / "saved")]),
        str(tmp_path / "saved"),
        PLAIN,
        photo,
    )
    assert found.attention is None
    assert found.heat.size == (448, 448)


@pytest.mark.parametrize("kind", ["boxes", "depth", "mask"])
def test_what_a_dense_model_finds_is_drawn_on_the_photo(kind, dense, tmp_path, photo):
    name = str(dense[kind])
    workshop = Workshop(tmp_path / "work", [*map(str, dense.values())])
    *classifiers, detector, segmenter = SHIPPED
    assert workshop.dense == [*map(str, dense.values()), detector, segmenter]
    assert workshop.classifiers == classifiers
    found = find(workshop, name, photo, 0.05)
    with Image.open(photo) as image:
        assert found.drawing.size == image.size
    assert found.rows
    if kind == "boxes":
        shares = [float(share.rstrip("%")) for _, share, _ in found.rows]
        assert shares == sorted(shares, reverse=True)
        assert not find(workshop, name, photo, 0.999).rows
    if kind == "mask":
        assert sum(float(row[1].rstrip("%")) for row in found.rows) == pytest.approx(100, abs=1)


def test_typed_labels_have_shares_of_one(clip, tmp_path, photo):
    workshop = Workshop(tmp_path / "work", [str(clip)])
    assert workshop.clips == [str(clip)]
    found = fitting(workshop, str(clip), photo, "cat, dog,\nhot dog, ")
    assert set(found) == {"cat", "dog", "hot dog"}
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="twice"):
        fitting(workshop, str(clip), photo, "cat,cat")
    with pytest.raises(ConfigError, match=r"\{\}"):
        fitting(workshop, str(clip), photo, "cat", "a photo")


def test_similar_photos_are_found_in_an_index(tmp_path, album):
    path = tmp_path / "index.safetensors"
    encode(create_model(MODEL, pretrained=True), album, path)
    workshop = Workshop(tmp_path / "work", [], path)
    found = similar(workshop, str(album[2]), top_k=3)
    assert len(found) == 3
    assert found[0][1] == "1.000 album/2.png"
    album[2].unlink()
    assert similar(workshop, str(album[1]))[0][1] == "1.000 album/1.png"
    for photo, text in ((None, ""), (str(album[1]), "a cat")):
        with pytest.raises(ConfigError, match="and not both"):
            similar(workshop, photo, text)


def test_an_index_of_other_weights_is_said_at_the_start(tmp_path, album):
    path = tmp_path / "index.safetensors"
    encode(create_model("shvit_nano"), album, path)
    with pytest.raises(
        (ConfigError, UnknownModelError), match=r"made by shvit_nano|shvit_nano"
    ):
        Workshop(tmp_path / "work", [], path)


def test_a_text_is_looked_for_in_an_index_of_a_clip(clip, tmp_path, album):
    path = tmp_path / "index.safetensors"
    encode(create_model(str(clip), pretrained=True), album, path)
    workshop = Workshop(tmp_path / "work", [str(clip)], path)
    assert workshop.index_model == str(clip)
    assert len(similar(workshop, None, "a photo of a cat", top_k=2)) == 2


def test_what_compression_costs_is_said_one_by_one(workshop):
    found = list(costs(workshop, MODEL, [PLAIN, "palette4"], []))
    assert [cost.recipe for cost in found] == [PLAIN, "palette4"]
    assert found[0].bytes > 3 * found[1].bytes
    assert found[0].psnr_db > 55 > found[1].psnr_db
    assert [1 - len(cost.changed) / SAMPLES for cost in found] == [c.same_class for c in found]
    pattern = r"\w+ \d+% → \w+ \d+%"
    assert all(re.fullmatch(pattern, text) for cost in found for _, text in cost.changed)


def test_a_budget_is_searched_on_other_images_than_it_is_measured_on(workshop, album):
    photos = [str(path) for path in album] * 4
    searched, measured = workshop.halves(MODEL, photos)
    assert (len(searched), len(measured)) == (8, 8)
    (plain, found) = costs(workshop, MODEL, [PLAIN], photos, 25)
    assert found.recipe == "at most 25 %"
    assert found.bytes <= plain.bytes / 4
    assert found.package.name == f"{MODEL}.mixed-25.mlpackage"
    assert found.front.chosen in found.front.points
    assert workshop.within(MODEL, 25, photos).path == found.package
    with pytest.raises(ConfigError, match="15 photos"):
        list(costs(workshop, MODEL, [], photos[1:], 25))
    with pytest.raises(ConfigError, match="the smallest is"):
        list(costs(workshop, MODEL, [], photos, 5))


def test_the_line_goes_through_recipes_that_no_smaller_one_beats():
    sizes = {"a": (100, 20.0), "b": (200, 10.0), "c": (300, 30.0)}
    made = [Cost(n, size, db, 1, [], Path(n)) for n, (size, db) in sizes.items()]
    svg = ElementTree.fromstring(_curve(made))
    (line,) = svg.iter("polyline")
    assert len(line.get("points").split()) == 2
    assert [text.text for text in svg.iter("text")][-3:] == ["a", "c", "b"]


def test_images_that_a_package_takes_for_others_are_shown(workshop, monkeypatch):
    monkeypatch.setattr(
        "ondevice.cli.studio.smaller.scores", lambda *_: {"dog": 0.6, "cat": 0.4}
    )
    (cost,) = costs(workshop, MODEL, [PLAIN], [])
    assert 0 < len(cost.changed) <= SAMPLES
    assert cost.same_class == 1 - len(cost.changed) / SAMPLES
    assert all(text.endswith("→ dog 60%") for _, text in cost.changed)


def test_a_package_is_inspected_and_drawn(workshop):
    found, svg = inside(workshop, MODEL)
    assert svg.count("<rect") == found.operation_count + 1  # and the input
    assert found.path.endswith(".none.mlpackage")


def test_packages_that_nobody_uses_are_given_up(tmp_path, monkeypatch):
    workshop = Workshop(tmp_path / "work")
    monkeypatch.setattr(workshop._packages, "most", 1)
    first = workshop.package(MODEL)
    assert workshop.package(MODEL) is first
    second = workshop.package(SHIPPED[1])
    assert not first.path.exists()
    assert second.path.exists()
    assert PACKAGES > 1


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda w, bad: look(w, MODEL, PLAIN, bad), ImageError, "is not an image"),
        (lambda w, bad: w.model("/etc"), ConfigError, "is not offered"),
        (lambda w, bad: w.index, ConfigError, "--index FILE"),
        (lambda w, bad: find(w, MODEL, bad), ImageError, "is not an image"),
    ],
)
def test_what_cannot_be_is_one_line(workshop, tmp_path, call, error, said):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"x")
    with pytest.raises(error, match=said):
        call(workshop, str(bad))


def test_a_classifier_is_refused_where_boxes_are_wanted(workshop, photo):
    with pytest.raises(ConfigError, match="gives no boxes"):
        find(workshop, MODEL, photo)


def test_two_users_who_get_the_same_image_get_two_files(tmp_path):
    pytest.importorskip("gradio")
    from gradio.processing_utils import save_pil_to_cache

    from ondevice.cli.studio.parts import own

    image = Image.new("RGB", (8, 8), "red")
    answers = [own(("said", [(image, "red")])) for _ in range(2)]
    images = [pairs[0][0] for _, pairs in answers]
    files = {save_pil_to_cache(i, str(tmp_path), format="png") for i in images}
    assert len(files) == 2
    assert [Image.open(f).tobytes() == image.tobytes() for f in files] == [True, True]
    assert own(({"cat": 1.0}, None, [["a", 1]])) == ({"cat": 1.0}, None, [["a", 1]])


def test_a_missing_extra_is_said(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ondevice.cli.studio.page", raising=False)
    monkeypatch.delitem(sys.modules, "ondevice.cli.studio.parts", raising=False)
    assert run(["studio", "--port", "0", "--no-browser"]) == 2
    assert "pip install 'ondevice[studio]'" in capsys.readouterr().err
