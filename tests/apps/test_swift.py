"""``ondevice-swift`` beside Python, byte for byte. Without Swift all of it is skipped.

Two need more than the project has: ONDEVICE_DATA is a folder of images, and
ONDEVICE_TOKENIZER CLIP's own tokenizer.json.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from ondevice.config import Preprocess
from ondevice.image.open import open_image
from ondevice.image.preprocess import normalize, resize_and_crop
from ondevice.signature.decode import top_predictions
from ondevice.tasks.clip import Tokenizer
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.embeddings.search import search
from ondevice.tasks.embeddings.store import Table, write

from ..support import clips
from . import goldens, tool
from .captions import captions

pytestmark = [
    pytest.mark.skipif(not tool.HAS_SWIFT, reason="swift is not on this machine"),
    pytest.mark.slow,
]
PAD = {"center": {}, "squash": {}, "border": {}, "pad": {"fill": (10, 120, 250)}}
SIZES = (96, 224, 256)


def differing(images: list[Path], contract: Preprocess, folder: Path) -> int:
    """How many pixel values of PPM files differ between Swift and Python."""
    tool.preprocess(images, contract.to_dict(), folder)
    count = 0
    for image in images:
        seen = np.asarray(Image.open(folder / image.name))
        count += int((seen != resize_and_crop(image, contract)).sum())
    return count


def as_ppm(images: list[Path], folder: Path) -> list[Path]:
    """Upright copies that Swift reads on any machine."""
    copies = [folder / f"{i}.ppm" for i in range(len(images))]
    for image, copy in zip(images, copies, strict=True):
        open_image(image).save(copy)
    return copies


def contracts(sizes):
    grid = itertools.product(goldens.INTERPOLATIONS, goldens.CROP_MODES, sizes)
    for i, (interpolation, mode, size) in enumerate(grid):
        yield Preprocess(
            size=size,
            interpolation=interpolation,
            crop_mode=mode,
            crop_pct=(0.875, 1.0, 0.95)[i % 3],
            source_size=32 if i % 5 == 0 else None,
            **PAD[mode],
        )


def test_pixels_are_those_of_python(tmp_path):
    images = []
    for width, height in ((500, 375), (375, 500), (200, 700), (33, 20)):
        images.append(tmp_path / f"{width}x{height}.ppm")
        Image.fromarray(goldens.photo(width, height)).save(images[-1])
    (tmp_path / "out").mkdir()
    for contract in contracts((64,)):
        assert differing(images, contract, tmp_path / "out") == 0, contract


@pytest.mark.skipif("ONDEVICE_DATA" not in os.environ, reason="ONDEVICE_DATA is not given")
def test_pixels_of_photos_are_those_of_python(tmp_path):
    photos = sorted(Path(os.environ["ONDEVICE_DATA"]).glob("*.jp*g"))
    assert photos
    images = as_ppm(photos, tmp_path)
    (tmp_path / "out").mkdir()
    found = {c: differing(images, c, tmp_path / "out") for c in contracts(SIZES)}
    print(f"{len(images)} photos, {len(found)} contracts")
    assert {c: n for c, n in found.items() if n} == {}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_followed(tmp_path, orientation):
    image = Image.fromarray(goldens.photo(50, 30))
    image.save(tmp_path / "x.ppm")
    image.getexif()[goldens.EXIF_ORIENTATION] = orientation
    contract = Preprocess(size=24, crop_mode="border")
    (tmp_path / "out").mkdir()
    words = ("--orientation", str(orientation))
    tool.preprocess([tmp_path / "x.ppm"], contract.to_dict(), tmp_path / "out", *words)
    seen = np.asarray(Image.open(tmp_path / "out" / "x.ppm"))
    assert (seen == resize_and_crop(image, contract)).all()


def test_normalized_values_are_those_of_python(tmp_path):
    Image.fromarray(goldens.photo(50, 30)).save(tmp_path / "x.ppm")
    contract = Preprocess(size=24)
    (tmp_path / "out").mkdir()
    tool.preprocess([tmp_path / "x.ppm"], contract.to_dict(), tmp_path / "out", "--normalized")
    pixels = mx.array(resize_and_crop(tmp_path / "x.ppm", contract))
    wanted = np.array(normalize(pixels, contract)).transpose(2, 0, 1)
    found = np.fromfile(tmp_path / "out" / "x.f32", "<f4").reshape(wanted.shape)
    assert (found == wanted).all()


def test_predictions_are_those_of_python(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32) * 3
    labels = tuple(f"class {i} \u732b" for i in range(40))
    (tmp_path / "logits.json").write_text(json.dumps(rows.tolist()))
    (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    said = tool.output(
        "classify", tmp_path / "logits.json", "--labels", tmp_path / "labels.txt"
    )
    for found, wanted in zip(
        json.loads(said), top_predictions(mx.array(rows), labels, 5), strict=True
    ):
        assert [(p["label"], p["index"]) for p in found["predictions"]] == [
            (p.label, p.index) for p in wanted
        ]
        scores = [p["score"] for p in found["predictions"]]
        assert scores == pytest.approx([p.score for p in wanted], rel=1e-5)


def test_tokens_are_those_of_python(tmp_path):
    path = clips.write_tokenizer(tmp_path)
    texts = captions(1000)
    assert tool.tokens(path, texts, tmp_path) == Tokenizer(path)(texts).tolist()


@pytest.mark.skipif(
    "ONDEVICE_TOKENIZER" not in os.environ, reason="ONDEVICE_TOKENIZER is not given"
)
def test_tokens_of_the_whole_vocabulary_are_those_of_python(tmp_path):
    path = Path(os.environ["ONDEVICE_TOKENIZER"])
    vocabulary = json.loads(path.read_text())["model"]["vocab"]
    words = tuple(w.removesuffix("</w>") for w in vocabulary if w.endswith("</w>"))
    texts = captions(5000, tuple(w for w in words if w.isalpha() and w.isascii()))
    assert tool.tokens(path, texts, tmp_path) == Tokenizer(path)(texts).tolist()


@pytest.mark.parametrize(("count", "dim"), [(5000, 512), (777, 35)])
def test_neighbours_are_those_of_python(tmp_path, count, dim):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    info = {"model": "toy", "weights": "", "preprocess": {}, "normalized": False, "dim": dim}
    index = tmp_path / "x.safetensors"
    write(index, Table(info, dim, lambda: [([b"%d" % i for i in range(count)], rows)]))
    for query in (rows[3], *rng.normal(size=(3, dim)).astype(np.float32)):
        found = tool.search(index, query.tolist(), tmp_path, 20)
        wanted = search(open_index(index), query, top_k=20)
        assert [m["row"] for m in found] == [m.row for m in wanted]
        assert [m["path"] for m in found] == [m.path for m in wanted]
        assert [m["score"] for m in found] == pytest.approx([m.score for m in wanted], abs=1e-5)


def golden_file(folder: Path) -> Path:
    """As an export writes it, of an output that no network made."""
    contract = Preprocess(size=24)
    image = goldens.photo(40, 30)
    seen = resize_and_crop(image, contract)
    table = {
        "version": 1,
        "image": as_json(image),
        "contract": contract.to_dict(),
        "pixels": as_json(seen),
        "outputs": {"logits": {"shape": [1, 3], "values": [0.5, -2.0, 1.0]}},
        "tolerance": 0.05,
    }
    path = folder / "x.golden.json"
    path.write_text(json.dumps(table))
    return path


def as_json(pixels):
    height, width, _ = pixels.shape
    return {"width": width, "height": height, "rgb": base64.b64encode(pixels).decode()}


def test_a_self_check_names_the_step_that_differs(tmp_path):
    path = golden_file(tmp_path)
    found = json.loads(tool.output("selfcheck", path))
    assert found["passed"]
    assert found["skipped"] == ["normalization", "network"]
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps({"logits": {"shape": [1, 3], "values": [0.5, -2.0, 1.2]}}))
    done = tool.run("selfcheck", path, "--outputs", outputs)
    assert done.returncode == 1
    assert json.loads(done.stdout)["differs"] == "network"
    table = json.loads(path.read_text())
    table["contract"]["interpolation"] = "bilinear"
    path.write_text(json.dumps(table))
    done = tool.run("selfcheck", path)
    assert done.returncode == 1
    assert json.loads(done.stdout)["differs"] == "pixels"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["paint"], "there is no command paint; there are bench, classify, "),
        (["classify"], "give one file of logits; given 0"),
        (["classify", "none.json"], "none.json cannot be read"),
        (["classify", "x.json", "--top-k", "0"], "--top-k is a number from 1 on; given 0"),
        (["classify", "x.json", "--query", "y"], "unknown here, or given twice: --query"),
        (["classify", "x.json", "--top-k"], "--top-k needs a value"),
        (["preprocess", "x.ppm", "--dump", "out"], "--contract is missing"),
        (["search", "--index", "x.npz", "--query", "none.json"], "none.json cannot be read"),
        (["tokenize", "--tokenizer", "t.json"], "give texts, or a file"),
        (["tokenize", "a", "--tokenizer", "none.json"], "none.json cannot be read"),
        (["selfcheck", "none.golden.json"], "none.golden.json cannot be read"),
        (["bench", "--file", "x"], "go together"),
    ],
)
def test_a_wrong_command_is_one_line(words, said):
    done = tool.run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_says_what_there_is():
    assert "preprocess IMAGE.ppm..." in tool.output("--help")
