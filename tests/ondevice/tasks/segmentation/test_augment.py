"""Masks stay on what they are of, however the image is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ondevice import Preprocess
from ondevice.errors import ImageError
from ondevice.tasks.segmentation.augment import MaskAugment, seen
from ondevice.tasks.segmentation.dataset import Mask, read_mask_dataset
from ondevice.tasks.train.dataset import Sample

from . import scenes

SPEC = Preprocess(size=96, crop_pct=1, crop_mode="squash", mean=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = scenes.write(tmp_path_factory.mktemp("scenes"), train=8, val=1)
    return read_mask_dataset(folder, val_share=0.2).splits["train"]


def changed(sample: Sample, seed: int, **augment: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    image = Image.open(sample.path)
    return MaskAugment(**augment).labelled(image, sample.label, SPEC, rng)


@pytest.mark.parametrize("seed", range(8))
def test_masks_follow_their_images(samples: tuple[Sample, ...], seed: int) -> None:
    pixels, there = changed(samples[seed], seed, changes=0)
    assert pixels.shape == (96, 96, 3)
    assert there.shape == (96, 96)
    for number, colour in ((1, (60, 200, 250)), (2, (240, 220, 40))):
        like = np.abs(pixels.astype(int) - colour).max(axis=-1) < 40
        own = there == number
        assert like[own].mean() > 0.8 if own.any() else not like[there >= 0].any()
        assert (like & (there >= 0) & ~own).mean() < 0.01  # the edges are blurred
    beyond = (pixels == 128).all(axis=-1)  # the colour of the mean
    assert (there[beyond] == -1).all()
    unlike = there[~beyond] == -1
    assert unlike.mean() < 0.2  # the edge that does not count


def test_the_same_generator_gives_the_same(samples: tuple[Sample, ...]) -> None:
    (a, b), (c, d) = (changed(samples[0], 1) for _ in range(2))
    assert (a == c).all()
    assert (b == d).all()


def test_without_changes_a_mask_is_as_it_was(samples: tuple[Sample, ...]) -> None:
    _, there = changed(samples[0], 0, zoom=(1, 1), stretch=1, changes=0, flip=False)
    wanted = samples[0].label.classes()
    assert (there == seen(wanted, (0, 0, 64, 64), 96)).all()
    assert (seen(wanted, (0, 0, 64, 64), 64) == wanted).all()


def test_a_mirrored_mask_is_mirrored(samples: tuple[Sample, ...]) -> None:
    views = [
        changed(samples[0], seed, zoom=(1, 1), stretch=1, changes=0)[1] for seed in range(6)
    ]
    wanted = seen(samples[0].label.classes(), (0, 0, 64, 64), 96)
    mirrored = [(view == wanted[:, ::-1]).all() for view in views]
    assert {*mirrored} == {True, False}
    assert all(m or (v == wanted).all() for m, v in zip(mirrored, views, strict=True))


def test_what_lies_beyond_does_not_count() -> None:
    there = np.arange(4).reshape(2, 2)
    assert seen(there, (-1, 0, 4, 2), 4).tolist() == [
        [-1, 0, 1, -1],
        [-1, 0, 1, -1],
        [-1, 2, 3, -1],
        [-1, 2, 3, -1],
    ]


def test_a_mask_that_is_gone_is_said(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    label: Mask = samples[0].label
    gone = Mask(type(label.file)("a.png", str(tmp_path / "gone.png")), label.names, "", ())
    with pytest.raises(ImageError, match=r"gone\.png cannot be read"):
        gone.classes()
