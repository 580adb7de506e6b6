import json
import os
import signal
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.cli._output import Progress, progress
from ondevice.errors import ConfigError, ImageError, OutputError
from ondevice.image.files import expand
from ondevice.nn.layers import unit
from ondevice.tasks.embeddings.encode import encode
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.embeddings.journal import (
    Journal,
    make_record,
    reason_of,
    record_type,
    whole_records,
)
from ondevice.tasks.embeddings.unfinished import Unfinished
from ondevice.weights.hash import weights_hash

SUFFIXES = (".safetensors", ".npz", ".parquet")


@pytest.fixture(scope="module")
def model():
    return ondevice.create_model("shvit_nano.cifar10")


def save_images(folder, count):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        pixels = rng.integers(0, 256, (32, 40 + n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.png")
    return [str(folder / f"{n:02}.png") for n in range(count)]


@pytest.fixture
def photos(tmp_path):
    """Seven images: at two a batch, the last batch is not full."""
    return save_images(tmp_path / "photos", 7)


def rows_of(path):
    return np.concatenate([np.array(rows) for rows in open_index(path).chunks()])


def paths_of(path):
    index = open_index(path)
    return [index.path(i) for i in range(index.shape[0])]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_are_unit_embeddings_in_the_order_given(model, photos, tmp_path, suffix):
    order = photos[::-1]
    done = encode(model, order, tmp_path / f"e{suffix}", batch_size=2)
    expected = unit(model.pooled(ondevice.preprocess(order, model.info.preprocess)))
    assert (done.images, done.dim, done.skipped) == (7, 160, 0)
    assert paths_of(done.out) == order
    # a fused model on batches of two against the plain one on all seven: 6e-8
    assert np.allclose(rows_of(done.out), np.array(expected), rtol=0, atol=1e-6)
    assert not (tmp_path / f"e{suffix}.partial").exists()


def test_rows_are_as_long_as_the_model_makes_them_on_request(model, photos, tmp_path):
    done = encode(model, photos, tmp_path / "e.npz", normalize=False)
    expected = model.pooled(ondevice.preprocess(photos, model.info.preprocess))
    assert np.allclose(rows_of(done.out), np.array(expected), rtol=0, atol=1e-5)
    assert not open_index(done.out).normalized


def test_a_file_says_what_made_it(model, photos, tmp_path):
    done = encode(model, photos, tmp_path / "e.safetensors")
    arrays, metadata = mx.load(str(done.out), return_metadata=True)
    info = json.loads(metadata["ondevice.embeddings"])
    assert info["model"] == "shvit_nano.cifar10"
    assert ondevice.Preprocess.from_dict(info["preprocess"]) == model.info.preprocess
    assert info["weights"] == weights_hash(model)  # that a package of the model says as well
    assert arrays["embeddings"].shape == (7, 160)


def test_numpy_alone_reads_an_npz(model, photos, tmp_path):
    done = encode(model, photos, tmp_path / "e.npz")
    with np.load(done.out) as found:
        assert found["paths"].tolist() == photos
        assert found["embeddings"].shape == (7, 160)
        assert json.loads(str(found["info"]))["dim"] == 160


def test_what_cannot_be_read_is_named_and_changes_no_other_row(model, photos, tmp_path):
    whole = rows_of(encode(model, photos, tmp_path / "all.npz", batch_size=4).out)
    with open(photos[2], "wb") as file:
        file.write(b"no image")
    os.truncate(photos[5], 100)
    said = {}
    done = encode(
        model,
        photos,
        tmp_path / "e.npz",
        batch_size=4,
        on_error=lambda i, e: said.update({i: e}),
    )
    good = [0, 1, 3, 4, 6]
    assert paths_of(done.out) == [photos[i] for i in good]
    assert np.array_equal(rows_of(done.out), whole[good])
    assert done.skipped == 2
    assert {i: str(e).split()[0] for i, e in said.items()} == {i: photos[i] for i in (2, 5)}
    assert "is not an image" in str(said[2])


def test_the_command_names_bad_files_and_its_status_says_so(ondevice_, photos, tmp_path):
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    out = tmp_path / "e.npz"
    status, _, err = ondevice_("encode", tmp_path / "photos", "--out", out)
    assert status == 3
    said, count = err.splitlines()
    assert said.startswith(f"skipped: {tmp_path}/photos/a.jpg is not an image")
    assert count == "1 of 8 files skipped"
    status, text, _ = ondevice_(
        "encode", tmp_path / "photos", "--out", out, "--force", "--json"
    )
    facts = json.loads(text)
    assert (status, facts["images"], facts["dim"], len(facts["skipped"])) == (3, 7, 160, 1)


def test_good_files_alone_are_status_0(ondevice_, photos, tmp_path):
    status, text, err = ondevice_("encode", *photos, "--out", tmp_path / "e.npz")
    assert (status, err) == (0, "")
    assert text == f"{tmp_path}/e.npz: 7 x 160, shvit_nano.cifar10\n"


def test_mistakes_are_one_line_and_leave_nothing_behind(ondevice_, photos, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    (tmp_path / "bad.jpg").write_bytes(b"x")
    (tmp_path / "there.npz").touch()
    before = sorted(os.listdir(tmp_path))
    out = tmp_path / "e.npz"
    for args, said in (
        ([tmp_path / "none", photos[0], "--out", out], "none has no images (.apng"),
        ([tmp_path / "*.gif", "--out", out], "*.gif matches no file"),
        ([tmp_path / "list.txt", "--out", out], "list.txt lists no files"),
        ([tmp_path / "no.txt", "--out", out], "no.txt cannot be read: No such file"),
        ([tmp_path / "bad.jpg", "--out", out], "bad.jpg is not an image"),
        ([tmp_path / "bad.jpg"] * 2 + ["--out", out], "none of 2 files is a usable image"),
        ([photos[0], "--out", tmp_path / "e.csv"], ".safetensors, .npz, .parquet"),
        ([photos[0], "--out", tmp_path / "there.npz"], "there.npz exists; use --force"),
        ([photos[0], "--out", tmp_path / "bad.jpg" / "e.npz"], "cannot write"),
        ([photos[0], "--model", "shvit_nan", "--out", out], "did you mean shvit_nano"),
    ):
        status, text, err = ondevice_("encode", *args)
        assert (status, text) == (2, "")
        assert said in err.splitlines()[-1]
        assert sorted(os.listdir(tmp_path)) == before


def test_all_sources_that_give_nothing_are_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"x\*\.png matches no file; .*/y\.txt cannot be read"
    ):
        list(expand([f"{tmp_path}/x*.png", f"{tmp_path}/y.txt"]))


def test_an_existing_file_is_replaced_on_request(model, photos, tmp_path):
    out = tmp_path / "e.npz"
    encode(model, photos[:2], out)
    with pytest.raises(OutputError, match="exists"):
        encode(model, photos, out)
    encode(model, photos, out, force=True)
    assert paths_of(out) == photos


def test_parquet_without_pyarrow_says_what_to_install(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("ondevice.tasks.embeddings.store.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ondevice\[parquet\]'"):
        encode(model, photos, tmp_path / "e.parquet")


class StopError(Exception):
    pass


def stopped_after(batches):
    """An ``on_progress`` that ends a run when as many batches are kept."""
    calls = []

    def call(done, total):
        calls.append(done)
        if len(calls) == batches:
            raise StopError

    return call


def start(model, paths, out, *, batches, **options):
    with pytest.raises(StopError):
        encode(model, paths, out, batch_size=2, on_progress=stopped_after(batches), **options)


@pytest.mark.parametrize("torn", [0, 1, 700, 1299, 1300, 2600])
def test_a_torn_journal_is_cut_and_the_file_is_the_same(model, photos, tmp_path, torn):
    whole = encode(model, photos, tmp_path / "whole.npz", batch_size=2).out.read_bytes()
    start(model, photos, tmp_path / "e.npz", batches=3)
    journal = tmp_path / "e.npz.partial" / "0.rows"
    size = record_type(2, 160).itemsize
    assert (journal.stat().st_size, size) == (3 * size, 1294)
    os.truncate(journal, 3 * size - torn)
    redone = []
    encode(
        model,
        photos,
        tmp_path / "e.npz",
        batch_size=2,
        on_progress=lambda *counts: redone.append(counts),
    )
    lost = -(-torn // size)
    assert len(redone) == 1 + lost
    assert redone[-1] == (7, 7)
    assert (tmp_path / "e.npz").read_bytes() == whole


def test_a_damaged_record_and_what_follows_is_done_again(model, photos, tmp_path):
    whole = encode(model, photos, tmp_path / "whole.npz", batch_size=2).out.read_bytes()
    start(model, photos, tmp_path / "e.npz", batches=3)
    journal = tmp_path / "e.npz.partial" / "0.rows"
    data = bytearray(journal.read_bytes())
    data[1294 + 500] ^= 1
    journal.write_bytes(data)
    encode(model, photos, tmp_path / "e.npz", batch_size=2)
    assert (tmp_path / "e.npz").read_bytes() == whole


# With "die", writes half of the third record and dies as with kill -9. Counts its records.
COUNTED = """
import os, signal, sys
from ondevice.tasks.embeddings import journal
from ondevice.cli import run

count, append = 0, journal.Journal.append

def counted(self, record):
    global count
    count += 1
    if sys.argv[1] == "die" and count == 3:
        os.write(self._fd, record.tobytes()[:700])
        os.kill(os.getpid(), signal.SIGKILL)
    append(self, record)

journal.Journal.append = counted
status = run(sys.argv[2:])
print(count)
sys.exit(status)
"""


def test_a_killed_process_loses_no_batch_and_repeats_none(photos, tmp_path):
    (tmp_path / "photos" / "03.png").write_bytes(b"x")

    def process(how, out):
        args = ["encode", *photos, "--out", tmp_path / out, "--batch-size", "2"]
        command = [sys.executable, "-c", COUNTED, how, *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout.split()[-1:], done.stderr

    status, count, said = process("live", "whole.npz")
    assert (status, count) == (3, ["4"])
    assert process("die", "e.npz")[0] == -signal.SIGKILL
    assert not (tmp_path / "e.npz").exists()
    assert (tmp_path / "e.npz.partial" / "0.rows").stat().st_size == 2 * 1294 + 700
    assert process("live", "e.npz") == (3, ["2"], said)
    assert said.startswith(f"skipped: {photos[3]} is not an image")  # found before the kill
    assert (tmp_path / "e.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "shvit_nano.flowers"}, "other model, weights, preprocess;"),
        ({"batch_size": 4}, "other batch_size;"),
        ({"normalize": False}, "other scaling;"),
        ({"max_level": 4095}, "other white level;"),
        ({"count": 6}, "other files;"),
    ],
)
def test_going_on_with_something_else_is_refused(model, photos, tmp_path, change, said):
    start(model, photos, tmp_path / "e.npz", batches=1)
    other = {"model": "shvit_nano.cifar10", "batch_size": 2, "count": 7} | change
    other_model = ondevice.create_model(other.pop("model"))
    paths = photos[: other.pop("count")]
    with pytest.raises(OutputError, match=f"e.npz.partial is an unfinished encode of {said}"):
        encode(other_model, paths, tmp_path / "e.npz", **other)
    encode(model, photos, tmp_path / "e.npz", batch_size=2)  # it was left as it was
    assert paths_of(tmp_path / "e.npz") == photos


def test_other_weights_of_the_same_model_are_refused(model, photos, tmp_path):
    start(model, photos, tmp_path / "e.npz", batches=1)
    other = ondevice.create_model("shvit_nano.cifar10")
    other.head.linear.bias = other.head.linear.bias + 1
    with pytest.raises(OutputError, match="of other weights; finish"):
        encode(other, photos, tmp_path / "e.npz", batch_size=2)


@pytest.mark.parametrize("change", ["contents", "time", "gone"])
def test_files_that_changed_meanwhile_are_refused(model, photos, tmp_path, change):
    """Rows of what the files were would stand among rows of what they are."""
    start(model, photos, tmp_path / "e.npz", batches=1)
    if change == "time":
        os.utime(photos[0], ns=(0, 1))
    else:
        os.unlink(photos[0])
    if change == "contents":
        Image.new("RGB", (40, 32)).save(photos[0])
    with pytest.raises(OutputError, match="of other contents of files; finish it as it was"):
        encode(model, photos, tmp_path / "e.npz", batch_size=2)
    if change != "time":  # with the folder deleted, but for its rows
        (tmp_path / "e.npz.partial" / "job.json").unlink()
        whole = encode(model, photos, tmp_path / "whole.npz", batch_size=2).out.read_bytes()
        encode(model, photos, tmp_path / "e.npz", batch_size=2)
        assert (tmp_path / "e.npz").read_bytes() == whole


def test_a_damaged_job_is_one_line(model, photos, tmp_path):
    start(model, photos, tmp_path / "e.npz", batches=1)
    (tmp_path / "e.npz.partial" / "job.json").write_text("{")
    with pytest.raises(OutputError, match=r"job\.json is damaged"):
        encode(model, photos, tmp_path / "e.npz", batch_size=2)


def test_rows_of_an_earlier_job_do_not_count(model, photos, tmp_path):
    whole = encode(model, photos, tmp_path / "whole.npz", batch_size=2).out.read_bytes()
    start(model, photos[::-1], tmp_path / "e.npz", batches=3)
    (tmp_path / "e.npz.partial" / "job.json").unlink()  # its removal was interrupted
    encode(model, photos, tmp_path / "e.npz", batch_size=2)
    assert (tmp_path / "e.npz").read_bytes() == whole


def test_two_processes_do_not_write_one_journal(model, photos, tmp_path):
    with (
        Unfinished(tmp_path / "e.npz", 0),
        pytest.raises(OutputError, match="in use by another process"),
    ):
        encode(model, photos, tmp_path / "e.npz")


def test_no_paths_are_an_error(model, tmp_path):
    with pytest.raises(ImageError, match="no files were given"):
        encode(model, [], tmp_path / "e.npz")
    assert os.listdir(tmp_path) == []


def test_a_journal_keeps_reasons_as_rows(tmp_path):
    kind = record_type(3, 8)
    record = make_record(kind, 5, np.ones((3, 8)), [None, "is épais " * 9])
    with Journal(tmp_path / "0.rows") as journal:
        journal.append(record)
    (found,) = whole_records(tmp_path / "0.rows", kind)
    assert found["status"].tolist() == [[1, 2, 0]]
    assert found["rows"][0, 0].tolist() == [1] * 8
    assert reason_of(found["rows"][0, 1]) == ("is épais " * 9).encode()[:32].decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line():
    record = make_record(record_type(1, 8), 0, np.ones((1, 8)), [None])
    with (
        Journal(Path("/dev/full")) as journal,
        pytest.raises(OutputError, match="cannot write /dev/full: No space left on device"),
    ):
        journal.append(record)


def test_files_are_in_the_order_of_their_bytes(tmp_path, monkeypatch):
    for name in ("b.jpg", "a/z.png", "a.jpg", "a-b/x.GIF", "B.jpg", "é.jpg", "10.jpg", "9.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for ignored in (".hidden.jpg", "notes.md"):
        (tmp_path / ignored).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = [path.removeprefix("./") for path in expand(["."])]
    assert found == sorted(found, key=os.fsencode)
    names = ["10.jpg", "9.jpg", "B.jpg", "a-b/x.GIF", "a.jpg", "a/z.png", "b.jpg", "loop"]
    names.append("é.jpg")
    assert found == names
    assert list(expand(["[ab].jpg", "9.jpg", "*/*.png"])) == [
        "a.jpg",
        "b.jpg",
        "9.jpg",
        "a/z.png",
    ]


def test_lists_keep_their_order(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_bytes(b"b.jpg\r\n\na b.jpg\n#1.png")
    stdin = TextIOWrapper(BytesIO(b"z.jpg\nnot\xffutf8.jpg\n"))
    monkeypatch.setattr("sys.stdin", stdin)
    assert list(expand([f"{tmp_path}/list.txt", "-"])) == [
        "b.jpg",
        "a b.jpg",
        "#1.png",
        "z.jpg",
        os.fsdecode(b"not\xffutf8.jpg"),
    ]


def test_a_file_with_a_pattern_in_its_name_is_itself(tmp_path):
    (tmp_path / "a[1].jpg").touch()
    assert list(expand([f"{tmp_path}/a[1].jpg"])) == [f"{tmp_path}/a[1].jpg"]


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_name_is_kept(model, photos, tmp_path, suffix):
    strange = tmp_path / os.fsdecode(b"a\nb\xff.png")
    os.rename(photos[0], strange)
    done = encode(model, [strange], tmp_path / f"e{suffix}")
    kept = paths_of(done.out)[0]
    assert kept == str(strange).replace("\udcff", r"\xff" if suffix == ".parquet" else "\udcff")


def test_progress_tells_rate_and_time_left(capsys, monkeypatch):
    clock = iter((100.0, 110.0))
    monkeypatch.setattr("ondevice.cli._output.time.monotonic", lambda: next(clock))
    show = Progress("encoding")
    show(5_000, 10_000)  # where an earlier run stopped
    show(6_000, 10_000)
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.split() == "encoding 6,000 of 10,000 100 images/s 0:00:40 left".split()


def test_progress_of_what_ends_early_leaves_the_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for _ in progress("abc", "reading", 3, unit="letters"):
        break
    assert capsys.readouterr().err == "\n"
    assert list(progress("abc", "reading", 3, unit="letters")) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert said.split("\r")[-1].startswith("reading 3 of 3  ")
    assert said.rstrip(" \n").endswith(" letters/s  0:00:00 left")
