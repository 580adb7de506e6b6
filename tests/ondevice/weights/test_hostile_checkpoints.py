"""Checkpoints whose tensors, weights or archive are wrong, by accident or intent."""

import struct
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.hostile import CANARY, check, judge
from tests.support.torchfiles import (
    FALSE,
    FLOATS,
    NONE,
    archive,
    call,
    group,
    legacy,
    model,
    name,
    nano,
    number,
    numbers,
    pickled,
    storage,
    table,
    tensor,
    text,
    weights,
    zipped,
)

TOUCH = text(f"touch {CANARY}")
SYSTEM = call(name("os", "system"), TOUCH)
GOOD = table({"w": tensor()})


def changed(**changes: np.ndarray | None) -> bytes:
    """The weights that fit, but for these; None takes one away."""
    arrays = {**nano(), **{k.replace("__", "."): v for k, v in changes.items()}}
    return weights({k: v for k, v in arrays.items() if v is not None})


def edited(file: bytes, old: bytes, new: bytes, *, last: bool = False) -> bytes:
    """``file`` with one occurrence of ``old`` replaced."""
    assert old in file
    at = file.rindex(old) if last else file.index(old)
    return file[:at] + new + file[at + len(old) :]


def directory(file: bytes, entry: str, field: int, value: int) -> bytes:
    """``file`` with a 32-bit field of an entry in the zip's directory replaced."""
    raw = f"archive/{entry}".encode()
    at = file.rindex(raw) - 46 + field
    return file[:at] + struct.pack("<I", value) + file[at + 4 :]


Case = tuple[str, Callable[[], bytes]]  # what the message says; the file

