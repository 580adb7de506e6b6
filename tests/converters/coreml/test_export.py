"""A model of ours as a package: what is in it, and that it is right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from PIL import Image

from converters import export, load_package, verify
from ondevice import create_model, fuse
from ondevice.errors import ConfigError, GateError, OutputError
from ondevice.signature.samples import sample_images
from ondevice.weights.hash import weights_hash

from ...support.interrupts import AS_IN_THE_FOREGROUND

MOVING = {
    "reshape", "transpose", "split", "concat", "slice_by_index", "slice_by_size", "squeeze",
    "expand_dims", "pad", "gather", "tile", "stack",
}  # fmt: skip


@pytest.fixture(scope="module")
def nano():
    return create_model("shvit_nano.cifar10")


@pytest.fixture(scope="module")
def packages(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    return {
        precision: load_package(
            export(nano, folder / f"{precision}.mlpackage", precision=precision)
        )
        for precision in ("float32", "float16")
    }


def test_a_float32_package_gives_the_models_numbers(nano, packages):
    report = verify(nano, packages["float32"], sample_images(96))
    (logits,) = report.require().comparisons
    assert logits.relative_error <= 1e-5


def test_a_float16_package_stays_within_55_db(nano, packages):
    report = verify(nano, packages["float16"], sample_images(96))
    (logits,) = report.require().comparisons
    assert logits.psnr_db >= 55
    assert logits.top1_agreement == 1


def test_the_gate_can_fail(packages):
    other = create_model("shvit_nano", weights=None)
    report = verify(other, packages["float16"], sample_images(96))
    assert not report.passed
    assert report.notes == ("the package was made from other weights than this model has",)
    with pytest.raises(GateError, match="psnr_db"):
        report.require()


def test_nothing_is_left_that_only_moves_data_but_attention(packages):
    found = Counter(packages["float16"].operations)
    assert found["transpose"] == 0
    assert found["conv"] == 62
    assert found["layer_norm"] == found["split"] / 2 == 6
    assert sum(found[op] for op in MOVING) == 30  # 5 in each of 6 attention blocks
    assert sum(found.values()) == 173


def test_shvit_s4_takes_310_operations(tmp_path):
    model = create_model("shvit_s4")
    mx.eval(model.parameters())
    found = Counter(load_package(export(model, tmp_path / "s4.mlpackage")).operations)
    assert sum(found.values()) <= 310
    assert found["transpose"] == 0
    assert sum(found[op] for op in MOVING) / sum(found.values()) <= 0.22


def test_every_weight_is_found_by_its_path_in_the_saved_package(nano, packages):
    main = packages["float16"].program.functions["main"]
    stored = {op.outputs[0].name for op in main.operations if op.op_type == "const"}
    paths = [name for name, a in tree_flatten(fuse(nano).parameters()) if a.ndim > 1]
    assert len(paths) == 63
    assert {p.replace(".", "_") for p in paths} <= stored


def test_labels_scores_and_logits_come_out(packages):
    out = packages["float16"].predict({"image": sample_images(96)[0]})
    assert set(out) == {"classLabel", "classLabel_probs", "logits"}
    assert out["classLabel"] == max(out["classLabel_probs"], key=out["classLabel_probs"].get)
    half = 2**-11  # by which rounding to half precision moves a share of 1 at most
    assert sum(out["classLabel_probs"].values()) == pytest.approx(1, abs=half)


def test_a_photo_goes_through_the_embedded_contract(nano, packages):
    photo = Image.fromarray(np.tile(sample_images(96)[2], (3, 4, 1)))
    report = verify(nano, packages["float16"], [photo])
    assert report.passed
    assert packages["float16"].preprocess == nano.info.preprocess


def test_the_package_explains_itself(nano, packages):
    said = packages["float16"].metadata
    assert said["license"] == "mit"
    assert said["ondevice.model"] == "shvit_nano.cifar10"
    assert said["com.apple.coreml.model.preview.type"] == "imageClassifier"
    assert json.loads(said["ondevice.preprocess"])["source_size"] == 32
    assert json.loads(said["ondevice.versions"]).keys() >= {"mlx", "coremltools", "ondevice"}
    assert said["ondevice.weights_sha256"] == weights_hash(nano)  # as an index says it


def test_several_outputs_at_once(nano, tmp_path):
    outputs = ["features", "embedding", "tokens"]
    path = export(
        nano, tmp_path / "x.mlpackage", outputs=outputs, precision="float32", size=128
    )
    package = load_package(path)
    got = package.predict({"image": sample_images(128)[0]})
    assert [got[f"features_{i}"].shape for i in range(3)] == [
        (1, 64, 8, 8),
        (1, 112, 4, 4),
        (1, 160, 2, 2),
    ]
    assert got["tokens"].shape == (1, 4, 160)
    assert verify(nano, package, sample_images(128)).require().passed


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_other_targets(nano, tmp_path, target):
    package = load_package(export(nano, tmp_path / "x.mlpackage", target=target))
    assert package.saved.spec.specificationVersion == {"iOS16": 7, "iOS18": 9}[target]
    assert verify(nano, package, sample_images(96)[:1]).passed


def test_all_impossible_options_are_said_at_once(nano, tmp_path):
    with pytest.raises(ConfigError) as error:
        export(nano, tmp_path / "x.mlpackage", target="iOS9", precision="int1", gelu="x")
    for word in ("iOS9", "int1", "no gelu 'x'"):
        assert word in str(error.value)
    with pytest.raises(ConfigError, match=r"x\.zip does not end in \.mlpackage"):
        export(nano, tmp_path / "x.zip")
    with pytest.raises(ConfigError, match="no option flavour of Core ML; there are account"):
        export(nano, tmp_path / "x.mlpackage", flavour="sweet")
    with pytest.raises(ConfigError, match="gives no nonsense; it gives logits, embedding"):
        export(nano, tmp_path / "x.mlpackage", outputs=["nonsense"])


def test_a_folder_of_something_else_is_never_replaced(nano, tmp_path):
    precious = tmp_path / "photos.mlpackage"
    precious.mkdir()
    (precious / "cat.jpg").write_bytes(b"meow")
    with pytest.raises(OutputError, match="something else"):
        export(nano, precious, force=True)
    assert (precious / "cat.jpg").read_bytes() == b"meow"


def test_a_disk_that_fills_up_leaves_nothing(nano, tmp_path, monkeypatch):
    def full(package, path):
        path.mkdir()
        (path / "half").write_bytes(b"x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("converters.coreml.package.save", full)
    with pytest.raises(OutputError, match="No space left"):
        export(nano, tmp_path / "x.mlpackage")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_during_export_leaves_nothing(tmp_path):
    command = ["export", "shvit_nano.cifar10", "--out", str(tmp_path / "x.mlpackage")]
    code = (
        "import converters.coreml.package as p, time, sys\n"
        "def slow(*a):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "p.save = slow\n"
        "from ondevice.cli import run\n"
        f"sys.exit(run({command!r}))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", AS_IN_THE_FOREGROUND + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline().strip() == b"ready"
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"Traceback" not in stderr
    assert not list(tmp_path.iterdir())
