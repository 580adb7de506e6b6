"""Photos and small models for the studio."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from ondevice import save_model
from ondevice.signature.samples import sample_images

from ....support import clips
from ...models.test_dense import small
from ...models.test_detectors import small as detector

DENSE = {
    "boxes": ("rtdetr_r18vd", 96),
    "depth": ("depth_anything_v2_small", 56),
    "mask": ("segformer_b0", 64),
}


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photo.jpg"
    Image.fromarray(sample_images(300)[1]).resize((300, 200)).save(path)
    return str(path)


@pytest.fixture
def album(tmp_path):
    """Four different photos."""
    folder = tmp_path / "album"
    folder.mkdir()
    for n, pixels in enumerate(sample_images(120)):
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def dense(tmp_path_factory):
    """Saved models by what they find, for images small enough to be quick."""
    found = {}
    for kind, (name, size) in DENSE.items():
        model = detector(name) if kind == "boxes" else small(name)
        spec = replace(model.info.preprocess, size=size)
        model.info = replace(model.info, preprocess=spec)
        found[kind] = tmp_path_factory.mktemp("models") / kind
        save_model(model, found[kind])
    return found


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """The folder of a small CLIP."""
    return clips.save(tmp_path_factory.mktemp("clip"))
