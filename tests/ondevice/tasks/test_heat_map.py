"""Where a classifier looks."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

import ondevice
from ondevice.errors import ConfigError
from ondevice.image.preprocess import preprocess, resize_and_crop, steps
from ondevice.signature.samples import sample_images
from ondevice.tasks.heat_map import heat_map, overlay

IMAGE = sample_images(150)[1]


@pytest.mark.parametrize("name", ["shvit_nano", "efficientvit_m0", "fastvit_t8"])
def test_the_weights_are_the_slopes_of_the_logit(name):
    """Against differences of the logit for each channel, in a family with each kind of head."""
    model = ondevice.create_model(name)
    x = model.final(model.checked_maps(preprocess(IMAGE, model.info.preprocess))[-1])
    channels = x.shape[-1]
    steps = 0.1 * mx.eye(channels).reshape(channels, 1, 1, channels)

    def logits(x: mx.array) -> np.ndarray:
        return np.array(model.head(model.pool(x))[:, 3], np.float64)

    weights = (logits(x + steps) - logits(x - steps)) / 0.2
    heat = np.maximum((np.array(x)[0] * weights).sum(axis=-1), 0)
    assert heat.max() > 0
    np.testing.assert_allclose(heat_map(model, IMAGE, 3), heat / heat.max(), atol=5e-3)


def test_it_is_higher_where_the_class_is():
    """A network whose last map is the image itself, and whose first class is red."""
    model = ondevice.create_model("shvit_nano", num_classes=2)
    model.checked_maps = lambda x: [x]
    model.head = nn.Linear(3, 2, bias=False)
    model.head.weight = mx.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    image = np.zeros((96, 96, 3), np.uint8)
    image[:48, :, 0] = image[48:, :, 2] = 255
    red = heat_map(model, image, 0)
    assert red.shape == (96, 96)
    assert red.max() == 1
    assert red[10:40].min() > red[56:90].max()


def test_the_picture_has_the_size_of_the_pixels():
    model = ondevice.load("shvit_nano.cifar10")
    pixels = resize_and_crop(IMAGE, model.info.preprocess)
    picture = overlay(pixels, heat_map(model, IMAGE))
    assert picture.size == (96, 96)
    cold = overlay(pixels, np.zeros((3, 3)))
    assert np.ptp(np.asarray(cold), axis=-1).max() == 0  # grey


@pytest.mark.parametrize(
    ("model", "index", "said"),
    [
        (lambda: ondevice.load("shvit_nano.cifar10"), 10, "class 10 of 10 classes"),
        (lambda: ondevice.create_model("shvit_nano", num_classes=0), None, "no classifier"),
    ],
)
def test_what_cannot_be_seen_is_said(model, index, said):
    with pytest.raises(ConfigError, match=said):
        heat_map(model(), IMAGE, index)


def test_the_steps_end_with_the_pixels_of_the_model():
    spec = ondevice.load("shvit_nano.cifar10").info.preprocess
    names, images = zip(*steps(IMAGE, spec), strict=True)
    assert names == ("upright", "reduced", "resized", "cropped")
    assert [image.size for image in images] == [(150, 150), (32, 32), (96, 96), (96, 96)]
    assert np.array_equal(np.asarray(images[-1]), resize_and_crop(IMAGE, spec))
