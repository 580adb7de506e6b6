"""Models that name pixels measured on images with masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters import export
from ondevice import save_model
from ondevice.errors import ConfigError, ImageError
from ondevice.image.open import open_image
from ondevice.tasks.dense import predict
from ondevice.tasks.segmentation.evaluate import Segmenter, evaluate
from ondevice.tasks.segmentation.masks import MaskedImage, MaskSet, mask_notes, read_masks

from ...models.test_dense import small

SIZES = ((80, 60), (50, 90), (64, 64))
CLASSES = tuple("abcdefg")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model, a package of it, and images whose masks are what it says, but for a
    corner that is another class's and one that does not count."""
    folder = tmp_path_factory.mktemp("chain")
    model = small("segformer_b0")
    spec = replace(model.info.preprocess, size=64)
    model.info = replace(model.info, preprocess=spec, labels=CLASSES)
    save_model(model, folder / "model")
    export(model, folder / "exact.mlpackage", precision="float32")
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "set" / part / "val").mkdir(parents=True)
    for number, size in enumerate(SIZES):
        pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
        path = folder / "set" / "images" / "val" / f"{number}.png"
        Image.fromarray(pixels).resize(size).save(path)
        (result,) = predict(model, [open_image(path)], "mask")
        mask = np.asarray(result.found).astype(np.uint8)
        mask[:20, :20] = (mask[:20, :20] + 1) % 7
        mask[-20:] = 255
        Image.fromarray(mask).save(folder / "set" / "masks" / "val" / path.name)
    return {path.name: path for path in folder.iterdir()}


def test_a_folder_and_a_package_are_measured_side_by_side(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    names, html = [chain["model"], chain["exact.mlpackage"]], tmp_path / "report.html"
    args = ("evaluate", *names, "--images", chain["set"])
    status, out, err = ondevice_(*args, "--json", "--html", html)
    said = json.loads(out)
    mlx, package = said["models"]
    assert status == 0
    assert err.splitlines()[-1] == f"{chain['set']}: images for val"
    counted = [width * (height - 20) for width, height in SIZES]
    assert mlx["pixel_accuracy"] == pytest.approx(1 - 3 * 400 / sum(counted))
    assert sum(c["pixels"] for c in mlx["per_class"]) == sum(counted)
    assert package["mIoU"] == pytest.approx(mlx["mIoU"], abs=1e-3)
    (comparison,) = said["comparisons"]
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert html.read_text().count("data:image/jpeg") == 2 * len(SIZES)
    status, out, _ = ondevice_(*args)
    assert out.splitlines()[0].split()[:3] == ["model", "images", "mIoU"]
    assert f"{mlx['mIoU']:.1%}" in out


def test_the_report_of_verify_has_the_figures_of_masks(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    html = tmp_path / "report.html"
    args = ("verify", chain["exact.mlpackage"], "--model", chain["model"], "--no-baselines")
    status, out, _ = ondevice_(*args, "--json", "--html", html)
    (found,) = json.loads(out)["steps"][-1]["comparisons"]
    assert status == 0
    assert found["of_kind"].keys() == {"equal_pixels", "miou"}
    for name, value in found["of_kind"].items():
        assert f"{name} {value:.4g}" in html.read_text()


def mask_set(folder: Path, masks: list[Any], names: tuple[str, ...] = ()) -> MaskSet:
    """Black images with these masks."""
    images = []
    for number, mask in enumerate(masks):
        image, path = (folder / f"{number}{part}.png" for part in ("", "_mask"))
        Image.fromarray(np.asarray(mask, np.uint8)).save(path)
        Image.new("RGB", np.asarray(mask).shape[::-1]).save(image)
        images.append(MaskedImage(str(image), str(path)))
    return MaskSet(folder, tuple(images), names)


def says(*masks: Any, name: str = "m", classes: str = "abc") -> Segmenter:
    """What gives these masks, one after the other."""
    rest = iter([np.array(mask) for mask in masks])
    return Segmenter(name, tuple(classes), lambda photo: next(rest))


def test_figures_are_of_all_pixels_together(tmp_path: Path) -> None:
    there = mask_set(tmp_path, [[[0, 0], [1, 255]], [[1, 1], [1, 1]]])
    (found,), _ = evaluate([says([[0, 1], [1, 2]], [[1, 1], [1, 0]])], there, print)
    a, b, c = found.per_class
    assert (a.pixels, a.iou, a.accuracy) == (2, pytest.approx(1 / 3), 0.5)
    assert (b.pixels, b.iou, b.accuracy) == (5, pytest.approx(4 / 6), 0.8)
    assert (c.pixels, c.iou, c.accuracy) == (0, None, None)  # where it was said does not count
    assert found.figures["mIoU"] == pytest.approx((1 / 3 + 4 / 6) / 2)
    assert found.figures["pixel_accuracy"] == pytest.approx(5 / 7)
    assert found.figures["mean_accuracy"] == pytest.approx((0.5 + 0.8) / 2)


def test_classes_are_matched_by_name_and_what_has_none_does_not_count(tmp_path: Path) -> None:
    there = mask_set(tmp_path, [[[0, 1, 2]]], names=("", "b", "a"))
    with pytest.raises(ConfigError, match="m has no class a; it has b, c"):
        evaluate([says([[0, 0, 0]], classes="bc")], there, print)
    models = [says([[0, 1, 0]]), says([[2, 1, 1]], classes="dba")]
    found, (comparison,) = evaluate(models, there, print)
    assert [each.figures["pixel_accuracy"] for each in found] == [1, 0.5]
    assert comparison.difference == pytest.approx(0.25 - 1)


def test_a_worse_model_is_shown_to_be_worse(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 3, (8, 8)) for _ in range(20)]
    noisy = [np.where(rng.uniform(size=m.shape) < 0.2, 0, m) for m in masks]
    there = mask_set(tmp_path, masks)
    (best, _), (comparison,) = evaluate([says(*masks), says(*noisy, name="n")], there, print)
    assert best.figures["mIoU"] == 1
    assert best.worst == ()
    assert comparison.low < comparison.difference < comparison.high < -0.05


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (Image.new("RGB", (4, 3)), "is RGB; a mask has a number a pixel"),
        (Image.new("L", (3, 4)), "has 3 x 4 pixels, its photo 4 x 3"),
        (Image.new("L", (4, 3), 9), "has 9, which is no class's number"),
        (None, "cannot be read"),
    ],
)
def test_masks_that_cannot_be_are_skipped(mask: Any, problem: str, tmp_path: Path) -> None:
    there = mask_set(tmp_path, [np.zeros((3, 4)), np.zeros((3, 4))])
    path = Path(there.images[1].mask)
    mask.save(path) if mask else path.write_text("none")
    found: dict[int, ImageError] = {}
    evaluate([says(np.zeros((3, 4), int))], there, found.__setitem__)
    assert list(found) == [1]
    assert problem in str(found[1])


