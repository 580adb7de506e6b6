import json
import os
import zipfile

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.errors import ConfigError
from ondevice.tasks.embeddings import index as index_module
from ondevice.tasks.embeddings.encode import encode
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.embeddings.search import search
from ondevice.tasks.embeddings.store import Table, write

SUFFIXES = (".safetensors", ".npz", ".parquet")
INFO = {"model": "shvit_nano.cifar10", "weights": "?", "normalized": False, "dim": 8}


def save_rows(path, rows, **info):
    """An index of ``rows``, in chunks of three, row n at the path "/n"."""
    pieces = [
        ([b"/%d" % n for n in range(i, min(i + 3, len(rows)))], rows[i : i + 3])
        for i in range(0, len(rows), 3)
    ]
    write(path, Table(INFO | info, rows.shape[1], lambda: iter(pieces)))
    return path


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_the_likest_rows_are_those_of_the_highest_cosines(
    rows, tmp_path, monkeypatch, suffix, chunk
):
    monkeypatch.setattr(index_module, "CHUNK", 4 * 8 * chunk)
    query = np.arange(8.0)
    cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
    found = search(open_index(save_rows(tmp_path / f"i{suffix}", rows)), query, top_k=6)
    assert [match.row for match in found] == np.argsort(-cosines)[:6].tolist()
    assert [match.path for match in found] == [f"/{match.row}" for match in found]
    # 1e-6: float32 sums of 8 numbers against float64
    assert [m.score for m in found] == pytest.approx(np.sort(cosines)[::-1][:6], abs=1e-6)


def test_of_equal_rows_the_first_come_first(rows, tmp_path):
    rows[[40, 7, 21]] = rows[3]
    found = search(open_index(save_rows(tmp_path / "i.npz", rows)), rows[3], top_k=3)
    assert [match.row for match in found] == [3, 7, 21]


def test_rows_of_unit_length_are_not_divided_again(rows, tmp_path):
    index = open_index(save_rows(tmp_path / "i.npz", rows, normalized=True))
    (best,) = search(index, rows[3], top_k=1)
    unit = rows[3] / np.linalg.norm(rows[3])
    assert best.score == pytest.approx(max(rows @ unit), abs=1e-5)


def test_no_more_matches_than_rows(rows, tmp_path):
    index = open_index(save_rows(tmp_path / "i.npz", rows))
    assert sorted(m.row for m in search(index, rows[0], top_k=99)) == list(range(50))


def test_a_query_of_another_length_is_refused(rows, tmp_path):
    index = open_index(save_rows(tmp_path / "i.npz", rows))
    with pytest.raises(ConfigError, match="has rows of 8 values, the query has 9"):
        search(index, np.zeros(9))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98])
def test_a_truncated_index_is_one_line(rows, tmp_path, suffix, share):
    path = save_rows(tmp_path / f"i{suffix}", rows)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ConfigError, match=f"i{suffix} is no readable index: .") as caught:
        open_index(path)
    assert "\n" not in str(caught.value)


def other_safetensors(path):
    mx.save_safetensors(str(path), {"x": mx.zeros(3)}, {"format": "mlx"})


def other_npz(path):
    np.savez(path, x=np.zeros(3))


def other_parquet(path):
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": [1]}), path)


@pytest.mark.parametrize(
    ("suffix", "save"),
    list(zip(SUFFIXES, (other_safetensors, other_npz, other_parquet), strict=True)),
)
def test_a_file_of_something_else_is_one_line(tmp_path, suffix, save):
    save(tmp_path / f"i{suffix}")
    with pytest.raises(ConfigError, match="is no readable index: it lacks"):
        open_index(tmp_path / f"i{suffix}")


def test_rows_of_another_length_than_said_are_refused(rows, tmp_path):
    path = save_rows(tmp_path / "i.npz", rows, dim=9)
    with pytest.raises(ConfigError, match="said to be of 9"):
        open_index(path)


def test_a_compressed_npz_is_refused(rows, tmp_path):
    path = save_rows(tmp_path / "i.npz", rows)
    with np.load(path) as found:
        np.savez_compressed(tmp_path / "c.npz", **found)
    with pytest.raises(ConfigError, match="compressed"):
        open_index(tmp_path / "c.npz")


def test_an_npz_is_what_zip_tools_accept(rows, tmp_path):
    with zipfile.ZipFile(save_rows(tmp_path / "i.npz", rows)) as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.npz", "missing.npz is no readable index: No such file or directory"),
        ("missing.safetensors", "is no readable index: No such file"),
        ("missing.parquet", "is no readable index: .*(No such|Failed to open)"),
        ("rows.csv", "it has to end with .safetensors, .npz, .parquet"),
    ],
)
def test_a_path_that_is_no_index_is_one_line(tmp_path, name, said):
    with pytest.raises(ConfigError, match=said):
        open_index(tmp_path / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five images and their index."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{n}.png")
    model = ondevice.create_model("shvit_nano.cifar10")
    encode(model, [folder / f"{n}.png" for n in range(5)], folder / "i.safetensors")
    return folder


def test_an_image_finds_itself_first(ondevice_, folder):
    status, out, err = ondevice_(
        "search",
        folder / "3.png",
        "--index",
        folder / "i.safetensors",
        "--json",
        "--top-k",
        "4",
    )
    found = json.loads(out)
    assert (status, err, found["model"]) == (0, "", "shvit_nano.cifar10")
    assert found["results"][0]["path"] == str(folder / "3.png")
    assert found["results"][0]["score"] == pytest.approx(1, abs=1e-6)
    scores = [match["score"] for match in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4


def test_matches_are_a_table(ondevice_, folder):
    _, out, _ = ondevice_("search", folder / "3.png", "--index", folder / "i.safetensors")
    header, first, *rest = out.splitlines()
    assert header.split() == ["cosine", "path"]
    assert first.split() == ["1.0000", str(folder / "3.png")]
    assert len(rest) == 4


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["3.png", "--model", "shvit_nano.flowers"], "those of shvit_nano.flowers as given"),
        (["no.png"], "no.png cannot be opened"),
        (["3.png", "--top-k", "0"], "--top-k"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(ondevice_, folder, monkeypatch, args, said):
    monkeypatch.chdir(folder)
    status, out, err = ondevice_("search", *args, "--index", "i.safetensors")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
