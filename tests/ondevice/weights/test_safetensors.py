"""Safetensors: what is read, and what is refused before any memory is taken."""

import json
import struct
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model
from ondevice.errors import WeightsError
from ondevice.weights.safetensors import (
    MAX_HEADER,
    header,
    map_safetensors,
    read_safetensors,
    write_safetensors,
)
from tests.support.hostile import check, judge

FOUR = np.arange(4, dtype="<f4").tobytes()


def framed(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def file(header: object, data: bytes = FOUR) -> bytes:
    return framed(json.dumps(header).encode(), data)


def entry(dtype: str = "F32", shape: object = (4,), begin: int = 0, end: int = 16) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def changed(name: str, array: np.ndarray, dtype: str) -> bytes:
    """Weights that fit a shvit_nano, but for one."""
    kept = dict(tree_flatten(create_model("shvit_nano").parameters()))
    raw = {k: ("F32", a.shape, np.array(a).tobytes()) for k, a in kept.items()}
    raw[name] = (dtype, array.shape, array.tobytes())
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    place = 0
    for key, (kind, shape, data) in raw.items():
        header[key] = entry(kind, shape, place, place := place + len(data))
    return file(header, b"".join(data for _, _, data in raw.values()))


CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("0 bytes are too few", lambda: b""),
    "seven_bytes": ("7 bytes are too few", lambda: bytes(7)),
    "header_longer_than_the_file": ("does not fit", lambda: struct.pack("<Q", 100) + b"{}"),
    "header_of_2_to_63": ("does not fit", lambda: struct.pack("<Q", 2**63) + b"{}"),
    "header_of_4_MB": ("does not fit", lambda: framed(b"{}" + b" " * (MAX_HEADER + 1))),
    "header_of_a_million_lists": ("no table", lambda: framed(b"[" + b"[]," * 10**6 + b"[]]")),
    "header_a_million_deep": ("recursion", lambda: framed(b"[" * 10**6)),
    "header_deep_in_an_entry": ("recursion", lambda: framed(b'{"w":' + b"[" * 10**6)),
    "header_that_is_no_json": ("Expecting", lambda: framed(b"{w: 1}")),
    "header_that_is_no_utf_8": ("decode", lambda: framed(b'{"\xff": 1}')),
    "header_that_is_a_list": ("no table", lambda: framed(b"[1]")),
    "number_of_10000_digits": (
        "digits",
        lambda: framed(b'{"w": ' + b"9" * 10_000 + b"}"),
    ),
    "name_twice": (
        "w appears twice",
        lambda: framed(
            b'{"w": %b, "w": %b}' % ((json.dumps(entry()).encode(),) * 2),
            FOUR,
        ),
    ),
    "name_with_a_line_break": ("'a\\nb'", lambda: file({"a\nb": entry("F33")})),
    "name_of_a_megabyte": ("unknown", lambda: file({"unknown" * 2**17: entry("F33")})),
    "metadata_that_is_no_table": (
        "metadata",
        lambda: file({"__metadata__": [1], "w": entry()}),
    ),
    "metadata_of_numbers": ("metadata", lambda: file({"__metadata__": {"a": 1}, "w": entry()})),
    "entry_that_is_a_number": ("not described", lambda: file({"w": 4})),
    "entry_without_a_type": ("not described", lambda: file({"w": {"shape": [4]}})),
    "type_unknown": ("type 'F33', expected one of F32", lambda: file({"w": entry("F33")})),
    "type_of_8_bits": ("type 'F8_E4M3'", lambda: file({"w": entry("F8_E4M3", [16])})),
    "type_of_64_bits": ("type 'F64'", lambda: file({"w": entry("F64", [2])})),
    "type_that_is_a_list": ("type ['F32']", lambda: file({"w": entry(["F32"])})),
    "shape_that_is_a_text": ("impossible shape", lambda: file({"w": entry(shape="4")})),
    "shape_negative": ("impossible shape", lambda: file({"w": entry(shape=[-2, -2])})),
    "shape_of_a_fraction": ("impossible shape", lambda: file({"w": entry(shape=[4.0])})),
    "shape_of_a_truth": ("impossible shape", lambda: file({"w": entry(shape=[True, 4])})),
    "shape_of_1000_axes": (
        "impossible shape",
        lambda: file({"w": entry(shape=[1] * 999 + [4])}),
    ),
    "shape_that_overflows": (
        "does not fill",
        lambda: file({"w": entry(shape=[2**30] * 8 + [16])}),
    ),
    "shape_empty_and_huge": (
        "impossible shape",
        lambda: file({"w": entry(shape=[0, 2**40], end=0)}, b""),
    ),
    "shape_that_does_not_fill": ("does not fill", lambda: file({"w": entry(shape=[3])})),
    "place_negative": ("impossible data_offsets", lambda: file({"w": entry(begin=-16, end=0)})),
    "place_backwards": ("impossible data_offsets", lambda: file({"w": entry(begin=16, end=0)})),
    "place_of_three": (
        "impossible data_offsets",
        lambda: file({"w": {**entry(), "data_offsets": [0, 8, 16]}}),
    ),
    "place_beyond_the_end": ("truncated", lambda: file({"w": entry(begin=16, end=32)})),
    "data_truncated": ("truncated", lambda: file({"w": entry()}, FOUR[:-1])),
    "data_left_over": ("belong to no array", lambda: file({"w": entry()}, FOUR * 2)),
    "arrays_that_overlap": (
        "v begins at byte 0, expected 16",
        lambda: file({"a": entry(), "v": {**entry()}}),
    ),
    "arrays_with_a_gap": (
        "v begins at byte 20, expected 16",
        lambda: file({"a": entry(), "v": entry(begin=20, end=36)}, FOUR + bytes(20)),
    ),
    "a_thousand_views_of_one_place": (
        "expected 16",
        lambda: file({f"w{i}": entry() for i in range(1000)}),
    ),
    "a_pickle_by_another_name": (
        "does not fit",
        lambda: b"\x80\x02cos\nsystem\n(X\2\0\0\0lstR.",
    ),
    "a_zip_by_another_name": ("does not fit", lambda: b"PK\3\4" + bytes(200)),
    "weights_with_NaN": (
        "head.linear.bias has NaN",
        lambda: changed("head.linear.bias", np.full(10, np.nan, "<f4"), "F32"),
    ),
    "weights_of_truths": (
        "head.linear.bias has type mlx.core.bool",
        lambda: changed("head.linear.bias", np.ones(10, "?"), "BOOL"),
    ),
    "weights_of_another_shape": (
        "head.linear.bias has shape (11,), expected (10,)",
        lambda: changed("head.linear.bias", np.ones(11, "<f4"), "F32"),
    ),
    "weights_without_weights": ("missing 316", lambda: file({}, b"")),
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    files = {case: make for case, (_, make) in CASES.items()}
    return judge(files, ".safetensors", tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("case", CASES)
def test_hostile_files_are_refused_in_one_line(case, verdicts):
    check(verdicts[case], CASES[case][0])


# --- what is read


ARRAYS = {
    "float32": mx.array([1.5, -2.5]),
    "float16": mx.array([[1.5], [65504]], mx.float16),
    "bfloat16": mx.array([1.5, 3e38], mx.bfloat16),
    "int64": mx.array([-(2**62), 2**62], mx.int64),
    "uint8": mx.array([0, 255], mx.uint8),
    "bool": mx.array([True, False, True]),
    "scalar": mx.array(7.5),
    "empty": mx.zeros((0, 3)),
    "turned": mx.arange(6.0).reshape(2, 3).T,
}


def test_a_file_that_mlx_wrote_without_metadata_is_read(tmp_path):
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"w": mx.arange(3)})
    arrays, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert (arrays["w"].tolist(), metadata) == ([0, 1, 2], {})


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, ARRAYS, {"format": "mlx"})
    arrays, metadata = read_safetensors(path)
    assert metadata == {"format": "mlx"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert mx.array_equal(arrays[name], array)


def test_arrays_are_mapped_as_they_are_read(tmp_path):
    path = tmp_path / "x.safetensors"
    ours = {k: a for k, a in ARRAYS.items() if k != "bfloat16"}
    write_safetensors(path, ours, {"a": "1"})
    mapped, metadata = map_safetensors(path)
    assert (metadata, mapped.keys()) == ({"a": "1"}, ours.keys())
    for name, array in ours.items():
        assert mapped[name].dtype == np.array(array).dtype
        assert np.array_equal(mapped[name], np.array(array))
    write_safetensors(path, ARRAYS, {})
    with pytest.raises(WeightsError, match="NumPy has no bfloat16"):
        map_safetensors(path)


def test_a_header_has_the_size_asked_for_and_says_where_arrays_begin(tmp_path):
    arrays = {"a": (mx.float32, [2]), "b": (mx.uint8, [3])}
    start, begins = header(arrays, {}, 512)
    assert (len(start), begins) == (512, [512, 520])
    (tmp_path / "x.safetensors").write_bytes(start + bytes(8) + b"abc")
    found, _ = read_safetensors(tmp_path / "x.safetensors")
    assert bytes(found["b"].tolist()) == b"abc"


def test_files_are_aligned_and_do_not_depend_on_the_order(tmp_path):
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_safetensors(one, ARRAYS, {"a": "1", "b": "2"})
    write_safetensors(two, dict(reversed(ARRAYS.items())), {"b": "2", "a": "1"})
    assert one.read_bytes() == two.read_bytes()
    length = struct.unpack("<Q", one.read_bytes()[:8])[0]
    entries = json.loads(one.read_bytes()[8 : 8 + length])
    assert length % 8 == 0
    assert all(
        v["data_offsets"][0] % ARRAYS[k].itemsize == 0
        for k, v in entries.items()
        if k != "__metadata__"
    )


def test_an_array_nobody_uses_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    big = np.ones(2**24, "<f4").tobytes()
    header = {"big": entry(shape=[2**24], end=2**26), "w": entry("F32", [4], 2**26, 2**26 + 16)}
    path.write_bytes(file(header, big + FOUR))
    before = mx.get_active_memory()
    arrays, _ = read_safetensors(path)
    assert arrays["w"].tolist() == [0, 1, 2, 3]
    assert mx.get_active_memory() - before < 2**20


@pytest.mark.parity
def test_the_reference_implementation_reads_and_writes_the_same(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    ours = {k: a for k, a in ARRAYS.items() if k != "bfloat16"}  # unknown to numpy
    write_safetensors(path, ours, {})
    theirs = numpy.load_file(path)
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[k], np.array(a)) for k, a in ours.items())
    numpy.save_file(theirs, path)
    assert all(mx.array_equal(read_safetensors(path)[0][k], a) for k, a in ours.items())