def touched(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()


def test_masks_are_found_as_sets_lay_them_out(tmp_path: Path) -> None:
    beside, ade, plain = (tmp_path / name for name in ("beside", "ade", "plain"))
    touched(beside, "train/a.jpg", "train_masks/a.png", "val/b.jpg", "val_masks/b.png")
    for part in ("training", "validation"):
        touched(ade, f"images/{part}/{part}.jpg", f"annotations/{part}/{part}.png")
    touched(plain, "images/c.jpg", "masks/c.png")
    (plain / "classes.txt").write_text("\nsky\n")
    prefer = ("test", "val", "", "train")
    for folder, split, stem in (
        (beside, "val", "b"),
        (ade, "val", "validation"),
        (plain, "", "c"),
    ):
        found, taken = read_masks(folder, prefer)
        assert taken == split
        assert [Path(i.path).stem for i in found.images] == [stem]
        assert [Path(i.mask).stem for i in found.images] == [stem]
    assert found.names == ("", "sky")
    assert found.notes == ()


def test_masks_that_no_image_has_are_told(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    touched(tmp_path, "images/b.jpg", *(f"masks/{name}.png" for name in names))
    found, _ = read_masks(tmp_path, ("val", ""))
    note = f"{tmp_path / 'masks'}: masks without an image are not used: a.png, c.png"
    assert found.notes == (note,)
    assert mask_notes(tmp_path) == [note]


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ((), "has no masks; expected PNG files in masks or annotations"),
        (("images/a.jpg", "images/b.jpg", "masks/b.png"), "has no masks of a.jpg"),
        (("images/a.txt", "masks/b.png"), "has no images"),
    ],
)
def test_what_is_no_such_set_is_said(
    paths: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    touched(tmp_path, *paths)
    with pytest.raises(ConfigError, match=problem):
        read_masks(tmp_path, ("val", ""))
