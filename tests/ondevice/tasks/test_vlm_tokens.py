"""How images become tokens, and fewer tokens."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import ondevice
from ondevice.errors import ConfigError, ImageError
from ondevice.tasks.vlm import Vision
from ondevice.tasks.vlm.bench import reconstruction_error
from ondevice.tasks.vlm.reduce import dct, merge, relative_error
from ondevice.tasks.vlm.vision import Recent

from .vlm import tiny
from .vlm.golden import FILE, sha256

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def vlm(vlm_folder):
    return ondevice.load_vlm(vlm_folder, vision=Vision(size=256))


def wave(side: int, *frequencies: int) -> mx.array:
    """(1, side², channels): one cosine of the transform a channel, in both directions."""
    place = np.arange(side) + 0.5
    rows = [np.cos(np.pi / side * k * place) for k in frequencies]
    return mx.array(np.stack([np.outer(r, r).ravel() for r in rows], -1)[None], mx.float32)


# --- images


def test_the_encoder_is_given_the_pixels_that_the_original_gives_it(vlm):
    with np.load(FILE) as golden:
        image, wanted = golden["image_u8"], golden["pixels_sha256"]
    (pixels,) = vlm.tower.pixels(image, vlm.vision)
    assert np.array_equal(sha256(pixels.transpose(2, 0, 1)), wanted)


def test_a_wide_image_lies_on_black_or_loses_its_sides(vlm):
    image = np.full((100, 200, 3), 200, np.uint8)
    image[:, :50] = image[:, 150:] = 100
    (padded,) = vlm.tower.pixels(image, Vision(size=64))
    (cropped,) = vlm.tower.pixels(image, Vision(size=64, crop="center"))
    assert (padded[0] == 0).all()
    assert (padded[32, 32] == 200).all()
    assert (padded[32, 0] == 100).all()
    assert np.abs(cropped.astype(int) - 200).max() < 12  # bicubic rings at the cut
    assert (cropped[:, 10:54] == 200).all()


def test_an_image_that_would_be_thinner_than_a_pixel_is_refused(vlm, tmp_path):
    path = tmp_path / "line.png"
    Image.new("RGB", (1, 10_000)).save(path)
    with pytest.raises(ImageError, match=r"line\.png has 1 x 10,000 px: too narrow") as error:
        vlm.encode_image(path)
    assert "\n" not in str(error.value)


def test_all_bad_images_are_named(vlm, tmp_path):
    with pytest.raises(ImageError, match=r"a\.png .*; .*b\.png "):
        vlm.encode_images([tmp_path / "a.png", tiny.image(), tmp_path / "b.png"])


def test_no_images_have_no_tokens(vlm):
    for encode in (vlm.encode_images, vlm.encoder_tokens):
        with pytest.raises(ImageError, match="no images were given"):
            encode([])


@pytest.mark.parametrize("size", [64, 128, 320])
def test_tokens_are_places_of_64_pixels_row_by_row(vlm, size):
    vision = Vision(size=size)
    tokens = vlm.encoder_tokens(tiny.image(), vision=vision)
    assert tokens.shape == (1, (size // 64) ** 2, 256)
    (pixels,) = vlm.tower.pixels(tiny.image(), vision)
    grid = vlm.tower.encoder.features(mx.array(pixels[None]).astype(mx.float32) / 255)
    assert mx.allclose(tokens.reshape(grid.shape), grid, atol=1e-5)


def test_a_batch_gives_what_each_image_gives(vlm):
    images = [tiny.image(i, 60 + i, 90) for i in range(6)]
    together = vlm.encode_images(images)
    vlm.tower.cache = Recent()
    alone = mx.stack([vlm.encode_image(image) for image in images])
    assert together.shape == (6, 16, tiny.DIM)
    assert relative_error(together, alone) < 1e-6
    assert relative_error(together[0], alone[1]) > 0.01


def test_projected_tokens_are_the_projector_of_those_of_the_encoder(vlm):
    tokens = vlm.encoder_tokens(tiny.image())
    assert mx.allclose(vlm.tower.projector(tokens)[0], vlm.encode_image(tiny.image()))


# --- images seen before


def test_an_image_seen_before_is_not_encoded_again(vlm):
    image = tiny.image(50)
    first = vlm.generate("What?", image, max_tokens=2)
    again = vlm.generate("Why?", image, max_tokens=2)
    assert first.timings.encode > 0
    assert (again.timings.encode, again.timings.project) == (0, 0)


def test_options_and_weights_tell_images_apart(vlm, tmp_path):
    image, shared = tiny.image(51), Recent()
    arrays = tiny.official()
    one = ondevice.load_vlm(tiny.write(tmp_path / "one", arrays), cache=shared)
    key = "model.mm_projector.2.bias"
    other = ondevice.load_vlm(
        tiny.write(tmp_path / "other", arrays | {key: arrays[key] + 1}), cache=shared
    )
    tokens = [
        model.encode_image(image, vision=vision)
        for model in (one, other)
        for vision in (Vision(size=128), Vision(size=128, crop="center"))
    ]
    assert len(shared) == 4
    assert mx.allclose(tokens[2], tokens[0] + 1, atol=1e-5)
    assert not mx.allclose(tokens[1], tokens[0])


def test_only_the_last_images_are_remembered():
    cache = Recent(capacity=2)
    for key in "aba c".replace(" ", ""):
        cache.put((key,), mx.array(0))
    assert [cache.get((key,)) is None for key in "abc"] == [False, True, False]


# --- fewer tokens


def test_dct_keeps_what_is_smooth_and_drops_the_rest():
    fewer, restore = dct(wave(8, 0, 1, 3, 5), 16)
    assert fewer.shape == (1, 16, 4)
    assert mx.allclose(fewer[..., :3], wave(4, 0, 1, 3), atol=1e-5)
    assert mx.abs(fewer[..., 3]).max() < 1e-6
    assert mx.allclose(restore(fewer)[..., :3], wave(8, 0, 1, 3), atol=1e-5)


def test_dct_to_as_many_tokens_changes_nothing():
    tokens = mx.array(RNG.normal(size=(2, 49, 5)), mx.float32)
    assert mx.allclose(dct(tokens, 49)[0], tokens, atol=1e-5)


def test_dct_loses_the_energy_of_the_frequencies_it_drops():
    tokens = mx.array(RNG.normal(size=(1, 64, 500)), mx.float32)
    fewer, restore = dct(tokens, 16)
    assert math.isclose(relative_error(restore(fewer), tokens), math.sqrt(3 / 4), rel_tol=0.01)


def test_merging_tokens_that_are_all_alike_in_groups_loses_nothing():
    kinds = np.eye(4, 32)
    tokens = mx.array(kinds[[0, 1, 2, 3] * 4][None], mx.float32)
    fewer, restore = merge(tokens, 16)
    assert relative_error(restore(fewer), tokens) < 1e-6
    distinct = mx.array(np.concatenate([kinds, kinds[:1].repeat(12, 0)])[None], mx.float32)
    fewer, restore = merge(distinct, 4)
    assert relative_error(restore(fewer), distinct) < 1e-6
    assert mx.allclose(mx.sort(fewer.argmax(-1)), mx.array([[0, 1, 2, 3]]))


def test_merged_tokens_are_means_of_all():
    tokens = mx.array(RNG.normal(size=(2, 16, 8)), mx.float32)
    fewer, _ = merge(tokens, 1)
    assert mx.allclose(fewer[:, 0], tokens.mean(axis=1), atol=1e-5)
    assert mx.allclose(merge(tokens + 0.0, 4)[0], merge(tokens, 4)[0])


@pytest.mark.parametrize("method", ["dct", "merge"])
def test_fewer_tokens_lose_more(vlm, method):
    image = tiny.image(3)
    errors = [
        reconstruction_error(vlm.tower, image, Vision(size=256, tokens=n, method=method))
        for n in (16, 9, 4, 1)
    ]
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] + 0.05
    if method == "dct":
        assert errors[0] < 2e-6


@pytest.mark.parametrize("method", ["dct", "merge"])
def test_a_quarter_of_the_tokens_is_what_the_language_model_reads(vlm, method):
    vision = Vision(size=256, tokens=4, method=method)
    answer = vlm.generate("What?", tiny.image(), vision=vision, max_tokens=3)
    full = vlm.generate("What?", tiny.image(), max_tokens=3)
    assert (answer.timings.image_tokens, full.timings.image_tokens) == (4, 16)
    assert full.timings.prompt_tokens - answer.timings.prompt_tokens == 12
    assert answer.timings.tokens == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 1000}, "size=1000 is no multiple of 64"),
        ({"size": 0}, "size=0"),
        ({"crop": "squash"}, "no crop 'squash'; there are pad, center"),
        ({"tokens": 300}, "tokens=300 of the 256 that 1024 px make"),
        ({"tokens": 0}, "tokens=0"),
        ({"tokens": 60}, "tokens=60 is no square, which dct needs"),
        ({"method": "drop", "size": 5}, "size=5 .*; no method 'drop'; there are dct, merge"),
    ],
)
def test_impossible_options_are_all_named(options, said):
    with pytest.raises(ConfigError, match=said):
        Vision(**options)


def test_merging_takes_any_number():
    assert Vision(tokens=60, method="merge").count == 60
    assert (Vision().count, Vision(size=1536).count) == (256, 576)