# --- several files


def write_shards(folder, table, **shards):
    for name, arrays in shards.items():
        write_safetensors(folder / f"{name}.safetensors", arrays, {})
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": table}))
    return path


def test_a_checkpoint_in_several_files_is_read_by_its_index(tmp_path):
    table = {"a": "one.safetensors", "b": "two.safetensors"}
    path = write_shards(tmp_path, table, one={"a": mx.array(1.0)}, two={"b": mx.array(2.0)})
    arrays, _ = read_safetensors(path)
    assert {k: a.item() for k, a in arrays.items()} == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": "../one.safetensors"}, "no safetensors file beside it"),
        ({"a": "/etc/passwd"}, "no safetensors file beside it"),
        ({"a": "one.pth"}, "no safetensors file beside it"),
        ({"a": "three.safetensors"}, "No such file"),
        ({"a": "one.safetensors", "b": "one.safetensors"}, "1 arrays that are not there: b"),
        ({"a": 1}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_an_index_that_misleads_is_refused(table, said, tmp_path):
    path = write_shards(tmp_path, table, one={"a": mx.array(1.0)})
    with pytest.raises(WeightsError, match=said):
        read_safetensors(path)


@pytest.mark.parametrize("make", ["mkdir", "is_file"])
def test_what_is_no_file_is_refused(make, tmp_path):
    path = tmp_path / "x.safetensors"
    getattr(path, make)()
    with pytest.raises(WeightsError, match=r"folder or a device|No such file"):
        read_safetensors(path)


def test_a_checkpoint_of_torch_is_sent_to_where_it_can_be_read(tmp_path):
    with pytest.raises(WeightsError, match="`ondevice import` converts it"):
        create_model("shvit_nano", weights=tmp_path / "x.pth")
