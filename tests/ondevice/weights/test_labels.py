"""Labels that do not fit are refused in one line, wherever they would have been used."""

import json
from dataclasses import replace

import mlx.nn as nn
import pytest
from PIL import Image

from converters import export
from ondevice import create_model, save_model
from ondevice.config.labels import check_labels, imagenet1k, read_labels
from ondevice.errors import ConfigError
from ondevice.tasks.classify import classify

WRONG = {
    "too few": (("cat", "dog"), "2 for 3 classes"),
    "too many": (("cat", "dog", "owl", "emu"), "4 for 3 classes"),
    "one twice": (("cat", "dog", "cat"), "'cat' for classes 0, 2"),
    "white space": (
        ("big cat", "dog", "big  cat "),
        "'big cat' for classes 0, 2, but for",
    ),
    "empty": (("cat", "", " "), "empty for class 1, 2"),
    "number": (("cat", 1, None), "no text for class 1, 2"),
    "half a character": (("cat", "dog", "\udc00"), "no Unicode for class 2"),
    "everything": (
        ("a", "a", "", 4),
        "4 for 3 classes; no text for class 3; emp",
    ),
}


@pytest.fixture
def model():
    return create_model("shvit_nano", num_classes=3)


@pytest.fixture(params=WRONG)
def wrong(request):
    return WRONG[request.param]


def test_they_are_refused_where_they_are_used(wrong, model, tmp_path):
    labels, said = wrong
    model.info = replace(model.info, labels=labels)
    for use in (
        lambda: classify(model, Image.new("RGB", (96, 96))),
        lambda: export(model, tmp_path / "x.mlpackage"),
        lambda: save_model(model, tmp_path / "x"),
    ):
        with pytest.raises(ConfigError) as caught:
            use()
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["classify", "export", "show"])
def test_they_are_refused_in_a_folder_edited_by_hand(
    command, wrong, model, tmp_path, ondevice_, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (96, 96)).save("x.png")
    path = save_model(model, tmp_path / "saved") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": wrong[0]}))
    args = ("x.png", "--model", "saved") if command == "classify" else ("saved",)
    status, out, err = ondevice_(command, *args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "labels" in err


def test_a_head_that_was_changed_afterwards_is_noticed(tmp_path):
    model = create_model("shvit_nano.cifar10")
    model.head.linear = nn.Linear(160, 3)
    for use in (
        lambda: classify(model, Image.new("RGB", (96, 96))),
        lambda: export(model, tmp_path / "x.mlpackage"),
    ):
        with pytest.raises(ConfigError, match="10 for 3 classes"):
            use()


def test_none_and_imagenets_are_fine():
    check_labels((), 3, "x")
    check_labels(imagenet1k(), 1000, "x")


@pytest.mark.parametrize("text", ["cat\ndog\n", "\ufeffcat\r\ndog\r\n\r\n", " cat \n dog"])
def test_a_file_has_one_a_line(text, tmp_path):
    (tmp_path / "x.txt").write_bytes(text.encode())
    assert read_labels(tmp_path / "x.txt") == ("cat", "dog")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_what_is_no_file_of_labels_is_refused(content, tmp_path):
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.txt is no file of labels"):
        read_labels(path)


@pytest.mark.parametrize(
    "labels", [("\u00e9", "e\u0301"), ("a\nb", "c"), ("a\0", "b"), ("a\u200b", "a")]
)
def test_labels_that_no_eye_tells_apart_are_refused(labels):
    with pytest.raises(ConfigError, match="labels cannot be used"):
        check_labels(labels, 2, "x")
