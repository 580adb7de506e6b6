"""``ondevice verify``: its report, its status, and the mistakes that people make."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from converters import verify
from ondevice.cli import run
from ondevice.cli.verify import print_report
from ondevice.errors import ImageError
from ondevice.signature.samples import sample_images

from .page import Checked


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(sample_images(120)[3]).save(folder / "good.png")
    return folder


def test_the_command_climbs_and_writes_a_page(package, climbed, pictures, tmp_path, capsys):
    page = tmp_path / "report.html"
    line = ["verify", str(package.path), "--images", str(pictures), "--html", str(page)]
    assert run(line) == 0
    out = capsys.readouterr().out
    assert [row.split("  ")[0] for row in out.splitlines()[2:5]] == [
        "package float32",
        "package float16",
        "as saved",
    ]
    assert "good.png" in out
    assert "passed" in Checked(page.read_text(encoding="utf-8")).text
    assert run([*line, "--no-baselines"]) == 2
    assert "--force" in capsys.readouterr().err


def test_a_missed_gate_is_status_1(package, pictures, capsys):
    line = ["verify", str(package.path), "--images", str(pictures), "--no-baselines"]
    assert run([*line, "--gate", "psnr_db=199"]) == 1
    out = capsys.readouterr().out
    assert "FAILED: as saved: logits psnr_db" in out
    assert "(worst: good.png)" in out


def test_a_failure_says_where_it_begins(failed, capsys):
    print_report(failed)
    out, err = capsys.readouterr()
    assert "the error first jumps at conv stages_1_blocks_0_conv: " in out
    assert "passed" not in out
    assert err.startswith("warning: ")


def test_bad_pictures_are_left_out_and_named(package, pictures, capsys):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff but no picture")
    line = ["verify", str(package.path), "--no-baselines", "--images", str(pictures), "--json"]
    assert run(line) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 1
    assert err.startswith("skipped: ")
    assert "broken.jpg" in err
    assert err.endswith("\n1 of 2 files skipped\n")


def test_the_limit_is_of_test_patterns_too(package, capsys):
    assert run(["verify", str(package.path), "--no-baselines", "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_in_the_library_bad_pictures_are_an_error(nano, package, pictures):
    (pictures / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        verify(nano, package, sorted(pictures.iterdir()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--images", "nowhere"], "nowhere cannot be opened"),
        (["--images", "empty"], "no images"),
        (["--images", "bad"], "x.png is not an image"),
        (["--gate", "psnr_db"], "psnr_db=50"),
        (["--gate", "beauty=1"], "no gate beauty"),
        (["--gate", "psnr_db=-inf"], "a limit is a finite number"),
        (["--model", "shvit_s9"], "shvit_s9"),
        (["--html", "empty/file.txt/report.html"], "cannot write"),
    ],
)
def test_bad_options_are_one_line(options, said, package, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "file.txt").write_text("")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"no")
    assert run(["verify", str(package.path), "--no-baselines", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def _truncate(path):
    weights = next(path.rglob("weight.bin"))
    weights.write_bytes(weights.read_bytes()[:5000])


def _no_manifest(path):
    (path / "Manifest.json").unlink()


def _path_trick(path):
    manifest = path / "Manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("com.apple.CoreML/model.mlmodel", "../../secret"))


@pytest.mark.parametrize(
    ("change", "said"),
    [(_truncate, "truncated"), (_no_manifest, "Manifest"), (_path_trick, "outside")],
)
def test_a_broken_package_is_one_line(change, said, package, tmp_path, capsys):
    copy = tmp_path / "x.mlpackage"
    shutil.copytree(package.path, copy)
    change(copy)
    assert run(["verify", str(copy)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
