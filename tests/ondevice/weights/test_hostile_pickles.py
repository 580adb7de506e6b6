"""Pickles that would do harm, or are no pickles: refused, and nothing of them is run."""

import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hostile import CANARY, check, judge
from tests.support.torchfiles import (
    FALSE,
    NONE,
    archive,
    call,
    group,
    model,
    name,
    number,
    pickled,
    table,
    tensor,
    text,
    zipped,
)

TOUCH = text(f"touch {CANARY}")
SYSTEM = call(name("os", "system"), TOUCH)
GOOD = table({"w": tensor()})


def laughs(pixels: int) -> bytes:
    """A list of two lists of two lists …, each kept once."""
    twice = (bytes([i, ord("h"), i, ord("e"), ord("q"), i + 1]) for i in range(pixels))
    return b"]q\0" + b"".join(b"0](h" + step for step in twice)


Case = tuple[str, Callable[[], bytes]]  # what the message says; the file

CODE: dict[str, Case] = {
    "calls_os_system": ("os.system", lambda: archive(SYSTEM)),
    "calls_beside_good_weights": (
        "os.system",
        lambda: archive(table({"model": GOOD, "x": SYSTEM})),
    ),
    "calls_inside_the_weights": ("os.system", lambda: model(w=tensor(), x=SYSTEM)),
    "calls_twice_lists_both": (
        "builtins.eval, os.system",
        lambda: archive(group(SYSTEM, call(name("builtins", "eval"), TOUCH))),
    ),
    "calls_by_stack_global": (
        "posix.system",
        lambda: archive(text("posix") + text("system") + b"\x93" + group(TOUCH) + b"R"),
    ),
    "calls_by_inst": ("instruction INST", lambda: archive(b"(" + TOUCH + b"ios\nsystem\n")),
    "calls_by_obj": ("os.system", lambda: archive(b"(" + name("os", "system") + TOUCH + b"o")),
    "calls_by_newobj": (
        "subprocess.Popen",
        lambda: archive(name("subprocess", "Popen") + group(TOUCH) + b"\x81"),
    ),
    "calls_by_newobj_ex": (
        "subprocess.Popen",
        lambda: archive(name("subprocess", "Popen") + group(TOUCH) + b"}\x92"),
    ),
    "calls_by_setstate": (
        "canary_module.Thing",
        lambda: archive(name("canary_module", "Thing") + b")\x81" + table({}) + b"b"),
    ),
    "calls_by_extension": ("instruction EXT1", lambda: archive(b"\x82\x01" + b")R")),
    "calls_before_an_end_that_is_missing": (
        "os.system",
        lambda: zipped([("data.pkl", b"\x80\x02" + SYSTEM)]),
    ),
    "calls_a_text": ("not a function", lambda: archive(call(text("os.system"), TOUCH))),
    "calls_with_a_dict": ("not a function", lambda: archive(name("torch", "Size") + b"}R")),
    "imports_a_module": ("canary_module.x", lambda: archive(name("canary_module", "x"))),
    "imports_by_importlib": (
        "importlib.import_module",
        lambda: archive(call(name("importlib", "import_module"), text("canary_module"))),
    ),
    "gets_an_attribute": (
        "__builtin__.getattr",
        lambda: archive(call(name("__builtin__", "getattr"), text(""), text("join"))),
    ),
    "reaches_through_torch": (
        "torch.serialization.os.system",
        lambda: archive(call(name("torch.serialization", "os.system"), TOUCH)),
    ),
    "loads_through_numpy": (
        "numpy.load",
        lambda: archive(call(name("numpy", "load"), text("x.npy"), FALSE, b"\x88")),
    ),
    "whole_module_instead_of_weights": (
        "timm.models.shvit.SHViT",
        lambda: archive(name("timm.models.shvit", "SHViT") + b")\x81" + table({}) + b"b"),
    ),
    "tensor_made_by_a_stranger": (
        "os.system",
        lambda: model(
            w=call(
                name("torch._tensor", "_rebuild_from_type_v2"),
                *(name("os", "system"), name("torch", "Tensor"), group(TOUCH), NONE),
            )
        ),
    ),
    "tensor_made_by_data": (
        "made in an unknown way",
        lambda: model(
            w=call(
                name("torch._tensor", "_rebuild_from_type_v2"),
                *(name("torch", "Size"), name("torch", "Tensor"), group(group()), NONE),
            )
        ),
    ),
    "name_with_terminal_codes": ("\\x1b", lambda: archive(name("\x1b[31mred", "x"))),
    "plain_pickle_that_calls": ("os.system", lambda: pickled(SYSTEM)),
    "plain_pickle_of_python": (
        "begins with",
        lambda: pickle.dumps({"model": {"w": [1.0]}}, protocol=4),
    ),
}

