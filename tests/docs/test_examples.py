"""The examples run as they say they are run, each in a process of its own."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.signature.samples import sample_images
from ondevice.tasks.embeddings.encode import encode
from ondevice.tasks.embeddings.index import open_index
from ondevice.tasks.vlm import Vision
from ondevice.weights.safetensors import read_safetensors

from .. import ROOT
from ..ondevice.tasks.train import photos
from ..support import clips
from ..support.commands import EXAMPLES, said_in_example, shortest

# Run below, on networks that are not downloaded.
OTHERS = {"train_my_loss", "vlm_encode", "describe", "zeroshot", "encode_folder_distributed"}
SMALL = ["--size", "128"]  # 4 tokens


@pytest.fixture
def folder(tmp_path):
    """A folder with what the examples are given."""
    for name, levels in zip(("photo", "more", "a", "b"), sample_images(150), strict=True):
        Image.fromarray(levels).save(tmp_path / f"{name}.jpg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(
    stem: str, folder: Path, *more: object, launch: tuple[str, ...] = ()
) -> tuple[str, str]:
    """The command at an example's head, and ``more``: its standard output and error."""
    (line,) = said_in_example(ROOT / f"examples/{stem}.py")
    here = {"python": [sys.executable], "mlx.launch": [_mlx_launch(), *launch]}
    words = [part for word in shortest(line) for part in here.get(word, [word])]
    done = subprocess.run(
        [*words, *map(str, more)], cwd=folder, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"imported before" not in done.stderr, "MLX is without the tuned BLAS"
    return done.stdout.decode(), done.stderr.decode()


def _mlx_launch() -> str:
    return str(Path(sys.executable).with_name("mlx.launch"))


@pytest.mark.parametrize(
    "stem", [path.stem for path in EXAMPLES if path.stem not in OTHERS], ids=str
)
def test_an_example_runs(stem, folder):
    out, _ = run(stem, folder)
    assert out.strip()


def test_vlm_encode_saves_the_tokens_of_both_sides_of_the_projector(vlm_folder, vlm, folder):
    out, _ = run("vlm_encode", folder, "more.jpg", *SMALL, "--model", vlm_folder)
    photos = [folder / "photo.jpg", folder / "more.jpg"]
    wanted = {"encoder": vlm.encoder_tokens(photos), "projected": vlm.encode_images(photos)}
    for (name, tokens), line in zip(wanted.items(), out.splitlines(), strict=True):
        assert re.fullmatch(rf"{name}\.safetensors: 2 x 4 tokens in \d+\.\d\d s", line)
        arrays, _ = read_safetensors(folder / f"{name}.safetensors")
        assert arrays["tokens"].shape == tokens.shape
        assert mx.allclose(arrays["tokens"], tokens, atol=1e-5)
        assert bytes(np.array(arrays["paths"])) == b"photo.jpg\0more.jpg\0"
    assert wanted["encoder"].shape != wanted["projected"].shape


def test_describe_answers_as_the_model_does_about_that_photo(vlm_folder, folder):
    few = 24
    out, _ = run("describe", folder, *SMALL, "--model", vlm_folder, "--max-tokens", few)
    question = shortest(said_in_example(ROOT / "examples/describe.py")[0])[-1]
    vlm = ondevice.load_vlm(vlm_folder, vision=Vision(size=128))
    answers = [
        vlm.generate(question, folder / name, max_tokens=few).text
        for name in ("photo.jpg", "b.jpg")
    ]
    assert out == answers[0] + "\n"
    assert answers[0].strip()
    assert answers[0] != answers[1]


def test_zeroshot_prints_each_label_with_its_share(folder):
    saved = clips.save(folder)
    out, _ = run("zeroshot", folder, "--model", saved)
    labels = ["cat", "dog", "hot dog"]
    clip = ondevice.load_clip(saved)
    (predictions,) = clip.zero_shot(folder / "photo.jpg", labels)
    images, texts = clip.encode_image(folder / "photo.jpg"), clip.classifier(labels)
    found = [
        re.fullmatch(r" *([\d.]+)%  cosine +(-?[\d.]+)  (.+)", line)
        for line in out.splitlines()
    ]
    assert [m[3] for m in found] == [p.label for p in predictions]
    assert {p.label for p in predictions} == set(labels)
    for m, p in zip(found, predictions, strict=True):
        cosine = (images @ texts[labels.index(p.label)]).item()
        assert float(m[1]) == pytest.approx(100 * p.score, abs=0.01)
        assert float(m[2]) == pytest.approx(cosine, abs=0.001)


def test_train_my_loss_saves_a_model_of_the_folder(folder):
    photos.write(folder / "photos", 8)
    out, _ = run("train_my_loss", folder)
    assert re.fullmatch(r"flowers: [\d.]+ % of 6 images\n", out)
    assert ondevice.load(folder / "flowers").info.labels == ("blue", "green", "red")


def free_pair() -> int:
    """A port that is free, as the next one is: mlx.launch counts up."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return port
            except (OSError, OverflowError):
                continue


def test_two_processes_encode_a_folder_as_one_does(folder):
    (folder / "photos").mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    for n, image in enumerate(levels):  # more than a batch, so that both have one
        Image.fromarray(image).save(folder / f"photos/{n:02}.png")
    paths = [f"photos/{n:02}.png" for n in range(20)]
    launch = ("--starting-port", str(free_pair()))
    (folder / "photos/bad.png").write_bytes(b"x")
    out, err = run("encode_folder_distributed", folder, launch=launch)
    assert "photos.safetensors: 20 x 160 by 2 processes\n" in out
    assert err.count("skipped: photos/bad.png is not an image") == 1
    model = ondevice.create_model("shvit_nano.cifar10")
    encode(model, [folder / path for path in paths], folder / "alone.safetensors")
    found, alone = (open_index(folder / f"{n}.safetensors") for n in ("photos", "alone"))
    assert [found.path(row) for row in range(20)] == paths
    rows, wanted = (np.concatenate([np.array(c) for c in i.chunks()]) for i in (found, alone))
    assert rows.shape == (20, 160)
    assert np.array_equal(rows, wanted)
