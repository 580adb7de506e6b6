"""``ondevice verify`` of detectors on a set in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

GATES = ("--gate", "matched=0", "--no-baselines")  # random weights choose other candidates


def test_verify_says_what_a_package_costs_in_average_precision(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    html = tmp_path / "report.html"
    args = ("verify", chain["half.mlpackage"], "--model", chain["model"], *GATES)
    args = (*args, "--images", chain["images"], "--limit", 3)
    status, out, _ = ondevice_(*args, "--json", "--html", html)
    said = json.loads(out)
    found = said["precision"]
    assert (status, said["images"], found["images"]) == (0, 3, 3)
    assert found["difference"] == pytest.approx(found["package"] - found["model"])
    assert found["low"] <= found["difference"] <= found["high"]
    page = html.read_text()
    assert "Average precision on 3 images" in page
    assert f"<td class=n>{found['model']:.3f}</td>" in page
    assert f"matched {said['steps'][-1]['comparisons'][0]['of_kind']['matched']:.4g}" in page
    status, out, _ = ondevice_(*args)
    assert f"AP {found['model']:.3f} by the model, {found['package']:.3f} by the package" in out


def test_other_images_are_verified_as_before(chain: dict[str, Path], ondevice_: Any) -> None:
    photo = chain["images"] / "0.png"
    args = ("verify", chain["half.mlpackage"], "--model", chain["model"], *GATES)
    status, out, _ = ondevice_(*args, "--images", photo, "--json")
    assert status == 0
    assert json.loads(out)["precision"] == {}


def test_what_does_not_go_together_is_said_before_anything_is_run(
    chain: dict[str, Path], tmp_path: Path, ondevice_: Any
) -> None:
    args = ("verify", chain["half.mlpackage"], "--model", chain["model"])
    status, out, err = ondevice_(*args, "--images", chain["images"], "--max-level", 255)
    assert (status, out) == (2, "")
    assert "--max-level does not go with" in err
    data = json.loads((chain["images"] / "_annotations.coco.json").read_text())
    for category in data["categories"]:
        category["name"] += "!"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(data))
    for image in data["images"]:
        (tmp_path / image["file_name"]).write_bytes(
            (chain["images"] / image["file_name"]).read_bytes()
        )
    status, out, err = ondevice_(*args, "--images", other)
    assert (status, out) == (2, "")
    assert "has no class" in err