SHAPE_OF_PICKLE: dict[str, Case] = {
    "tuples_a_million_deep": ("100 deep", lambda: archive(b")" + b"\x85" * 10**6)),
    "lists_900000_deep": ("100 deep", lambda: archive(b"]" * 900_000 + b"a" * 899_999)),
    "dicts_100000_deep": (
        "100 deep",
        lambda: archive(b"}" + (b"}X\1\0\0\0a") * 99_999 + b"N" + b"s" * 99_999),
    ),
    "deep_beside_good_weights": (
        "100 deep",
        lambda: archive(table({"model": GOOD, "x": b")" + b"\x85" * 10**6})),
    ),
    "marks_a_million_deep": ("malformed", lambda: archive(b"(" * 10**6)),
    "deep_tuple_as_key": (
        "the key of a dict",
        lambda: archive(b"}" + b")" + b"\x85" * 10**6 + b"Ns"),
    ),
    "list_in_itself": ("holds a list", lambda: archive(b"]q\0h\0a")),
    "dict_in_itself": ("no tensors", lambda: archive(b"}q\0X\5\0\0\0modelh\0s")),
    "billion_laughs": ("holds a list", lambda: archive(laughs(60))),
    "laughs_in_the_weights": ("not tensors: x", lambda: model(w=tensor(), x=laughs(60))),
    "memo_bomb": ("memo number", lambda: archive(b"Nr" + struct.pack("<I", 2**31))),
    "memo_number_of_4000_digits": ("memo number", lambda: archive(b"Np" + b"9" * 4000 + b"\n")),
    "memo_that_is_not_there": ("malformed", lambda: archive(b"h\5")),
    "three_million_steps": ("steps", lambda: archive(b"N0" * 1_500_000 + b"N")),
    "text_of_4_GB": ("malformed", lambda: archive(b"X" + struct.pack("<I", 2**32 - 1))),
    "text_of_2_to_62": (
        "malformed",
        lambda: archive(b"\x8d" + struct.pack("<Q", 2**62)),
    ),
    "bytes_of_2_to_64": ("malformed", lambda: archive(b"\x8e" + struct.pack("<Q", 2**64 - 1))),
    "bytearray_of_a_terabyte": (
        "malformed",
        lambda: archive(b"\x96" + struct.pack("<Q", 2**40)),
    ),
    "integer_of_2_GB": ("malformed", lambda: archive(b"\x8b" + struct.pack("<i", 2**31 - 1))),
    "integer_of_negative_length": ("malformed", lambda: archive(b"\x8b" + b"\xff" * 4)),
    "integer_of_5000_digits": ("malformed", lambda: archive(b"I" + b"9" * 5000 + b"\n")),
    "key_made_to_collide": (
        "the key of a dict",
        lambda: archive(b"}" + number(2**61 - 1) + b"Ns"),
    ),
    "key_twice": (
        "w appears twice",
        lambda: archive(b"}(" + (text("w") + tensor()) * 2 + b"u"),
    ),
    "stack_empty": ("malformed", lambda: archive(b"0" * 10)),
    "no_mark": ("malformed", lambda: archive(b"t")),
    "mark_above_the_stack": ("malformed", lambda: archive(b"NNN(000t")),
    "unknown_instruction": ("malformed", lambda: archive(b"\xff")),
    "no_end": ("malformed", lambda: zipped([("data.pkl", b"\x80\x02}")])),
    "empty_pickle": ("malformed", lambda: zipped([("data.pkl", b"")])),
}

CASES = {**CODE, **SHAPE_OF_PICKLE}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    files = {case: make for case, (_, make) in CASES.items()}
    return judge(files, ".pth", tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", CASES)
def test_hostile_checkpoints_are_refused_in_one_line_and_do_nothing(case, verdicts):
    check(verdicts[case], CASES[case][0])


def test_the_canary_would_be_seen(tmp_path, monkeypatch):
    """The pickles above do harm where they are run: else they would prove nothing."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickled(SYSTEM))
    assert Path(CANARY).exists()
