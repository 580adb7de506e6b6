"""What training puts before names is taken off, in any order, from any kind of file."""

import datetime
import itertools
import pickle
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, list_models, model_spec
from ondevice.errors import WeightsError
from ondevice.tasks.import_weights import import_weights
from ondevice.weights.prefixes import unwrap
from ondevice.weights.safetensors import write_safetensors
from tests.support.torchfiles import (
    archive,
    legacy,
    nano,
    number,
    numbers,
    storage,
    table,
    tensor,
    text,
)

WRAPPERS = (
    "module",
    "_orig_mod",
    "model",
    "backbone",
    "student",
    "ema_model",
    "net",
    "encoder",
)
NANO = {k: mx.array(v) for k, v in nano().items()}
WANTED = create_model("shvit_nano", weights=NANO)


def with_prefix(prefix: str, arrays=None) -> dict[str, mx.array]:
    return {prefix + k: v for k, v in (NANO if arrays is None else arrays).items()}


def other(factor: float) -> dict[str, mx.array]:
    return {k: v * factor for k, v in NANO.items()}


def assert_same(model, wanted=WANTED) -> None:
    ours, theirs = (dict(tree_flatten(m.parameters())) for m in (model, wanted))
    assert all(mx.array_equal(ours[k], theirs[k]) for k in theirs)


def bfloat16(array: np.ndarray) -> np.ndarray:
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


KINDS = {  # torch's storage, and how its numbers are made of others
    "FloatStorage": lambda a: a.astype(np.float32),
    "DoubleStorage": lambda a: a.astype(np.float64),
    "HalfStorage": lambda a: a.astype(np.float16),
    "BFloat16Storage": bfloat16,
}


