"""The commands that make and check packages, as a newcomer runs them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ondevice import create_model, save_model
from ondevice.cli import run
from ondevice.signature.samples import sample_images

from ..models.test_detectors import small as detector

SHAPES = ("heart", "hexagon", "hexagon", "ring", "triangle")  # in the image that is shown


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_demo_shows_both_sides_and_the_verdict(capsys, tmp_path):
    pytest.importorskip("skimage")
    assert run(["demo"]) == 0
    out, err = capsys.readouterr()
    assert "cat" in out
    assert "passed" in out
    assert "CC0" in err
    assert (tmp_path / "ondevice-demo" / "shvit_nano.cifar10.mlpackage").is_dir()


def test_demo_takes_ones_own_photos_and_gives_json(capsys):
    for name, pixels in zip(("a.png", "b.png"), sample_images(120)[2:], strict=True):
        Image.fromarray(pixels).save(name)
    assert run(["demo", "a.png", "b.png", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    rows = report["predictions"]
    assert [row["image"] for row in rows] == ["a.png"] * 5 + ["b.png"] * 5
    assert all(0 <= row[f"{side} score"] <= 1 for row in rows for side in ("MLX", "package"))
    assert report["passed"] is True
    assert report["images"] == 2


def test_demo_of_a_detector_draws_what_the_package_finds(ondevice_, tmp_path):
    save_model(detector(), "model")
    for name, pixels in zip(("a.png", "b.png"), sample_images(96)[2:], strict=True):
        Image.fromarray(pixels).save(name)
    args = ("demo", "--task", "detect", "--model", "model", "--out", "out")
    status, out, err = ondevice_(*args)
    drawn = tmp_path / "out" / "shapes-boxes.png"
    assert status in (0, 1)  # random weights choose other candidates in half precision
    with Image.open(drawn) as image:
        assert image.size == (256, 256)
    assert "drawn by a program" in err
    assert [w for w in out.split() if w.endswith(".png")] == ["out/shapes-boxes.png"]
    assert "same boxes" in out
    status, _, err = ondevice_(*args, "a.png")
    assert (status, err) == (
        2,
        "error: out/rtdetr_r18vd.mlpackage exists; use --force (force=True) to replace it\n",
    )
    _, out, _ = ondevice_(*args, "a.png", "b.png", "--json", "--force")
    said = json.loads(out)
    assert said["drawings"] == ["out/a-1-boxes.png", "out/b-2-boxes.png"]
    assert said["seconds"]["detect with MLX"] > 0


def test_demo_takes_a_detector_that_ships(ondevice_, tmp_path):
    """Offline, and right: what lies in the drawn image is known."""
    status, out, _ = ondevice_("demo", "--task", "detect", "--json")
    said = json.loads(out)
    assert (status, said["passed"]) == (0, True)
    both = [(row["MLX"], row["package"]) for row in said["predictions"]]
    assert sorted(ours for ours, _ in both) == sorted(SHAPES)
    assert all(ours == theirs for ours, theirs in both)
    assert (tmp_path / said["drawings"][0]).is_file()


def test_demo_of_masks_draws_what_the_package_finds(ondevice_, tmp_path):
    save_model(create_model("light_fpn_shvit_nano", num_classes=3), "model")
    status, out, err = ondevice_(
        "demo", "--task", "segment", "--model", "model", "--out", "out"
    )
    assert status in (0, 1)  # random weights find other classes in half precision
    with Image.open(tmp_path / "out" / "shapes-mask.png") as image:
        assert image.size == (256, 256)
    assert "drawn by a program" in err
    assert "same pixels" in out
    rows = [line.split() for line in out.split("\n\n")[0].splitlines()]
    assert rows[0] == ["image", "MLX", "pixels", "package", "pixels"]
    shares = [float(row[-1].rstrip("%")) for row in rows[1:]]
    assert shares == sorted(shares, reverse=True)
    assert 98 < sum(shares) <= 100.01


def test_demo_takes_a_model_of_masks_that_ships(ondevice_, tmp_path):
    """Offline, and mostly right: it sees no heart, but what lies under it."""
    status, out, _ = ondevice_("demo", "--task", "segment", "--json")
    said = json.loads(out)
    assert (status, said["passed"]) == (0, True)
    shares = {
        side: {row[side]: 100 * row[f"{side} pixels"] for row in rows}
        for side in ("MLX", "package")
        for rows in [[row for row in said["predictions"] if row[side]]]
    }
    assert {"background", "hexagon", "ring", "triangle"} <= shares["MLX"].keys()
    assert shares["package"] == pytest.approx(shares["MLX"], abs=0.1)
    assert (tmp_path / said["drawings"][0]).is_file()


def test_demo_says_where_no_detector_ships(ondevice_, tmp_path, monkeypatch):
    monkeypatch.setattr("ondevice.registry._SPECS", {})
    status, out, err = ondevice_("demo", "--task", "detect")
    assert (status, out) == (2, "")
    assert err == "error: no detector ships with this version; give one with --model NAME\n"
    assert not list(tmp_path.iterdir())


def test_export_then_verify(capsys):
    assert run(["export", "shvit_nano.flowers", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["package"] == "shvit_nano.flowers.mlpackage"
    assert run(["verify", made["package"], "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"][-1]["comparisons"][0]["psnr_db"] > 55
    assert run(["verify", made["package"], "--model", "shvit_nano.cifar10"]) == 2
    assert "5" in capsys.readouterr().err  # five classes against ten


@pytest.mark.parametrize(
    "line",
    [
        ["export", "shvit_s9"],
        ["export", "shvit_nano.cifar10", "--out", "x.zip"],
        ["export", "no/such/folder"],
        ["verify", "missing.mlpackage"],
        ["demo", "missing.jpg"],
        ["demo", "--model", "shvit_s9"],
    ],
)
def test_bad_input_is_one_line_and_status_2(line, capsys, tmp_path):
    assert run(line) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
