"""Batches: random but for the seed, whatever the number of threads; damage is counted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ondevice.config import Preprocess
from ondevice.image.preprocess import resize_and_crop
from ondevice.tasks.train import loader as loaders
from ondevice.tasks.train.augment import CHANGES, Augment, mix
from ondevice.tasks.train.dataset import read_dataset
from ondevice.tasks.train.loader import Loader

from . import photos

SPEC = Preprocess(size=32)


@pytest.fixture
def samples(tmp_path):
    return read_dataset(photos.write(tmp_path, 10)).splits["train"]  # 24


def epoch(samples, number=0, **options):
    loader = Loader(samples, SPEC, **{"batch_size": 5, "augment": Augment(), **options})
    return list(loader.epoch(number))


def same(a, b):
    pairs = [pair for one, two in zip(a, b, strict=True) for pair in zip(one, two, strict=True)]
    return all(np.array_equal(x, y) for x, y in pairs)


def test_the_seed_decides_whatever_the_number_of_threads(samples):
    first = epoch(samples, workers=1)
    assert same(first, epoch(samples, workers=7))
    assert not same(first, epoch(samples, 1))
    assert not same(first, epoch(samples, seed=1))
    assert {batch.pixels.shape for batch in first} == {(5, 32, 32, 3)}
    assert len(first) == len(Loader(samples, SPEC, batch_size=5, augment=Augment())) == 4


def test_kept_images_change_nothing(samples, monkeypatch):
    loader = Loader(samples, SPEC, batch_size=5, augment=Augment())
    twice = [list(loader.epoch(0)) for _ in range(2)]
    assert len(loader._kept.images) == 24
    monkeypatch.setattr(loaders, "KEEP", 0)
    assert same(twice[0], epoch(samples))
    assert same(twice[1], twice[0])


def test_without_augmentation_all_come_in_order_as_the_model_sees_them(samples):
    batches = epoch(samples, augment=None)
    assert [len(b.labels) for b in batches] == [5, 5, 5, 5, 4]
    assert np.concatenate([b.positions for b in batches]).tolist() == list(range(24))
    np.testing.assert_array_equal(batches[1].pixels[2], resize_and_crop(samples[7].path, SPEC))


def test_damage_in_the_middle_is_skipped_and_counted(samples):
    with open(samples[3].path, "r+b") as file:
        file.truncate(200)
    loader = Loader(samples, SPEC, batch_size=5, augment=Augment())
    positions = np.concatenate([batch.positions for batch in loader.epoch(0)])
    assert 3 not in positions
    assert len(positions) == len({*positions}) == 20
    assert list(loader.failed) == [3]
    assert "is damaged" in loader.failed[3]
    assert 3 not in loader.order(1)


def test_an_epoch_may_be_left_early(samples):
    batches = Loader(samples, SPEC, batch_size=2, augment=Augment()).epoch(0)
    next(batches)
    batches.close()


def test_few_images_make_one_smaller_batch(samples):
    (batch,) = epoch(samples, batch_size=100)
    assert len(batch.labels) == 24


def test_memory_is_bounded(samples, monkeypatch):
    alive, most = set(), []
    read = Loader._read

    def counted(self, position, number):
        alive.add(position)
        most.append(len(alive))
        return read(self, position, number)

    monkeypatch.setattr(Loader, "_read", counted)
    for batch in Loader(samples, SPEC, batch_size=3, augment=Augment()).epoch(0):
        alive -= set(batch.positions.tolist())
    assert max(most) <= (loaders.AHEAD + 1) * 3


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_gives_an_image_of_the_same_size(name):
    image = photos.photo((200, 100, 50), 0)
    for strength in (-1, 0.5):
        changed = CHANGES[name](image, strength, (1, 2, 3))
        assert (changed.size, changed.mode) == (image.size, "RGB")
    if name not in ("auto contrast", "posterize"):
        np.testing.assert_array_equal(CHANGES[name](image, 0.0, (1, 2, 3)), image)
        assert not np.array_equal(changed, image)


def test_a_crop_that_keeps_all_is_the_image():
    image = Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3))
    augment = Augment(scale=(1, 1), flip=False, changes=0, erase=0)
    found = [augment(image, SPEC, np.random.default_rng(i)) for i in range(8)]
    assert all(f.shape == (32, 32, 3) for f in found)
    assert any(np.array_equal(f, image) for f in found)


def test_mixed_images_have_mixed_targets():
    pixels = np.stack([np.full((8, 8, 3), 240 * i, np.uint8) for i in range(2)])
    targets = np.eye(2, dtype=np.float32)
    for seed in range(20):
        mixed, found = mix(pixels, targets, np.random.default_rng(seed))
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed.mean((1, 2, 3)) / 240, found[:, 1], atol=0.01)


def test_training_images_may_be_smaller_than_in_use(samples):
    small = epoch(samples, augment=Augment(size=16))
    assert {batch.pixels.shape[1:] for batch in small} == {(16, 16, 3)}
    assert same([b[1:] for b in small], [b[1:] for b in epoch(samples)])  # the same images