def torch_file(
    *sets,
    form=archive,
    around=lambda weights: {"state_dict": weights},
    kind="FloatStorage",
) -> bytes:
    """A file of torch.save with each set of arrays where ``around`` puts it."""
    tables, stored = [], {}
    for arrays in sets:
        entries = {}
        for name, array in arrays.items():
            given = KINDS[kind](np.array(array, order="C"))
            key = str(len(stored))
            stored[key] = given.tobytes()
            place = storage(text(key), kind, given.size)
            strides = numbers(*(n // given.itemsize for n in given.strides))
            entries[name] = tensor(place, number(0), numbers(*given.shape), strides)
        tables.append(table(entries))
    return form(table(around(*tables)), stored)


FIRST = next(iter(NANO.values()))
STATE = tensor(storage(numel=FIRST.size))  # a tensor beside the weights


def python(value) -> bytes:
    """A value as Python pickles it, to stand in a pickle made by hand."""
    return pickle.dumps(value, protocol=2)[2:-1]


class Settings:
    """An object of a class that whoever reads the file has not."""

    def __init__(self, **values):
        self.__dict__.update(values)


class Attributes(dict):
    """As Lightning's AttributeDict."""


class Evil:
    """A callback that runs code when it is unpickled as Python does."""

    def __reduce__(self):
        return Path.touch, (Path("canary"),)


# --- prefixes


PAIRS = [f"{a}.{b}." for a, b in itertools.permutations(WRAPPERS, 2)]


@pytest.mark.parametrize("prefix", [f"{w}." for w in WRAPPERS] + PAIRS)
def test_prefixes_are_taken_off_in_any_order(prefix):
    assert_same(create_model("shvit_nano", weights=with_prefix(prefix)))


def test_any_word_may_be_a_prefix():
    prefix = "lit.module.wrapped_v2.timm_model._orig_mod."
    assert_same(create_model("shvit_nano", weights=with_prefix(prefix)))


def test_a_part_that_was_compiled_alone_is_found():
    given = {k.replace("stages.", "stages._orig_mod.", 1): v for k, v in NANO.items()}
    assert_same(create_model("shvit_nano", weights=with_prefix("model.", given)))


@pytest.mark.parametrize("prefix", ["module.", "model._orig_mod.", "student.backbone."])
@pytest.mark.parametrize("kind", ["x.safetensors", "x.pth", "old.pth"])
def test_every_kind_of_file_is_read_alike(prefix, kind, tmp_path):
    path, given = tmp_path / kind, with_prefix(prefix)
    if path.suffix == ".safetensors":
        write_safetensors(path, given, {"format": "pt"})
    else:
        path.write_bytes(torch_file(given, form=legacy if kind == "old.pth" else archive))
    assert_same(import_weights(path, "shvit_nano", tmp_path / "out"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_number_is_read(kind, tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(torch_file(with_prefix("module."), kind=kind))
    types = {"HalfStorage": mx.float16}
    if kind == "BFloat16Storage":  # as numpy cut them, not rounded
        cut = {k: np.array(v).view(np.uint32) >> 16 << 16 for k, v in NANO.items()}
        wanted = {k: mx.array(v.view(np.float32)) for k, v in cut.items()}
    else:
        wanted = {k: v.astype(types.get(kind, mx.float32)) for k, v in NANO.items()}
    model = import_weights(path, "shvit_nano", tmp_path / "out")
    assert_same(model, create_model("shvit_nano", weights=wanted))


def test_what_training_counts_is_no_weight():
    given = with_prefix("module.") | {
        "n_averaged": mx.array(5),
        "module.total_ops": mx.array(1.0),
        "module.stages.0.blocks.0.total_params": mx.array(1.0),
        "module.head.bn.num_batches_tracked": mx.array(3),
    }
    assert_same(create_model("shvit_nano", weights=given))


def test_a_head_beside_its_backbone_is_found():
    given = {k if k.startswith("head.") else f"backbone.{k}": v for k, v in NANO.items()}
    assert_same(create_model("shvit_nano", weights=given))


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("student.", "teacher."),
        ("model.", "ema_model."),
        ("net.", "net_ema."),
        ("encoder.", "momentum_encoder."),
        ("", "teacher."),
        ("", "ema.module."),
    ],
)
def test_a_second_copy_is_left_out_and_named(taken, left, caplog):
    given = with_prefix(left, other(2)) | with_prefix(taken)
    assert_same(create_model("shvit_nano", weights=given))
    (record,) = caplog.records
    assert record.getMessage().endswith(f"left out {left.split('.')[0]} ({len(NANO)})")


def test_an_average_alone_is_taken():
    given = with_prefix("ema_model.") | {"step": mx.array(3), "initted": mx.array([True])}
    assert_same(create_model("shvit_nano", weights=given))


def test_what_lies_elsewhere_is_named(caplog):
    given = with_prefix("model.") | {"loss.center": mx.zeros(3), "fc.weight": mx.zeros((3, 3))}
    assert_same(create_model("shvit_nano", weights=given))
    assert "took the weights under 'model.'; left out loss (1), fc (1)" in caplog.text


def test_of_two_equal_sets_none_is_guessed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, with_prefix("a.", other(2)) | with_prefix("b."), {})
    with pytest.raises(
        WeightsError, match="several sets of weights: a, b; choose one by --entry"
    ):
        import_weights(path, "shvit_nano", tmp_path / "out")
    assert_same(import_weights(path, "shvit_nano", tmp_path / "out", entry="b"))


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_misfits_are_all_named(prefix):
    given = with_prefix(prefix)
    del given[f"{prefix}head.linear.bias"]
    given[f"{prefix}stages.0.extra"] = mx.zeros(3)
    with pytest.raises(WeightsError) as caught:
        create_model("shvit_nano", weights=given)
    assert "missing 1: head.linear.bias" in str(caught.value)
    assert "unexpected 1: stages.0.extra" in str(caught.value)


def test_two_arrays_for_one_place_are_refused():
    with pytest.raises(WeightsError, match="two of the given weights are head"):
        unwrap({"module.head.bias": mx.zeros(1), "head.bias": mx.zeros(1)})


def test_no_model_has_a_part_called_as_a_wrapper():
    for name in set(list_models()) - {"mobileclip2_s4", "fastvit_mci4"}:
        spec = model_spec(name)
        names = dict(tree_flatten(spec.build(spec.config).parameters()))
        assert list(unwrap(names)) == list(names)


def test_many_names_take_no_time():
    deep = {".".join("a" * 40) + f".{n}": mx.zeros(1) for n in range(5000)}
    with pytest.raises(WeightsError, match="missing 316"):
        create_model("shvit_nano", weights=deep)


# --- where a file of torch has them


@pytest.mark.parametrize(
    "place",
    [
        *("state_dict", "model", "model_ema", "state_dict_ema", "ema", "weights", "module"),
        *("model.state_dict", "ema.module", "checkpoint.model", "state_dict.model", "my_net"),
    ],
)
def test_weights_are_found_in_entries_of_entries(place, tmp_path):
    def around(weights):
        for key in reversed(place.split(".")[1:]):
            weights = table({"updates": number(3), key: weights})
        states = table({"state": table({"w": STATE, "v": STATE})})
        return {place.split(".")[0]: weights, "epoch": number(3), "optimizer": states}

    path = tmp_path / "x.pth"
    path.write_bytes(torch_file(NANO, around=around))
    assert_same(import_weights(path, "shvit_nano", tmp_path / "out"))


@pytest.mark.parametrize("averaged", ["model_ema", "state_dict_ema", "ema"])
def test_averaged_weights_are_taken_as_timm_does_and_named(averaged, tmp_path, caplog):
    def around(plain, average):
        return {"model": plain, "head": table({"w": STATE}), averaged: average}

    path = tmp_path / "x.pth"
    path.write_bytes(torch_file(NANO, other(2), around=around))
    doubled = create_model("shvit_nano", weights=other(2))
    assert_same(import_weights(path, "shvit_nano", tmp_path / "a"), doubled)
    (record,) = caplog.records
    said = f"took {averaged!r}; there is also model, which --entry would take"
    assert record.getMessage().endswith(said)
    assert_same(import_weights(path, "shvit_nano", tmp_path / "b", entry="model"))


def test_an_entry_may_be_how_names_begin(tmp_path):
    path = tmp_path / "x.pth"
    path.write_bytes(torch_file(with_prefix("net.") | with_prefix("ema.", other(2))))
    doubled = create_model("shvit_nano", weights=other(2))
    assert_same(import_weights(path, "shvit_nano", tmp_path / "a", entry="ema"), doubled)


def test_one_dict_in_itself_ten_thousand_times_takes_no_time(tmp_path):
    path = tmp_path / "x.pth"
    itself = b"}q\1(" + b"".join(text(f"model{i}") + b"h\1" for i in range(10_000)) + b"u"
    path.write_bytes(archive(itself))
    with pytest.raises(WeightsError, match="no tensors"):
        import_weights(path, "shvit_nano", tmp_path / "out")


def lightning(**beside) -> bytes:
    """A checkpoint of Lightning, whose model is called ``model`` there."""
    entries = {
        "epoch": number(3),
        "pytorch-lightning_version": text("2.4.0"),
        "hparams_name": text("kwargs"),
        **{key: python(value) for key, value in beside.items()},
    }
    around = lambda weights: {**entries, "state_dict": weights}  # noqa: E731
    return torch_file(with_prefix("model."), around=around)


@pytest.mark.parametrize(
    "value",
    [
        Attributes(lr=0.1),
        datetime.datetime(2024, 5, 1, 12, 30),
        datetime.timedelta(seconds=3),
        Path("runs") / "x",
        {(1, 2): "a", None: 1, 2.5: 2, True: 3, -1: 4, 2**70: 5, b"b": 6},
        {frozenset({1}): {1, 2}},
        Settings(a=1, b=Path("x"), when=datetime.date(2024, 5, 1)),
        [Settings(), {"deep": Settings()}],
        np.float64(0.5),
        np.arange(3),
        complex(1, 2),
        range(3),
        Evil(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_lies_beside_the_weights_is_not_made(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    path.write_bytes(lightning(hyper_parameters=value, callbacks={"x": value}))
    assert_same(import_weights(path, "shvit_nano", tmp_path / "out"))
    assert not Path("canary").exists()


def test_the_callback_would_have_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Evil()))
    assert Path("canary").exists()


def test_a_model_saved_whole_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(archive(table({"model": python(Settings()), "epoch": number(3)})))
    with pytest.raises(
        WeightsError,
        match=r"entries are model \(tests\.ondevice\.weights\.test_prefixes\.Settings",
    ):
        import_weights(path, "shvit_nano", tmp_path / "out")


def test_an_object_among_the_weights_is_refused_by_name(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(archive(table({"model": table({"w": tensor(), "v": python(Settings())})})))
    with pytest.raises(
        WeightsError,
        match=r"not tensors: v \(tests\.ondevice\.weights\.test_prefixes\.Settings\)",
    ):
        import_weights(path, "shvit_nano", tmp_path / "out")
