import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ondevice.cli import run
from ondevice.registry import list_models

ONDEVICE = [sys.executable, "-m", "ondevice"]


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def ondevice(capsys):
    """Run a command line: its exit status, stdout, and stderr."""

    def call(*args):
        status = run(args)
        return status, *capsys.readouterr()

    return call


def imported_by(code):
    """The modules that a fresh Python has imported at the end of ``code``."""
    code += "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return set(json.loads(done.stderr))


HEAVY = {"coremltools", "huggingface_hub", "PIL", "PIL.Image", "numpy", "torch", "converters"}


def test_importing_ondevice_imports_nothing_heavy():
    modules = imported_by("import ondevice")
    assert "mlx.core" in modules
    assert not HEAVY & modules


def test_list_imports_no_other_command_and_nothing_heavy():
    modules = imported_by("from ondevice.cli import run; run(['list'])")
    assert {m for m in modules if m.startswith("ondevice.cli.")} == {
        "ondevice.cli._output",
        "ondevice.cli.list_",
    }
    assert not HEAVY & modules


def test_list_is_a_table_of_every_model(ondevice):
    status, out, err = ondevice("list")
    header, *rows = out.splitlines()
    assert (status, err) == (0, "")
    assert header.split() == ["model", "params", "MACs", "px", "top-1", "licence", "weights"]
    assert {row.split()[0].partition(".")[0] for row in rows} == set(list_models())
    column = header.index("px") + 2  # numbers end where their title does
    assert {row[column - 1].isdigit() for row in rows} == {True}


@pytest.mark.parametrize(
    ("args", "names"),
    [
        (
            ["shvit_nano."],
            [
                "light_detr_shvit_nano.shapes",
                "light_fpn_shvit_nano.shapes",
                "shvit_nano.cifar10",
                "shvit_nano.flowers",
            ],
        ),
        (["t_nano.f"], ["shvit_nano.flowers"]),
        (["shvit_s[12]"], ["shvit_s1.in1k", "shvit_s2.in1k"]),
        (["shvit_*.flowers"], ["shvit_nano.flowers"]),
        (["_s4", "--family", "shvit"], ["shvit_s4.in1k"]),
        (["shvit_s3", "--license", "mit"], ["shvit_s3.in1k"]),
        (["shvit*in1k", "--max-params", "6.5m"], ["shvit_s1.in1k"]),
        (["efficientvit", "--max-macs", "101M"], ["efficientvit_m0.r224_in1k"]),
        (
            ["vit_", "--family", "shvit", "--best-under", "12M"],
            ["shvit_s2.in1k", "shvit_s1.in1k"],
        ),
        (["nano", "--best-under", "12M"], []),  # their accuracy is not ImageNet's
        (["shvit_s", "--size", "256"], ["shvit_s4.in1k"]),
    ],
)
def test_list_filters(ondevice, args, names):
    status, out, _ = ondevice("list", *args, "--json")
    assert status == 0
    assert [row["name"] for row in json.loads(out)] == names


def test_the_best_under_a_size_are_sorted_by_accuracy(ondevice):
    _, out, _ = ondevice("list", "--best-under", "5M", "--json")
    rows = json.loads(out)
    assert len(rows) > 10
    assert all(row["params"] <= 5e6 for row in rows)
    accuracy = [row["top1"] for row in rows]
    assert accuracy == sorted(accuracy, reverse=True)


def test_list_as_json_has_what_the_checkpoint_says(ondevice):
    _, out, _ = ondevice("list", "nano.cifar10", "--json")
    (row,) = json.loads(out)
    assert (row["size"], row["top1"], row["license"], row["weights"]) == (
        96,
        82.28,
        "mit",
        "shipped",
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["list", "shvid_s1"], "no model matches 'shvid_s1'; the nearest are shvit_s1"),
        (["list", "--family", "resnet"], "No family 'resnet'; there are: "),
        (["list", "--max-params", "much"], "'much' is not a number such as 800K, 5M or 1.2G"),
        (["list", "--license", "gpl"], "No licence 'gpl'; there are: "),
        (["list", "--size", "100"], "No size 100; there are: 32, 96, "),
        (["list", "--best-under", "-1"], "'-1' is not a number such as 800K, 5M or 1.2G"),
        (["show", "shvit_s9"], "no model 'shvit_s9'; did you mean shvit_s"),
        (["show", "shvit_s1.in22k"], "shvit_s1.in1k"),
        (["show", "no/such/folder"], "has no config.json"),
        (["classify", "--model", "shvid_s4", "x.jpg"], "did you mean shvit_s4"),
        (["classify"], "Missing argument 'IMAGE|FOLDER...'. See `ondevice classify --help`."),
        (["classify", "x.jpg", "--top-k", "0"], "--top-k"),
        (["lists"], "No such command 'lists'"),
        (["list", "--jsn"], "No such option"),
        (["--wrong"], "See `ondevice --help`."),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(ondevice, args, said):
    status, out, err = ondevice(*args)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_a_package_in_place_of_a_model_is_said_to_be_one(ondevice, tmp_path):
    package = tmp_path / "Nano.mlpackage"
    package.mkdir()
    status, _, err = ondevice("classify", "x.jpg", "--model", package)
    assert status == 2
    assert f"{package} is a package, and a model is expected" in err


def test_without_a_command_the_commands_are_listed(ondevice):
    status, out, err = ondevice()
    assert (status, err) == (0, "")
    for name in ("list", "show", "classify"):
        assert f"\n  {name} " in out


