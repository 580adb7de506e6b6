"""Models go to a folder and come back the same, or not at all and with every reason."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, fuse, load_model, load_weights, quantize, save_model
from ondevice.errors import ConfigError, OutputError, UnknownModelError, WeightsError
from ondevice.weights import fit, folder as weights
from ondevice.weights.folder import model_info
from ondevice.weights.hash import weights_hash
from ondevice.weights.safetensors import read_safetensors

from ... import ROOT
from ...support.interrupts import AS_IN_THE_FOREGROUND

NAME = "shvit_nano.cifar10"


@pytest.fixture(scope="module")
def model():
    return create_model(NAME)


@pytest.fixture
def folder(model, tmp_path):
    return save_model(model, tmp_path / "saved")


@pytest.fixture
def x():
    return mx.random.normal((1, 64, 64, 3), key=mx.random.key(0))


def arrays_of(model):
    return dict(tree_flatten(model.parameters()))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- there and back


@pytest.mark.parametrize("name", ["shvit_nano.cifar10", "shvit_nano.flowers"])
def test_models_that_ship_say_what_they_are_and_compute_in_float32(name):
    model = create_model(name)
    assert {a.dtype for a in arrays_of(model).values()} == {mx.float32}
    assert model(mx.zeros((1, 64, 64, 3))).shape == (1, len(model.info.labels))
    assert model.info.name == name
    assert model.info.license == "mit"
    assert model.info.metrics["top1"] > 80
    assert "Trained" in model.info.provenance


def test_the_weights_that_ship_are_float16():
    path = weights.SHIPPED / NAME / "model.safetensors"
    assert {a.dtype for a in read_safetensors(path)[0].values()} == {mx.float16}


def test_a_saved_model_comes_back_with_all_it_knows(model, folder, x):
    again = create_model(str(folder))
    assert mx.array_equal(again(x), model(x))
    assert again.info == model.info


def test_equal_models_are_equal_files(model, folder, tmp_path):
    other = save_model(create_model(NAME), tmp_path / "other")
    for file in ("config.json", "model.safetensors"):
        assert (other / file).read_bytes() == (folder / file).read_bytes()


def test_half_precision_files_are_half_as_large_and_nearly_equal(model, folder, tmp_path, x):
    half = save_model(model, tmp_path / "half", dtype=mx.float16)
    sizes = [(f / "model.safetensors").stat().st_size for f in (half, folder)]
    assert 0.5 <= sizes[0] / sizes[1] < 0.52
    assert mx.allclose(load_model(half)(x), model(x), atol=1e-2)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_the_caller_chooses_the_type_to_compute_in(dtype, x):
    model = create_model(NAME, dtype=dtype)
    assert {a.dtype for a in arrays_of(model).values()} == {dtype}
    assert model(x.astype(dtype)).dtype == dtype


def test_values_beyond_float16_are_neither_saved_nor_loaded_as_such(tmp_path):
    model = create_model("shvit_nano")
    model.head.linear.bias = mx.full(10, 1e6)
    large = r"head\.linear\.bias has values too large for mlx\.core\.float16"
    with pytest.raises(WeightsError, match=large):
        save_model(model, tmp_path / "half", dtype=mx.float16)
    assert os.listdir(tmp_path) == []
    save_model(model, tmp_path / "full")
    with pytest.raises(WeightsError, match=large):
        load_model(tmp_path / "full", dtype=mx.float16)


def test_what_a_model_is_can_be_known_without_building_it(folder, model, monkeypatch):
    monkeypatch.setattr(fit, "build", None)
    monkeypatch.setattr(weights, "build", None)
    assert model_info(NAME) == model.info
    assert model_info(str(folder)) == model.info
    assert model_info("shvit_s1.in1k").top1 == 72.78


def test_weights_may_be_a_dict_in_torch_layout(model, x):
    given = {
        k: a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for k, a in arrays_of(model).items()
    }
    given["head.bn.num_batches_tracked"] = mx.array(3)
    assert mx.array_equal(create_model("shvit_nano", weights=given)(x), model(x))


# --- weights that do not fit


def test_every_problem_is_named_at_once(model):
    given = {k: a for k, a in arrays_of(model).items() if not k.startswith("head.bn.")}
    given["extra.weight"] = mx.zeros(3)
    given["head.linear.bias"] = mx.zeros(7)
    given["head.linear.weight"] = mx.full((10, 160), float("nan"))
    given["patch_embed.0.bn.bias"] = mx.zeros(8, mx.int32)
    given["patch_embed.0.bn.weight"] = mx.full(8, float("inf"))
    before = arrays_of(model)["head.linear.bias"]
    with pytest.raises(WeightsError) as caught:
        load_weights(model, given, mlx_layout=True)
    for problem in (
        "missing 4: head.bn.bias, head.bn.running_mean, head.bn.running_var, head.bn.weight",
        "unexpected 1: extra.weight",
        "head.linear.bias has shape (7,), expected (10,)",
        "head.linear.weight has NaN or infinite values",
        "patch_embed.0.bn.bias has type mlx.core.int32",
        "patch_embed.0.bn.weight has NaN or infinite values",
    ):
        assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert mx.array_equal(arrays_of(model)["head.linear.bias"], before)


def test_two_weights_for_one_place_are_refused(model):
    given = {**arrays_of(model), "patch_embed.0.c.weight": mx.zeros((8, 3, 3, 3))}
    with pytest.raises(WeightsError, match=r"two .* are shvit_nano's patch_embed\.0\.conv"):
        create_model("shvit_nano", weights=given)


def test_a_truncated_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="the file is truncated"):
        create_model(str(folder))


def test_a_folder_of_another_model_is_refused(folder):
    with pytest.raises(ConfigError, match=r"holds shvit_nano\.cifar10, not shvit_s1"):
        create_model("shvit_s1", weights=folder)


# --- configs that say something impossible


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labelz": []}, r"no field 'labelz' \(did you mean 'labels'\?\)"),
        ({"config": {"embed_dims": [1]}}, r"'embed_dims' \(did you mean 'embed_dim'\?\)"),
        ({"config": {"depth": "2"}}, "depth is '2', expected tuple"),
        ({"config": {"depth": [1], "num_classes": "x"}}, "num_classes is 'x', expected int"),
        ({"config": [1]}, "SHViTConfig is a list, expected a table"),
        ({"config": {}}, "missing 3 required"),
        ({"preprocess": {"size": "96"}}, "size is '96', expected int"),
        ({"preprocess": {"size": True}}, "size is True, expected int"),
        ({"preprocess": {"size": 0}}, "impossible preprocessing: size=0"),
        ({"preprocess": {"crop_mode": "left"}}, "crop_mode is 'left', expected CropMode"),
        ({"preprocess": {"mean": [1, 2]}}, "mean is"),
        ({"labels": "cat"}, "labels is 'cat', expected tuple"),
        ({"top1": "high"}, "top1 is 'high', expected float"),
        ({"model": "shvit_x"}, "no model 'shvit_x'; did you mean"),
        ({"model": 3}, "names no model"),
    ],
)
def test_a_config_that_is_wrong_is_refused_in_one_line(changes, said, folder):
    edit_config(folder, **changes)
    with pytest.raises(ConfigError, match=said) as caught:
        create_model(str(folder))
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model": ' + "[" * 10**5, "\xff"])
def test_a_config_that_is_no_config_is_refused(text, folder):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json cannot be used"):
        create_model(str(folder))


def test_a_config_without_a_contract_does_not_get_imagenets(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    del values["preprocess"]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"does not say how .* are prepared"):
        create_model(str(folder))


def test_depths_that_do_not_agree_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())["config"]
    edit_config(folder, config={**config, "depth": [2, 3]})
    with pytest.raises(ConfigError, match="cannot be built as configured"):
        create_model(str(folder))


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(ConfigError, match="is no saved model"):
        create_model(str(tmp_path))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UnknownModelError, match="did you mean shvit_nano"):
        create_model("shvit_nanno")


# --- writing whole, or not at all


def test_what_exists_is_replaced_only_when_told(model, folder):
    with pytest.raises(OutputError, match="exists; use --force"):
        save_model(model, folder)
    model.info = replace(model.info, provenance="second")
    save_model(model, folder, force=True)
    assert load_model(folder).info.provenance == "second"
    assert os.listdir(folder.parent) == ["saved"]


def test_a_folder_of_something_else_is_never_replaced(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(OutputError, match="a folder of something else"):
        save_model(model, tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left"), OutputError),
        (KeyboardInterrupt("No space left"), KeyboardInterrupt),
    ],
)
def test_a_save_that_fails_half_way_leaves_all_as_it_was(
    error, seen, force, model, folder, monkeypatch
):
    def fail(path, arrays, metadata):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(weights, "write_safetensors", fail)
    out = folder if force else folder.with_name("new")
    with pytest.raises(seen, match="No space left"):
        save_model(model, out, force=force)
    assert os.listdir(folder.parent) == ["saved"]
    assert load_model(folder).info == model.info


def test_a_swap_that_fails_puts_the_old_back(model, folder, monkeypatch):
    rename = Path.rename

    def fail_on_the_new(self, target):
        if target == folder and self.name == folder.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new)
    with pytest.raises(OutputError, match="Input/output error"):
        save_model(model, folder, force=True)
    monkeypatch.undo()
    assert load_model(folder).info == model.info


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_one_line(model, tmp_path, monkeypatch):
    def link_to_full(path, *args, write=weights.write_safetensors):
        path.symlink_to("/dev/full")
        write(path, *args)

    monkeypatch.setattr(weights, "write_safetensors", link_to_full)
    with pytest.raises(OutputError, match=r"cannot write .*: No space left on device"):
        save_model(model, tmp_path / "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["file/x", "file/y/x", "x" * 300])
def test_a_place_that_cannot_be_written_is_one_line(place, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_model(model, tmp_path / place)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_without_permission_is_one_line(model, tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)  # root, who may run this, is never refused
    with pytest.raises(OutputError, match=r"cannot write .*x: Permission denied"):
        save_model(model, tmp_path / "x")


def test_an_interrupted_process_leaves_nothing(tmp_path):
    code = (
        "import time, ondevice, ondevice.weights.folder as w\n"
        "def slow(path, *args):\n"
        "    path.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
        "w.write_safetensors = slow\n"
        f"ondevice.save_model(ondevice.create_model('shvit_nano'), {str(tmp_path / 'x')!r})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", AS_IN_THE_FOREGROUND + code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"writing\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    assert os.listdir(tmp_path) == []


def test_negative_variances_are_refused(folder):
    path = folder / "model.safetensors"
    arrays = {k: -v if k.endswith("running_var") else v for k, v in mx.load(str(path)).items()}
    mx.save_safetensors(str(path), arrays)
    with pytest.raises(WeightsError, match="running_var has negative values"):
        load_model(folder)


def test_a_hash_tells_names_shapes_and_values_apart_and_no_precision():
    def hashed(**arrays):
        module = nn.Module()
        for name, array in arrays.items():
            setattr(module, name, array)
        return weights_hash(module)

    w = mx.array([[1.5, -2.0], [0.25, 4.0]])
    assert hashed(w=w) == hashed(w=w.astype(mx.float16)) == hashed(w=w.astype(mx.bfloat16))
    others = {"v": w}, {"w": w.T}, {"w": w.reshape(4)}, {"w": w, "b": w}
    big = mx.array([2**24, 2**24 + 1], mx.uint32)  # the same as float32
    others += {"w": big}, {"w": big[::-1]}
    assert len({hashed(w=w), *(hashed(**other) for other in others)}) == 7


@pytest.mark.parametrize("dtype", [mx.int8, mx.uint32, mx.bool_, float, "float16"])
def test_weights_are_floats_of_mlx(tmp_path, dtype):
    model = create_model("shvit_nano.cifar10")
    for refused in (
        lambda: create_model("shvit_nano", dtype=dtype),
        lambda: create_model("shvit_nano.cifar10", dtype=dtype),
        lambda: save_model(model, tmp_path / "saved", dtype=dtype),
    ):
        with pytest.raises(ConfigError, match="dtype is a float type of MLX"):
            refused()
    assert not any(tmp_path.iterdir())


def with_another_head(model):
    model.head = nn.Linear(160, 10)
    return model


@pytest.mark.parametrize("change", [fuse, quantize, with_another_head])
def test_what_could_not_be_read_is_not_saved(tmp_path, change):
    model = change(create_model("shvit_nano.cifar10"))
    with pytest.raises(WeightsError, match=r"cannot be saved: .*missing \d+: head.*fused"):
        save_model(model, tmp_path / "saved")
    assert not any(tmp_path.iterdir())


def test_saving_draws_no_random_numbers(tmp_path):
    model = create_model("shvit_nano.cifar10")
    drawn = []
    for n in range(2):
        mx.random.seed(3)
        if n:
            save_model(model, tmp_path / "saved")
        drawn.append(mx.random.uniform().item())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("name", ["fastvit_t8", "mobilevitv2_050"])
def test_what_mlx_saved_is_read_as_it_was(tmp_path, name):
    """Of these every kernel would fit as torch's, too, turned."""
    model = create_model(name, num_classes=3)
    model.save_weights(str(tmp_path / "own.safetensors"))
    flat = dict(tree_flatten(model.parameters()))
    numpy = {key: np.array(value) for key, value in flat.items()}
    for given in (tmp_path / "own.safetensors", flat, numpy, model.parameters()):
        found = create_model(name, weights=given, num_classes=3)
        for key, value in tree_flatten(found.parameters()):
            assert mx.array_equal(value, flat[key]), key


