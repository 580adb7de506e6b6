"""What is read of a checkpoint of torch.save."""

import argparse
import tracemalloc
import warnings
from collections import OrderedDict, defaultdict
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from ondevice.errors import WeightsError
from ondevice.weights.checkpoint import read_checkpoint
from tests.support.hostile import CANARY
from tests.support.torchfiles import (
    FLOATS,
    archive,
    call,
    group,
    legacy,
    name,
    number,
    numbers,
    storage,
    table,
    tensor,
    text,
)

TOUCH = text(f"touch {CANARY}")
SYSTEM = call(name("os", "system"), TOUCH)
GOOD = table({"w": tensor()})


@pytest.mark.parametrize("form", [archive, legacy])
def test_a_tensor_is_read_where_it_lies(form, tmp_path):
    path = tmp_path / "x.pth"
    entries = {
        "whole": tensor(),
        "turned": tensor(shape=numbers(3, 2), strides=numbers(1, 3)),
        "column": tensor(offset=number(1), shape=numbers(2), strides=numbers(3)),
        "repeated": tensor(shape=numbers(4, 3), strides=numbers(0, 1)),
        "one": tensor(offset=number(5), shape=group(), strides=group()),
        "none": tensor(offset=number(6), shape=numbers(0, 3), strides=numbers(3, 1)),
    }
    path.write_bytes(form(table(entries)))
    found = {k: np.array(v).tolist() for k, v in read_checkpoint(path).items()}
    assert found == {
        "whole": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "column": [1, 4],
        "repeated": [[0, 1, 2]] * 4,
        "one": 5,
        "none": [],
    }


def test_the_oldest_files_have_views_of_storages(tmp_path):
    view = group(text("v"), number(2), number(3))
    store = storage(text("0"), "FloatStorage", 6, view)
    path = tmp_path / "x.pth"
    path.write_bytes(legacy(table({"w": tensor(store, number(1), numbers(2), numbers(1))})))
    assert read_checkpoint(path)["w"].tolist() == [3, 4]


@pytest.mark.parametrize("entry", ["model", "state_dict", "state_dict_ema", "model_ema"])
def test_weights_are_found_where_training_scripts_put_them(entry, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(archive(table({"epoch": number(3), entry: GOOD})))
    assert list(read_checkpoint(path)) == ["w"]


def test_of_several_weights_one_is_taken_and_named(tmp_path, caplog):
    path = tmp_path / "x.pth"
    average = table({"average": tensor()})
    path.write_bytes(archive(table({"model_ema": average, "model": GOOD, "optimizer": b"}"})))
    assert list(read_checkpoint(path)) == ["average"]
    assert "took 'model_ema'; there is also model" in caplog.text
    assert list(read_checkpoint(path, "model")) == ["w"]


def test_weights_asked_for_and_not_there_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(archive(table({"model": GOOD})))
    with pytest.raises(WeightsError, match="no tensors under teacher; its entries are model"):
        read_checkpoint(path, "teacher")


def test_what_wrappers_put_before_names_is_taken_off(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(
        archive(table({"module._orig_mod.a": tensor(), "module._orig_mod.b": tensor()}))
    )
    assert list(read_checkpoint(path)) == ["a", "b"]


@pytest.mark.parametrize("what", ["folder", "missing"])
def test_what_is_no_file_is_refused(what, tmp_path):
    path = tmp_path / "x.pth"
    if what == "folder":
        path.mkdir()
    with pytest.raises(WeightsError, match=r"folder or a device|No such file"):
        read_checkpoint(path)


def test_reading_some_weights_leaves_the_others_on_the_disk(tmp_path):
    """The optimizer's state is usually twice the model."""
    big = tensor(storage(text("1"), numel=2**24), shape=numbers(2**24), strides=numbers(1))
    path = tmp_path / "x.pth"
    path.write_bytes(
        archive(
            table({"model": GOOD, "optimizer": table({"state": big})}),
            {"0": FLOATS, "1": bytes(2**26)},
        )
    )
    before = mx.get_active_memory()
    tracemalloc.start()
    read_checkpoint(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert mx.get_active_memory() - before < 2**20


@pytest.mark.parity
@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read_with_the_same_numbers(zipped, protocol, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(4, 6)
    saved = OrderedDict(
        base=base,
        same=base,
        view=base[1:3, ::2],
        turned=base.t(),
        repeated=torch.ones(1).expand(50),
        conv=torch.nn.Parameter(torch.randn(8, 4, 3, 3)).to(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(torch.randn(3)),
        bfloat16=torch.randn(3).bfloat16(),
        float16=torch.randn(3).half(),
        float64=torch.randn(3).double(),
        int64=torch.tensor([-(2**62), 2**62]),
        uint16=torch.tensor([1, 65535], dtype=torch.uint16),
        bool=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        scalar=torch.tensor(7.5),
    )
    saved["parameter"].note = "an attribute of its own"
    beside = {
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3, out=Path("x"), sizes={1, 2}),
        "best": np.float64(0.5),
        "history": np.arange(3),
        "optimizer": torch.optim.AdamW([saved["parameter"]]).state_dict(),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "counts": defaultdict(list),
    }
    path = tmp_path / "x.pt"
    torch.save(
        {"model": saved, **beside},
        path,
        _use_new_zipfile_serialization=zipped,
        pickle_protocol=protocol,
    )
    found = read_checkpoint(path)
    assert list(found) == list(saved)
    for key, value in saved.items():
        wanted = value.detach()
        assert tuple(found[key].shape) == tuple(wanted.shape)
        wide = mx.int64 if key == "int64" else mx.float32
        wide_torch = torch.int64 if key == "int64" else torch.float32
        assert np.array_equal(np.array(found[key].astype(wide)), wanted.to(wide_torch).numpy())


@pytest.mark.parity
def test_a_model_saved_whole_by_torch_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"holds torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(path)


@pytest.mark.parity
def test_a_torch_program_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_checkpoint(path)