def test_show_tells_the_first_weights_of_an_untagged_model(ondevice):
    assert ondevice("show", "shvit_nano") == ondevice("show", "shvit_nano.cifar10")
    _, out, _ = ondevice("show", "shvit_nano", "--json")
    facts = json.loads(out)
    assert facts["name"] == "shvit_nano.cifar10"
    assert facts["labels"][3] == "cat"
    assert facts["preprocess"]["source_size"] == 32
    assert facts["metrics"]["top1"] == 82.28


@pytest.mark.parametrize("name", list_models())
def test_show_works_for_every_model_without_a_download(ondevice, name):
    status, out, err = ondevice("show", name, "--json")
    assert (status, err) == (0, "")
    facts = json.loads(out)
    assert facts["params"] > 100_000
    assert facts["features"][-1]["channels"] > 0


def test_show_counts_parameters_as_torch_does(ondevice):
    _, out, _ = ondevice("show", "shvit_s1", "--json")
    assert json.loads(out)["params"] == 6_330_808  # timm.create_model("shvit_s1")


def test_show_reads_a_saved_folder(ondevice, tmp_path):
    import ondevice as api

    model = api.create_model("shvit_nano", num_classes=3)
    api.save_model(model, tmp_path / "mine")
    _, out, _ = ondevice("show", str(tmp_path / "mine"), "--json")
    assert json.loads(out)["config"]["num_classes"] == 3


def test_classify_prints_the_likeliest_classes(ondevice, photo):
    status, out, err = ondevice("classify", photo, "--top-k", "3")
    header, *rows = out.splitlines()
    assert (status, err) == (0, "")
    assert header.split() == ["image", "score", "label"]
    assert len(rows) == 3
    assert rows[0].startswith(photo)
    scores = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_classify_as_json_is_one_object(ondevice, photo):
    status, out, _ = ondevice(
        "classify", photo, photo, "--model", "shvit_nano.flowers", "--json"
    )
    found = json.loads(out)
    assert (status, found["model"]) == (0, "shvit_nano.flowers")
    assert [result["image"] for result in found["results"]] == [photo, photo]
    best = found["results"][0]["predictions"]
    assert len(best) == 5  # all it has
    assert sum(p["score"] for p in best) == pytest.approx(1, abs=1e-6)
    assert {p["label"] for p in best} == {
        "daisy",
        "dandelion",
        "roses",
        "sunflowers",
        "tulips",
    }


def test_bad_images_are_named_and_the_good_ones_classified(ondevice, photo, tmp_path):
    (tmp_path / "empty.jpg").touch()
    Image.new("RGB", (60_000, 1)).save(tmp_path / "thread.png")
    names = ("empty.jpg", "missing.jpg", "thread.png")
    bad = [str(tmp_path / name) for name in names]
    status, out, err = ondevice(
        "classify", bad[0], photo, *bad[1:], "--json", "--model", "shvit_nano.flowers"
    )
    assert status == 3
    assert [result["image"] for result in json.loads(out)["results"]] == [photo]
    *lines, count = err.splitlines()
    assert [line.split()[:2] for line in lines] == [["skipped:", path] for path in bad]
    assert count == "3 of 4 files skipped"


def test_an_untagged_model_comes_with_its_first_weights(ondevice, photo):
    tagged = ondevice("classify", photo, "--model", "shvit_nano.cifar10", "--json")
    assert ondevice("classify", photo, "--model", "shvit_nano", "--json") == tagged


def failing_with(error):
    def fail(*args):
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: out of memory"),
        (OSError(28, "No space left on device", "x"), 2, "error: No space left on device: x"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: Permission denied: x"),
    ],
)
def test_what_no_command_can_help_is_one_line(monkeypatch, capfd, error, status, said):
    monkeypatch.setattr("ondevice.cli.list_.list_models", failing_with(error))
    saved = os.dup(1)
    try:
        assert run(["list"]) == status
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    err = capfd.readouterr().err.strip()
    assert err.startswith(said)
    assert "\n" not in err


@pytest.mark.parametrize("error", [ZeroDivisionError(), FileNotFoundError(2, "none", "x")])
def test_a_bug_keeps_its_traceback(monkeypatch, error):
    monkeypatch.setattr("ondevice.cli.list_.list_models", failing_with(error))
    with pytest.raises(type(error)):
        run(["list"])


@pytest.mark.parametrize("name", ["ondevice", "converters"])
def test_warnings_of_ours_are_one_line_on_stderr(ondevice, capsys, name):
    ondevice("list")
    logging.getLogger(f"{name}.part").warning("it is %s", "slow")
    assert capsys.readouterr() == ("", "warning: it is slow\n")


@pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["--help"]])
def test_a_reader_that_goes_is_no_error(args):
    process = subprocess.Popen(
        [*ONDEVICE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()  # as `| head` does when it has enough
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*ONDEVICE, "list"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"error: No space left on device: standard output\n"


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("davit_tiny", "any size"),
        ("shvit_s4", "any multiple of 16"),
        ("swin_s3_tiny_224", "this size only"),
    ],
)
def test_show_says_which_sizes_are_taken(model, sizes, capsys):
    assert run(["show", model]) == 0
    assert f"px; {sizes}" in capsys.readouterr().out


def test_a_place_where_nothing_may_be_written_is_said_first(ondevice_, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    out = tmp_path / "new" / "x.mlpackage"
    status, _, said = ondevice_("export", "shvit_nano.cifar10", "--out", out)
    assert status == 2
    assert said == (f"error: cannot write {out}: nothing may be written to {tmp_path}\n")


def test_a_folder_is_classified(ondevice_, tmp_path):
    for name in ("b.png", "a.png"):
        Image.new("RGB", (40, 40), "blue").save(tmp_path / name)
    found = json.loads(ondevice_("classify", tmp_path, "--json")[1])["results"]
    assert [Path(row["image"]).name for row in found] == ["a.png", "b.png"]
