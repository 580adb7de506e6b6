"""Ranks of MLX's ring backend on loopback, started as mlx.launch would."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.tasks.embeddings.encode import encode
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.ranks import Ranks

from ...support.ranks import run_ranks

COUNT = 20

# What rank 1 does instead when it has kept one batch: it dies.
DYING = """
import os, signal, sys
from ondevice.tasks.embeddings import journal
from ondevice.cli import run

append = journal.Journal.append

def once(self, record):
    append(self, record)
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["MLX_RANK"] == "1":
    journal.Journal.append = once
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks") / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{n:02}.png")
    (folder / "07.png").write_bytes(b"x")
    return folder


def ranks(folders, args, code=None, options=()):
    """One ``ondevice encode`` for each working folder."""
    start = ["-c", code] if code else ["-m", "ondevice"]
    extra = options or [()] * len(folders)
    return run_ranks(folders, [[*start, "encode", *args, *more] for more in extra])


def alone(folder, args):
    command = [sys.executable, "-m", "ondevice", "encode", *map(str, args)]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode


def rows_of(path):
    return np.concatenate([np.array(rows) for rows in open_index(path).chunks()])


def test_a_killed_rank_is_noticed_and_the_job_goes_on(images, tmp_path):
    args = [images, "--batch-size", "2", "--out"]
    assert alone(tmp_path, [*args, "whole.npz"]) == 3
    status, said = ranks([tmp_path] * 2, [*args, "e.npz"], DYING)
    assert status == [2, -signal.SIGKILL]
    assert "error: rank 0 lost another one" in said[0][1]
    kept = {path.name: path.stat().st_size // 1294 for path in tmp_path.glob("*/?.rows")}
    assert kept == {"0.rows": 5, "1.rows": 1}
    assert not (tmp_path / "e.npz").exists()
    status, said = ranks([tmp_path] * 2, [*args, "e.npz"])
    assert status == [3, 0]
    assert said[0][0] == "e.npz: 19 x 160, shvit_nano.cifar10\n"
    assert f"skipped: {images}/07.png is not an image" in said[0][1]
    assert said[1][0] == ""
    assert (tmp_path / "e.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "e.npz.partial").exists()


def test_ranks_that_share_no_disk_send_their_rows_to_the_first(images, tmp_path):
    folders = [tmp_path / str(n) for n in range(4)]
    for folder in folders:
        folder.mkdir()
        (folder / "images").symlink_to(images)
    args = ["images/", "--batch-size", "2", "--out"]
    assert alone(folders[0], [*args, "whole.npz"]) == 3
    status, _ = ranks(folders, [*args, "e.npz"])
    assert status == [3, 0, 0, 0]
    assert (folders[0] / "e.npz").read_bytes() == (folders[0] / "whole.npz").read_bytes()
    assert [sorted(os.listdir(f)) for f in folders[1:]] == [["images"]] * 3


def test_ranks_that_differ_all_say_so(images, tmp_path):
    status, said = ranks(
        [tmp_path] * 2, [images, "--out", "e.npz"], options=([], ["--batch-size", "2"])
    )
    assert status == [2, 2]
    for rank, (_, err) in enumerate(said):
        assert f"rank {rank} and rank {1 - rank} were given different models, files" in err
    assert os.listdir(tmp_path) == ["hosts.json"]


class Pair(Ranks):
    """Rank 0 of two, the other of which says what it is told to."""

    def __init__(self, answers):
        super().__init__()
        self.size, self.answers = 2, iter(answers)

    def gather(self, values):
        return np.stack([values, next(self.answers)])


def test_records_arrive_in_blocks_padded_to_the_longest():
    answers = [3, np.frombuffer(b"aabbcc", np.uint8), 1, np.frombuffer(b"dd", np.uint8), 0]
    received = Pair(answers).send_to_first([b"zz"], 2)
    assert list(received) == [b"zz", b"aa", b"bb", b"cc", b"dd"]


def test_one_process_needs_no_group(images, tmp_path):
    model = ondevice.create_model("shvit_nano.cifar10")
    paths = [images / f"{n:02}.png" for n in range(5)]
    encode(model, paths, tmp_path / "e.npz")
    assert rows_of(tmp_path / "e.npz").shape == (5, 160)
