"""What is begun with one BLAS kernel, or so many threads, and gone on with others."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys

import numpy as np
import pytest

from ondevice.cpu import threads

from ..tasks.test_encode import COUNTED, paths_of, rows_of, save_images

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64"
    or not threads._blas()
    or {p["internal_api"] for p in threads._blas().info()} != {"openblas"},
    reason="the kernels are chosen by a variable of OpenBLAS on x86-64",
)

OLDEST = {"OPENBLAS_CORETYPE": "Prescott"}  # runs on each x86-64; SSE3, and no FMA
SPREAD = 1e-4  # of the rows' standard deviation: what ``run`` promises between machines


def encode(how, folder, out, variables):
    args = [how, "encode", str(folder), "--out", str(out), "--batch-size", "2"]
    return subprocess.run(
        [sys.executable, "-c", COUNTED, *args],
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )


def test_values_are_the_same_to_the_bit_with_any_number_of_threads(tmp_path):
    save_images(tmp_path / "photos", 7)
    files = []
    for count in "12":
        out = tmp_path / f"{count}.npz"
        done = encode("live", tmp_path / "photos", out, {"OPENBLAS_NUM_THREADS": count})
        assert done.returncode == 0, done.stderr
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_what_was_begun_with_other_kernels_is_gone_on_with(tmp_path):
    paths = save_images(tmp_path / "photos", 7)
    made = {}
    for name, variables in {"oldest": OLDEST, "ours": {}}.items():
        out = tmp_path / f"{name}.npz"
        assert encode("live", tmp_path / "photos", out, variables).returncode == 0
        made[name] = rows_of(out)
    out = tmp_path / "e.npz"
    begun = encode("die", tmp_path / "photos", out, OLDEST)
    assert begun.returncode == -signal.SIGKILL
    done = encode("live", tmp_path / "photos", out, {})
    assert (done.returncode, done.stdout.split()[-1]) == (0, "2"), done.stderr
    assert paths_of(out) == paths
    rows = rows_of(out)
    assert np.array_equal(rows[:4], made["oldest"][:4])  # two batches were kept ...
    assert np.array_equal(rows[4:], made["ours"][4:])  # ... and two are new
    spread = SPREAD * made["ours"].std()
    assert np.abs(made["oldest"] - made["ours"]).max() < spread