TENSORS: dict[str, Case] = {
    "stride_0_to_4_GB": (
        "claims 4000000000 bytes",
        lambda: model(w=tensor(shape=numbers(10**9), strides=numbers(0))),
    ),
    "2000_views_of_a_megabyte": (
        "claims 2097152000 bytes",
        lambda: archive(
            table(
                {
                    f"w{i}": tensor(
                        storage(numel=2**18), shape=numbers(2**18), strides=numbers(1)
                    )
                    for i in range(2000)
                }
            ),
            {"0": bytes(2**20)},
        ),
    ),
    "storage_too_short": ("said to be in it", lambda: model(w=tensor(storage(numel=7)))),
    "storage_too_long": (
        "said to be in it",
        lambda: model(w=tensor(storage(numel=5), shape=numbers(5), strides=numbers(1))),
    ),
    "storage_of_2_to_60": (
        "other than a storage",
        lambda: model(w=tensor(storage(numel=2**60))),
    ),
    "storage_of_minus_1": ("other than a storage", lambda: model(w=tensor(storage(numel=-1)))),
    "storage_missing": ("not in the archive", lambda: model(w=tensor(storage(text("1"))))),
    "storage_by_path": (
        "no name of a storage",
        lambda: model(w=tensor(storage(text("../../../etc/passwd")))),
    ),
    "storage_by_number": ("no name of a storage", lambda: model(w=tensor(storage(number(0))))),
    "storage_of_two_sizes": (
        "two sizes or types",
        lambda: model(w=tensor(), v=tensor(storage(numel=5))),
    ),
    "storage_of_complex": (
        "torch.ComplexFloatStorage",
        lambda: model(w=tensor(storage(kind="ComplexFloatStorage"))),
    ),
    "storage_of_quantized": (
        "torch.QInt8Storage",
        lambda: model(w=tensor(storage(kind="QInt8Storage"))),
    ),
    "storage_of_another_kind": (
        "other than a storage",
        lambda: archive(
            group(text("file"), text("x"), text("0"), text("cpu"), number(1)) + b"Q"
        ),
    ),
    "storage_that_is_a_text": (
        "other than a storage",
        lambda: archive(text("/etc/passwd") + b"Q"),
    ),
    "tensor_leaves_its_storage": ("leaves", lambda: model(w=tensor(shape=numbers(3, 3)))),
    "tensor_offset_too_far": ("leaves", lambda: model(w=tensor(offset=number(1)))),
    "tensor_offset_negative": ("impossible", lambda: model(w=tensor(offset=number(-1)))),
    "tensor_stride_negative": ("impossible", lambda: model(w=tensor(strides=numbers(-3, 1)))),
    "tensor_shape_negative": ("impossible", lambda: model(w=tensor(shape=numbers(-2, 3)))),
    "tensor_shape_of_truths": (
        "impossible",
        lambda: model(w=tensor(shape=group(b"\x88", number(3)))),
    ),
    "tensor_shape_that_overflows": (
        "impossible",
        lambda: model(w=tensor(shape=numbers(2**32, 2**32))),
    ),
    "tensor_empty_and_huge": ("impossible", lambda: model(w=tensor(shape=numbers(0, 2**40)))),
    "tensor_stride_that_overflows": (
        "impossible",
        lambda: model(w=tensor(strides=numbers(2**63 - 1, 1))),
    ),
    "tensor_with_a_stride_too_few": (
        "number of axes",
        lambda: model(w=tensor(strides=numbers(1))),
    ),
    "tensor_of_1000_axes": (
        "number of axes",
        lambda: model(w=tensor(shape=numbers(*[1] * 1000), strides=numbers(*[1] * 1000))),
    ),
    "tensor_without_storage": ("malformed", lambda: model(w=tensor(store=NONE))),
    "tensor_of_no_type": (
        "storage of a known type",
        lambda: model(
            w=call(
                name("torch._utils", "_rebuild_tensor_v3"),
                *(storage(), number(0), numbers(6), numbers(1), FALSE, NONE, text("float32")),
            )
        ),
    ),
    "parameter_of_no_tensor": (
        "is no tensor",
        lambda: model(
            w=call(name("torch._utils", "_rebuild_parameter"), text("w"), FALSE, NONE)
        ),
    ),
    "no_weights": ("no tensors", lambda: archive(table({"epoch": number(3)}))),
    "only_a_tensor": ("holds a Tensor", lambda: archive(tensor())),
    "entry_that_is_no_tensor": ("not tensors: lr", lambda: model(w=tensor(), lr=number(1))),
    "weights_with_NaN": (
        "head.linear.bias has NaN or infinite",
        lambda: changed(head__linear__bias=np.full(10, np.nan, np.float32)),
    ),
    "weights_out_of_range": (
        "head.linear.bias has NaN or infinite",
        lambda: changed(head__linear__bias=np.full(10, 1e300)),
    ),
    "weights_of_integers": (
        "head.linear.bias has type mlx.core.int64",
        lambda: changed(head__linear__bias=np.zeros(10, np.int64)),
    ),
    "weights_missing_extra_misshapen": (
        "missing 1: head.linear.bias; unexpected 1: extra; head.linear.weight has shape (9, 1",
        lambda: changed(
            head__linear__bias=None,
            extra=np.zeros(3, np.float32),
            head__linear__weight=np.zeros((9, 160), np.float32),
        ),
    ),
}