@pytest.mark.parametrize("given", [3, [1], {"a": None}], ids=lambda v: type(v).__name__)
def test_weights_that_are_none(given):
    with pytest.raises(ConfigError, match="weights are a path or a dict of arrays by name"):
        create_model("shvit_nano", weights=given)


@pytest.mark.parametrize("given", ["name", "folder", "weights"])
def test_other_classes_have_a_new_head_on_the_same_body(given, tmp_path, caplog):
    """As timm's ``create_model(..., pretrained=True, num_classes=5)``."""
    whole = create_model("shvit_nano.cifar10")
    save_model(whole, tmp_path / "saved")
    name, weights = {
        "name": ("shvit_nano.cifar10", None),
        "folder": (tmp_path / "saved", None),
        "weights": ("shvit_nano", tmp_path / "saved" / "model.safetensors"),
    }[given]
    model = create_model(name, weights=weights, num_classes=5)
    x = mx.random.normal((1, 96, 96, 3))
    assert mx.array_equal(model.pooled(x), whole.pooled(x))
    assert model(x).shape == (1, 5)
    assert (model.info.labels, model.info.top1, model.info.metrics) == ((), None, {})
    assert "its head is new, of 5 classes" in caplog.text
    save_model(model, tmp_path / "other")
    assert mx.array_equal(create_model(tmp_path / "other")(x), model(x))
    bare = create_model(name, weights=weights, num_classes=0)
    assert mx.array_equal(bare(x), whole.pooled(x))


def test_of_a_saved_folder_only_the_classes_can_be_replaced(tmp_path):
    with pytest.raises(ConfigError, match="its own config; depth cannot change it"):
        create_model("shvit_nano.cifar10", num_classes=5, depth=(1, 1, 1))
