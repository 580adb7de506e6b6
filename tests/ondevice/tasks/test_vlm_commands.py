"""FastVLM's commands, and a tiny one all the way from the hub's cache to a package."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import mlx.core as mx
import pytest
from PIL import Image

from converters.coreml.loaded import load_package
from ondevice.cli import run
from ondevice.errors import ConfigError, ImageError
from ondevice.tasks.vlm import Vision, load_vision, write_tokens
from ondevice.weights.safetensors import read_safetensors

from ... import ROOT
from ..weights.test_hub import COMMIT, put
from .vlm import tiny

FLOAT32 = 65568  # of Core ML's ArrayFeatureType


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(tiny.image()).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def ondevice_(capsys, vlm_folder):
    """Run a command line with the tiny model: its exit status, stdout, stderr."""

    def call(*args):
        status = run([*args, "--model", str(vlm_folder)])
        return status, *capsys.readouterr()

    return call


def test_describe_prints_the_answer_as_it_comes(ondevice_, photo, vlm, monkeypatch):
    wanted = vlm.generate("Describe the image.", photo, max_tokens=7).text
    status, out, err = ondevice_(
        "describe", photo, "--size", "128", "--max-tokens", "7", "--timings"
    )
    assert (status, out) == (0, f"{wanted}\n")
    assert "first token after" in err
    assert "4 of 81 prompt tokens are of images" in err


def test_commands_for_other_models_say_what_takes_it(vlm_folder, photo, capsys):
    assert run(["show", str(vlm_folder)]) == 2
    err = capsys.readouterr().err
    assert "config.json cannot be used: it is a FastVLM's; `ondevice describe" in err
    assert err.count("\n") == 1
    assert run(["classify", photo, "--model", str(vlm_folder)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("fastvithd has no classes (num_classes=0): it gives image_features")


def test_describe_names_what_it_cannot_use_and_goes_on(ondevice_, photo, tmp_path):
    Image.new("RGB", (1, 10_000)).save(tmp_path / "line.png")
    bad = [str(tmp_path / "line.png"), "nowhere.png"]
    args = ("--size", "128", "--max-tokens", "3", "--json")
    status, out, err = ondevice_("describe", bad[0], photo, bad[1], *args)
    report = json.loads(out)
    assert status == 3
    assert [r["images"] for r in report["results"]] == [[photo]]
    assert report["results"][0]["timings"]["image_tokens"] == 4
    assert [line.split()[:2] for line in err.splitlines() if "licence" not in line] == [
        ["skipped:", bad[0]],
        ["skipped:", bad[1]],
        ["2", "of"],
    ]


def test_describe_needs_all_images_that_go_together(ondevice_, photo):
    args = ("--size", "128", "--together")
    status, out, err = ondevice_("describe", photo, "nowhere.png", *args)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: nowhere.png cannot be opened")


def test_describe_takes_images_together(ondevice_, photo):
    args = ("--size", "128", "--max-tokens", "3", "--json", "--together")
    status, out, _ = ondevice_("describe", photo, photo, *args)
    (result,) = json.loads(out)["results"]
    assert (status, result["images"]) == (0, [photo, photo])
    assert result["timings"]["image_tokens"] == 8


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--prompt", ""], "error: the prompt is empty"),
        (["--prompt", "x" * 999], "error: the prompt has"),
        (["--size", "100"], "error: impossible vision: size=100"),
        (["--temperature", "-1"], "error: impossible sampling: temperature=-1"),
    ],
)
def test_describe_refuses_in_a_line(ondevice_, photo, args, said):
    status, out, err = ondevice_("describe", photo, *args)
    lines = [line for line in err.splitlines() if "licence" not in line]
    assert (status, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(said)


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(ondevice_, photo, monkeypatch):
    said = []
    module = importlib.import_module("mlx_lm.generate")  # mlx_lm.generate is a function
    real = module.stream_generate

    def interrupted(*args, **options):
        for i, response in enumerate(real(*args, **options)):
            if i == 5:
                raise KeyboardInterrupt
            said.append(response.text)
            yield response

    monkeypatch.setattr(module, "stream_generate", interrupted)
    status, out, err = ondevice_("describe", photo, "--size", "128")
    assert (status, out) == (130, "".join(said) + "\n")
    assert "".join(said)
    assert err.splitlines()[-1] == "interrupted"


def test_bench_vlm_shows_cost_against_tokens(ondevice_, photo):
    args = ("--size", "64", "--size", "256", "--repeat", "1")
    status, out, _ = ondevice_("bench-vlm", photo, *args)
    header, *rows = out.splitlines()
    assert status == 0
    assert "first token" in header
    assert [row.split()[:3] for row in rows] == [
        ["64", "1", "-"],
        ["256", "16", "-"],
        ["256", "4", "dct"],
        ["256", "4", "merge"],
    ]
    assert all("%" in row for row in rows[2:])

    status, out, _ = ondevice_("bench-vlm", *args, "--tokens", "9", "--method", "dct", "--json")
    costs = json.loads(out)["costs"]
    assert [c["vision"]["tokens"] for c in costs] == [None, None, 9]
    assert costs[1]["prompt_tokens"] - costs[2]["prompt_tokens"] == 7
    assert all(
        c["seconds"]["encode"] > 0 and c["seconds"]["time_to_first_token"] > 0 for c in costs
    )


@pytest.mark.parametrize("tokens", ["16", "0"])
def test_bench_vlm_refuses_what_reduces_nothing(ondevice_, photo, tokens):
    status, out, err = ondevice_("bench-vlm", photo, "--size", "256", "--tokens", tokens)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"--tokens {tokens} reduces nothing: these sizes make 16 at most" in err


def test_a_fastvlm_is_exported_as_apples_app_calls_it(vlm_folder, tmp_path, capsys):
    path = tmp_path / "encoder.mlpackage"
    assert run(["export", str(vlm_folder), "--size", "64", "--out", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == "image_features"


def test_apples_app_gets_float32_arrays_both_ways(vlm_folder, tmp_path, capsys):
    """FastVLM.swift: ``prediction(images:)`` of an array, ``image_features`` as Float."""
    path = tmp_path / "fastvithd.mlpackage"
    args = ("--input", "array", "--size", "128", "--out", str(path), "--json")
    assert run(["export", str(vlm_folder), *args]) == 0
    spec = load_package(path).saved.spec.description
    (given,), (result,) = spec.input, spec.output
    found = [(f.name, f.type.multiArrayType) for f in (given, result)]
    assert [(name, tuple(a.shape), a.dataType) for name, a in found] == [
        ("images", (1, 3, 128, 128), FLOAT32),
        ("image_features", (1, 4, 256), FLOAT32),
    ]
    assert given.shortDescription.endswith("as (pixels / 255 - [0, 0, 0]) / [1, 1, 1]")
    assert run(["verify", str(path), "--model", str(vlm_folder)]) == 0
    assert "passed" in capsys.readouterr().out


def test_encode_writes_all_tokens(ondevice_, photo, vlm, tmp_path):
    out = tmp_path / "tokens.safetensors"
    args = (photo, "nowhere.png", photo, "--tokens", "--out", str(out))
    status, said, err = ondevice_("encode", *args)
    assert (status, said) == (3, f"{out}: 2 x 256 tokens x {tiny.DIM}\n")
    assert "nowhere.png" in err
    arrays, metadata = read_safetensors(out)
    assert mx.array_equal(arrays["tokens"][1], vlm.encode_image(photo, vision=Vision()))
    assert bytes(arrays["paths"]).split(b"\0") == [photo.encode(), photo.encode(), b""]
    assert json.loads(metadata["ondevice.tokens"])["vision"]["size"] == 1024
    status, _, err = ondevice_("encode", *args)
    assert (status, f"{out} exists" in err) == (2, True)


def test_encode_takes_images_at_another_size(ondevice_, photo, vlm, tmp_path):
    out = tmp_path / "tokens.safetensors"
    args = (photo, "--tokens", "--size", "192", "--out", str(out))
    assert ondevice_("encode", *args)[:2] == (0, f"{out}: 1 x 9 tokens x {tiny.DIM}\n")
    arrays, _ = read_safetensors(out)
    assert mx.array_equal(arrays["tokens"][0], vlm.encode_image(photo, vision=Vision(size=192)))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--size", "192"], "--size goes with --tokens"),
        (["--tokens", "--size", "0"], "impossible vision: size=0"),
        (["--tokens", "--batch-size", "16"], "--batch-size does not go with --tokens"),
        (["--tokens", "--workers", "2"], "--workers does not go with --tokens"),
        (["--tokens", "--no-normalize"], "--no-normalize does not go with --tokens"),
    ],
)
def test_encode_refuses_options_that_do_not_apply(ondevice_, photo, tmp_path, args, said):
    status, _, err = ondevice_("encode", photo, "--out", str(tmp_path / "t.safetensors"), *args)
    assert (status, err.count("\n"), said in err) == (2, 1, True)


def test_tokens_are_written_as_they_come(vlm_folder, photo, tmp_path):
    """A thousand images take no more memory than one: on the disk before the next is read."""
    tower, vision = load_vision(vlm_folder, dtype=mx.bfloat16), Vision(size=64)
    sizes = []

    def paths():
        for _ in range(40):
            yield photo
            sizes.extend(path.stat().st_size for path in tmp_path.glob(".t.safetensors.*/*"))

    assert write_tokens(tower, paths(), tmp_path / "t.safetensors", vision=vision) == 40
    assert sizes[-1] > sizes[0]
    arrays, _ = read_safetensors(tmp_path / "t.safetensors")
    assert (arrays["tokens"].shape, arrays["tokens"].dtype) == ((40, 1, tiny.DIM), mx.bfloat16)
    assert mx.array_equal(arrays["tokens"][39], arrays["tokens"][0])


def test_tokens_may_be_the_encoders(vlm_folder, photo, vlm, tmp_path):
    out, vision = tmp_path / "t.safetensors", Vision(size=128, tokens=1)
    tower = load_vision(vlm_folder)
    assert write_tokens(tower, [photo], out, vision=vision, projected=False) == 1
    arrays, _ = read_safetensors(out)
    assert mx.array_equal(arrays["tokens"], vlm.encoder_tokens(photo, vision=vision))
    with pytest.raises(ConfigError, match=r"has to end with \.safetensors"):
        write_tokens(vlm.tower, [photo], tmp_path / "t.npz")
    with pytest.raises(ImageError, match=r"no\.png"):
        write_tokens(vlm.tower, ["no.png"], tmp_path / "u.safetensors")
    assert not (tmp_path / "u.safetensors").exists()


# --- from the hub's cache to a package


def test_from_the_hubs_cache_to_an_answer_and_a_package(vlm_folder, photo, tmp_path):
    files = {path.name: path.read_bytes() for path in vlm_folder.iterdir()}
    put(tmp_path / "home" / "hub", files, repo="apple/FastVLM-0.5B", commit=COMMIT)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}

    def command(*args):
        done = subprocess.run(
            [sys.executable, "-m", "ondevice", *args, "--json"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == done.stderr.count("apple-amlr")
        return json.loads(done.stdout)

    report = command("describe", photo, "--size", "128", "--max-tokens", "4")
    assert report["model"] == "apple/FastVLM-0.5B"
    assert report["results"][0]["timings"]["tokens"] == 4

    path = tmp_path / "encoder.mlpackage"
    wanted = (
        "--output",
        "image_features",
        "--output",
        "projected",
        "--size",
        "128",
        "--out",
        str(path),
    )
    report = command("export", "apple/FastVLM-0.5B", *wanted)
    assert (report["license"], report["outputs"]) == ("apple-amlr", "image_features, projected")
    check_package(path, vlm_folder, photo)
    gate = ("--gate", "psnr_db=55", "--no-baselines")
    assert command("verify", str(path), "--model", "apple/FastVLM-0.5B", *gate)["passed"]


def check_package(path, folder, photo):
    from converters.coreml.loaded import load_package
    from converters.verification.verify import verify

    package = load_package(path)
    shapes = {name: feature.shape for name, feature in package.outputs.items()}
    assert shapes == {"image_features": (1, 4, 256), "projected": (1, 4, tiny.DIM)}
    report = verify(load_vision(folder).exportable(), package, [photo])
    assert {c.output for c in report.comparisons} == shapes.keys()
    assert all(c.psnr_db > 55 and c.finite for c in report.comparisons)


def test_the_encoder_alone_has_no_projected_tokens(tmp_path):
    from converters.export import export
    from ondevice import create_model

    model = create_model("fastvithd", embed_dim=(8, 16, 32, 64, 128), depth=(1,) * 5)
    with pytest.raises(ConfigError, match="gives no projected; it gives embedding"):
        export(model, tmp_path / "x.mlpackage", outputs=("projected",), size=64)