FILES: dict[str, Case] = {
    "empty": ("it is empty", lambda: b""),
    "web_page": ("begins with", lambda: b"<!DOCTYPE html><title>404</title>"),
    "git_lfs_pointer": ("begins with", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    "zip_bomb": (
        "compressed",
        lambda: zipped(
            [("data.pkl", pickled(GOOD)), ("data/0", bytes(2**28))], zipfile.ZIP_DEFLATED
        ),
    ),
    "zip_encrypted": (
        "encrypted",
        lambda: directory(archive(GOOD), "data/0", 6, 0x00010014),
    ),
    "zip_entry_twice": (
        "in the archive twice",
        lambda: edited(
            zipped([("data.pkl", pickled(GOOD)), ("data/0", FLOATS), ("data/1", FLOATS)]),
            *(b"archive/data/1", b"archive/data/0"),
            last=True,
        ),
    ),
    "zip_with_two_pickles": (
        "2 data.pkl",
        lambda: zipped([("data.pkl", pickled(GOOD)), ("more/data.pkl", pickled(SYSTEM))]),
    ),
    "zip_without_pickle": ("0 data.pkl", lambda: zipped([("weights.npy", b"x")])),
    "zip_of_torchscript": (
        "TorchScript",
        lambda: zipped([("data.pkl", pickled(GOOD)), ("code/__torch__.py", b"print()")]),
    ),
    "zip_of_big_endian": (
        "byte order",
        lambda: zipped(
            [("data.pkl", pickled(GOOD)), ("byteorder", b"big"), ("data/0", FLOATS)]
        ),
    ),
    "zip_entry_of_4_GB": (
        "lies about its size",
        lambda: directory(
            directory(archive(GOOD), "data/0", 20, 2**32 - 2), "data/0", 24, 2**32 - 2
        ),
    ),
    "zip_entry_of_two_sizes": (
        "lies about its size",
        lambda: directory(archive(GOOD), "data/0", 24, 4000),
    ),
    "zip_entry_elsewhere": (
        "not where the archive says",
        lambda: directory(archive(GOOD), "data/0", 42, 11),
    ),
    "zip_directory_of_4_GB": (
        "directory",
        lambda: archive(GOOD)[:-10] + struct.pack("<IIH", 2**32 - 2, 0, 0),
    ),
    "zip_directory_64_bit_that_is_not_there": (
        "directory",
        lambda: archive(GOOD)[:-10] + struct.pack("<IIH", 2**32 - 1, 0, 0),
    ),
    "zip_with_data_after_it": ("truncated", lambda: archive(GOOD) + b"more"),
    "zip_with_a_comment": ("truncated", lambda: zipped([("data.pkl", b"")], comment=b"hello")),
    "zip_half": ("truncated", lambda: archive(GOOD)[: len(archive(GOOD)) // 2]),
    "zip_but_for_a_byte": ("truncated", lambda: archive(GOOD)[:-1]),
    "zip_of_4_bytes": ("truncated", lambda: b"PK\3\4"),
    "legacy_truncated": ("truncated", lambda: legacy(GOOD)[:-1]),
    "legacy_without_storages": ("truncated", lambda: legacy(GOOD)[: -8 - len(FLOATS)]),
    "legacy_count_lies": ("lies about its size", lambda: legacy(GOOD, counts={"0": 2**40})),
    "legacy_count_negative": ("lies about its size", lambda: legacy(GOOD, counts={"0": -1})),
    "legacy_storage_of_a_terabyte": (
        "truncated",
        lambda: legacy(table({"w": tensor(storage(numel=2**38))}), counts={"0": 2**38}),
    ),
    "legacy_of_big_endian": ("byte order", lambda: legacy(GOOD, little=FALSE)),
    "legacy_of_another_version": ("version", lambda: legacy(GOOD, version=1002)),
    "legacy_list_of_others": (
        "not that of its tensors",
        lambda: legacy(GOOD, keys=b"]X\1\0\0\x001a"),
    ),
    "legacy_list_missing": ("list of storages is missing", lambda: legacy(GOOD, keys=NONE)),
    "legacy_view_leaves_its_storage": (
        "leaves it",
        lambda: legacy(
            table(
                {
                    "w": tensor(
                        storage(
                            text("0"), "FloatStorage", 6, group(text("1"), number(4), number(3))
                        )
                    )
                }
            )
        ),
    ),
    "legacy_that_calls": ("os.system", lambda: legacy(SYSTEM)),
    "legacy_that_calls_at_the_end": ("os.system", lambda: legacy(GOOD, keys=SYSTEM)),
}

CASES = {**TENSORS, **FILES}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    files = {case: make for case, (_, make) in CASES.items()}
    return judge(files, ".pth", tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", CASES)
def test_hostile_checkpoints_are_refused_in_one_line_and_do_nothing(case, verdicts):
    check(verdicts[case], CASES[case][0])
