"""``ondevice export --recipe``: what it prints, and the mistakes that people make."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ondevice.cli import run

MODEL = "shvit_nano.cifar10"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(8):
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64)).save(folder / f"{i}.png")
    return folder


def export(tmp_path, *options):
    return run(["export", MODEL, "--out", str(tmp_path / "a.mlpackage"), *map(str, options)])


def test_a_table_accounts_for_every_weight(tmp_path, capsys):
    assert export(tmp_path, "--recipe", "palette4", "--table") == 0
    out = capsys.readouterr().out
    assert "bits_per_weight" in out
    lines = [line.split() for line in out.splitlines() if ".weight " in line]
    assert len(lines) == 63
    assert ["patch_embed.0.weight", "8x3x3x3", "float16", "16.00", "-", "fewer"] in [
        line[:6] for line in lines
    ]


def test_json_has_the_table_too(tmp_path, photos, capsys):
    options = ("--recipe", "w8a8", "--calibrate", photos, "--json", "--table")
    assert export(tmp_path, *options) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["compressed"] == 62
    assert said["bytes"] < 1_400_000
    assert {"path", "shape", "format", "bits", "snr_db", "note"} == said["table"][0].keys()


def black(tmp_path):
    folder = tmp_path / "black"
    folder.mkdir()
    for i in range(9):
        Image.new("RGB", (40, 40)).save(folder / f"{i}.png")
    return folder


def few(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    Image.effect_noise((40, 40), 90).save(folder / "one.png")
    return folder


def broken(tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"not a picture")
    return folder


def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.md").write_text("nothing here")
    return folder


MISTAKES = {
    "an unknown recipe": (["--recipe", "tiny"], "no recipe 'tiny'; there are int8"),
    "a target too low": (["--recipe", "int4-block"], "needs iOS18, not iOS17"),
    "no images to calibrate on": (["--recipe", "w8a8"], "--calibrate FOLDER"),
    "a search without pictures": (["--budget", "1MB"], "--calibrate FOLDER"),
    "a front of nothing": (["--recipe", "int8", "--pareto", "f.svg"], "give --budget"),
    "no size": (["--budget", "small"], "a budget is a size such as 2.5MB; given 'small'"),
    "a size of nothing": (["--budget", "0MB"], "given '0MB'"),
    "black pictures": (["--recipe", "int8", "--calibrate", black], "one value everywhere"),
    "one picture": (["--recipe", "int8", "--calibrate", few], "1 calibration samples; give 8"),
    "a broken picture": (["--recipe", "int8", "--calibrate", broken], "cat.jpg"),
    "a folder of something else": (["--recipe", "int8", "--calibrate", empty], "no images"),
    "a folder that is not there": (["--recipe", "int8", "--calibrate", "nowhere"], "nowhere"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, mistake, capsys):
    options, said = MISTAKES[mistake]
    filled = [option(tmp_path) if callable(option) else option for option in options]
    assert export(tmp_path, *filled) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.mlpackage*"))


@pytest.mark.parametrize("option", [("--limit", "3"), ("--max-level", "4095")])
def test_options_of_calibration_images_need_some(tmp_path, option, capsys):
    assert export(tmp_path, *option) == 2
    assert f"{option[0]} goes with --calibrate" in capsys.readouterr().err
