"""What stands for a model: our names, the hub's, and repositories of anybody."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, list_models, load, model_spec
from ondevice.errors import ConfigError, UnknownModelError
from ondevice.registry import parse_name, registered_name
from ondevice.tasks.vlm.load import find_folder, is_vlm
from ondevice.weights.fit import rename
from ondevice.weights.folder import is_folder, model_info
from ondevice.weights.safetensors import write_safetensors

from ... import ROOT
from .test_hub import COMMIT, put

SPELLINGS = (
    "{}",
    "hf_hub:{}",
    "hf-hub:{}",
    "https://huggingface.co/{}",
    "huggingface.co/{}/",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("timm/shvit_s1.in1k", "shvit_s1.in1k"),
        ("timm/efficientvit_m5.r224_in1k", "efficientvit_m5.r224_in1k"),
        ("timm/fastvit_sa12.apple_dist_in1k", "fastvit_sa12.apple_dist_in1k"),
        ("apple/mobileclip_s0_timm", "fastvit_mci0.apple_mclip"),
        ("timm/fastvit_mci0.apple_mclip", "fastvit_mci0.apple_mclip"),
        ("apple/MobileCLIP-S1-OpenCLIP", "mobileclip_s1.datacompdr"),
    ],
)
def test_the_hubs_name_of_published_weights_is_ours(repo, name, spelling):
    said = spelling.format(repo)
    assert registered_name(said) == name
    assert model_info(said) == model_info(name)
    assert not is_folder(said)
    assert not is_vlm(said)


def test_every_repository_means_weights_from_it():
    for name in list_models():
        for checkpoint in model_spec(name).checkpoints:
            if checkpoint.repo:
                spec, tag = parse_name(f"hf-hub:{checkpoint.repo}")
                assert spec.checkpoint(tag).repo == checkpoint.repo


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm" / "shvit_s1.in1k").mkdir(parents=True)
    assert is_folder("timm/shvit_s1.in1k")
    assert not is_folder("hf-hub:timm/shvit_s1.in1k")


@pytest.mark.parametrize("name", ["apple/FastVLM-0.5B", "hf-hub:apple/FastVLM-7B"])
def test_a_fastvlm_is_one(name):
    assert is_vlm(name)


@pytest.mark.parametrize("name", ["timm/shvit_s1.in1k", "hf-hub:timm/shvit_s1.in1k", "a/b/c"])
def test_a_classifier_is_not_sought_as_a_fastvlm(name, caplog):
    with pytest.raises(ConfigError, match="is no FastVLM"):
        find_folder(name)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf-hub:timm/resnet50", "not listed here, and nothing is fetched"),
        ("hf-hub:x", "no model 'hf-hub:x'"),
        ("hf-hub:timm/shvit_s1.in1k@main", "no model"),
        ("timm/shvit_s1.nope", r"no weights shvit_s1\.nope; known: shvit_s1\.in1k"),
    ],
)
def test_what_is_not_there_is_refused(name, said):
    with pytest.raises(UnknownModelError, match=said):
        model_info(name)


def test_a_repository_without_the_word_for_it_is_explained():
    with pytest.raises(ConfigError, match="of the hub's it is hf-hub:me/tuned"):
        create_model("me/tuned")


def test_commands_take_the_hubs_names(ondevice_):
    for command in ("show", "list"):
        status, out, err = ondevice_(command, "timm/shvit_s1.in1k")
        assert (status, err) == (0, "")
        assert "shvit_s1.in1k" in out


@pytest.fixture
def hub(tmp_path):
    """A command line where only what is laid into its cache is to be had."""

    def run(*args):
        return subprocess.run(
            [sys.executable, "-m", "ondevice", *map(str, args)],
            env={
                **os.environ,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_OFFLINE": "1",
                "PYTHONPATH": str(ROOT),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("command", ["export", "encode"])
def test_published_weights_are_had_by_their_repository(command, hub, tmp_path):
    arrays = dict(tree_flatten(create_model("efficientvit_m0").parameters()))
    write_safetensors(tmp_path / "x", arrays, {"format": "mlx"})
    files = {"model.safetensors": (tmp_path / "x").read_bytes()}
    put(tmp_path / "home" / "hub", files, repo="timm/efficientvit_m0.r224_in1k")
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    name = "timm/efficientvit_m0.r224_in1k"
    args = {
        "export": (name, "--out", "x.mlpackage"),
        "encode": ("x.png", "--model", f"hf_hub:{name}", "--out", "x.npz"),
    }[command]
    done = hub(command, *args)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_fine_tune_that_timm_pushed_is_a_model(file, hub, tmp_path):
    from tests.ondevice.weights.test_prefixes import NANO, torch_file

    config = {
        "architecture": "shvit_nano",
        "num_classes": 10,
        "label_names": [f"class {n}" for n in range(10)],
        "pretrained_cfg": {"input_size": [3, 96, 96], "license": "cc-by-4.0"},
    }
    if file == "model.safetensors":
        write_safetensors(tmp_path / "x", NANO, {"format": "pt"})
    else:
        (tmp_path / "x").write_bytes(torch_file(NANO))
    files = {"config.json": json.dumps(config).encode(), file: (tmp_path / "x").read_bytes()}
    put(tmp_path / "home" / "hub", files, repo="me/tuned", commit=COMMIT)
    done = hub("export", "hf-hub:me/tuned", "--out", "x.mlpackage", "--json")
    assert done.stderr == ""
    assert json.loads(done.stdout)["license"] == "cc-by-4.0"
    plain = hub("export", "me/tuned", "--out", "y.mlpackage")
    assert plain.returncode == 2
    assert plain.stderr.count("\n") == 1
    assert "of the hub's it is hf-hub:me/tuned" in plain.stderr


def test_a_path_is_as_good_as_a_name():
    assert create_model(Path("shvit_nano")).info == create_model("shvit_nano").info
    assert model_info(Path("shvit_nano")) == model_info("shvit_nano")


@pytest.mark.parametrize("name", [None, 3])
@pytest.mark.parametrize("function", [create_model, load, model_info])
def test_what_is_no_name_is_an_unknown_model(function, name):
    with pytest.raises(UnknownModelError, match=r"^no model '"):
        function(name)


def test_our_own_names_are_read_as_they_are():
    """Or a saved folder could not be read: names may come from timm, and are then changed."""
    wrong = {}
    for name in list_models():
        spec = model_spec(name)
        own = dict(tree_flatten(spec.build(spec.config).parameters()))
        read = {key: array.shape for key, array in rename(own, spec).items()}
        if lost := [key for key, array in own.items() if read.get(key) != array.shape]:
            wrong[name] = lost[:3]
    assert not wrong


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "shvit_nano.cifar10"}, "comes from .*shvit_nano.cifar10"),
        ({"name": "shvit_nano"}, "has random ones"),
        ({"name": "shvit_nano", "weights": {}}, "comes from the given weights"),
    ],
)
def test_a_revision_of_what_is_not_on_the_hub_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        create_model(**options, revision="main")
