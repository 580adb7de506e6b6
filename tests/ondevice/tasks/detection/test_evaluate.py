"""Detectors measured on a set in COCO's form, by the command as a newcomer runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ondevice.errors import ConfigError, ImageError
from ondevice.image.open import open_image
from ondevice.tasks.dense import predict
from ondevice.tasks.detection.coco import CocoSet, read_coco
from ondevice.tasks.detection.evaluate import (
    Detector,
    class_order,
    evaluate,
    model_detector,
    surest,
)
from ondevice.tasks.detection.report import to_html

from ...models.test_detectors import small
from ..train.test_evaluate import Tags
from .conftest import OBJECTS, SIZES


def test_a_folder_and_packages_are_measured_side_by_side(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    names = [chain["model"], chain["exact.mlpackage"], chain["half.mlpackage"]]
    html = tmp_path / "report.html"
    args = ("evaluate", *names, "--images", chain["images"], "--html", html)
    status, out, err = ondevice_(*args, "--json")
    said = json.loads(out)
    mlx, exact, half = said["models"]
    assert (status, err) == (0, "")
    assert (mlx["images"], mlx["objects"]) == (len(SIZES), OBJECTS * len(SIZES))
    assert list(mlx)[:3] == ["name", "images", "objects"]
    assert 0.05 < mlx["AP"] == pytest.approx(exact["AP"], abs=1e-6)
    assert half["AP"] == pytest.approx(mlx["AP"], abs=0.1)
    assert [c["name"] for c in mlx["per_class"]] == list("xedcba")
    assert mlx["per_class"][0]["AP"] is None
    to_exact, to_half = said["comparisons"]
    assert to_exact["low"] <= to_exact["difference"] <= to_exact["high"]
    assert to_half["difference"] == pytest.approx(half["AP"] - mlx["AP"])
    page = Tags()
    page.feed(html.read_text())
    assert str(names[1]) in html.read_text()
    drawn = [tag for tag, _ in page.found if tag == "svg"]
    assert len(drawn) == sum(c["objects"] > 0 for c in mlx["per_class"])
    loaded = {v for _, attrs in page.found for k, v in attrs.items() if k in ("src", "href")}
    assert all(each.startswith("data:image/jpeg;base64,") for each in loaded)
    status, _, err = ondevice_(*args)
    assert (status, "exists; use --force" in err) == (2, True)


def test_tables_are_printed_too(chain: dict[str, Path], ondevice_: Any) -> None:
    names = [chain["model"], chain["half.mlpackage"]]
    status, out, _ = ondevice_("evaluate", *names, "--images", chain["images"])
    first, header, *_ = out.splitlines()
    assert status == 0
    assert first == "4 images with 24 objects"
    assert header.split()[:4] == ["model", "AP", "AP50", "AP75"]
    assert f"AP of {names[1]} less that of {names[0]}: " in out.splitlines()[-1]


def test_broken_images_are_skipped_and_wrong_sizes_too(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    for path in chain["images"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "0.png").write_text("none")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    args = ("evaluate", chain["model"], "--images", tmp_path, "--json")
    status, out, err = ondevice_(*args)
    assert status == 3
    assert json.loads(out)["models"][0]["images"] == 2
    assert "1.png has 8 x 8 pixels, its annotations are for 60 x 90" in err
    assert "2 of 4 files skipped" in err
    for path in tmp_path.glob("*.png"):
        path.write_text("none")
    status, out, err = ondevice_(*args)
    assert (status, out) == (2, "")
    assert "none of 4 files is a usable image" in err


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("{model}", "--images", "{model}"), "config.json is not in COCO's form"),
        (("{model}", "--images", "none"), "none does not exist"),
        (("{model}", "--images", "{images}", "--task", "classify"), "classes of whole images"),
        (
            ("{half}", "--images", "{images}", "--task", "classify"),
            "no score of a whole image",
        ),
        (("shvit_nano.cifar10", "--images", "{images}", "--task", "detect"), "gives no boxes"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    args: tuple[str, ...], problem: str, chain: dict[str, Path], ondevice_: Any
) -> None:
    places = {path.stem: path for path in chain.values()}
    status, out, err = ondevice_("evaluate", *(a.format(**places) for a in args))
    assert (status, out) == (2, "")
    assert problem in err
    assert len(err.splitlines()) == 1


def coco_set(chain: dict[str, Path]) -> CocoSet:
    return read_coco(chain["images"] / "_annotations.coco.json")


def test_classes_are_matched_by_name(chain: dict[str, Path]) -> None:
    coco = coco_set(chain)
    exact = model_detector(small())
    order = class_order(exact, coco)
    assert [coco.classes[i] for i in order] == list("abcde")
    assert class_order(Detector("other", ("b", *"zaedc"), exact.find), coco)[1] == -1
    with pytest.raises(ConfigError, match=r"other has no class c, b, a; it has e, d"):
        class_order(Detector("other", ("e", "d"), exact.find), coco)


def test_boxes_are_those_of_detect(chain: dict[str, Path]) -> None:
    model, photo = small(), open_image(chain["images"] / "0.png")
    (wanted,) = predict(model, [photo], "boxes", threshold=0.01)
    found = surest(*model_detector(model).find(photo), np.arange(5))
    assert len(wanted.found) > 20
    for each, box, number, score in zip(
        wanted.found, found.boxes, found.classes, found.scores, strict=False
    ):
        assert (each.index, each.score) == (number, pytest.approx(score, abs=1e-5))
        assert each.box == pytest.approx(box, abs=1e-3)


def test_what_is_not_finite_is_no_result() -> None:
    scores = np.array([[0.5, np.nan]])
    with pytest.raises(ConfigError, match="NaN"):
        surest(np.zeros((1, 4)), scores, np.arange(2))


def test_a_detector_that_misses_is_shown_to_be_worse(chain: dict[str, Path]) -> None:
    coco, problems = coco_set(chain), dict[int, ImageError]()
    good = model_detector(small())

    def miss(photo: Image.Image) -> tuple[Any, Any]:
        boxes, scores = good.find(photo)
        return boxes + np.array([0, 0, 40, 40]), np.full_like(scores, 0.9)

    (best, worst), (comparison,) = evaluate(
        [good, Detector("worse", good.classes, miss)], coco, problems.__setitem__
    )
    assert not problems
    assert comparison.high is not None
    assert comparison.high < -0.2
    assert worst.figures["AP"] < best.figures["AP"]  # type: ignore[operator]
    assert worst.worst[0].false_alarms > 20
    text = to_html([worst, best], [comparison])
    assert text.count("data:image/jpeg") == len(worst.worst) == len(SIZES)
