import itertools
import math
import os
import warnings
import weakref
from functools import cache
from pathlib import Path
from threading import Barrier

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image, ImageOps

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, ImageError
from ondevice.image import preprocess as preprocessing
from ondevice.image.preprocess import batches, normalize, preprocess, resize_and_crop

from ...parity import torchvision_ops

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Wide, tall, square, smaller than any crop, one pixel short of a crop, very narrow.
SIZES = [(211, 130), (97, 160), (120, 120), (20, 13), (63, 65), (300, 9)]


def noisy_image(width, height):
    """Smooth colours with noise on them: every filter gives other values."""
    rng = np.random.default_rng(width * 1000 + height)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    return Image.fromarray((0.7 * smooth + rng.integers(0, 76, smooth.shape)).astype(np.uint8))


def torchvision_crop(image, size, fill):
    """CenterCrop, step by step: pad what is too small, then cut at rounded offsets."""
    w, h = image.size
    border = [(size - w) // 2, (size - h) // 2, (size - w + 1) // 2, (size - h + 1) // 2]
    image = ImageOps.expand(image, tuple(max(n, 0) for n in border), fill)
    left, top = (round((n - size) / 2.0) for n in image.size)
    return image.crop((left, top, left + size, top + size))


def by_hand(image, spec):
    """What timm's transform does, written down separately."""
    w, h = image.size
    edge = math.floor(spec.size / spec.crop_pct)
    fill = (0, 0, 0)
    if spec.crop_mode == "squash":
        target = (edge, edge)
    elif spec.crop_mode == "border":
        ratio = max(w / edge, h / edge)
        target = (round(w / ratio), round(h / ratio))
        fill = tuple(round(255 * m) for m in spec.mean)
    else:
        target = (edge, int(edge * h / w)) if w <= h else (int(edge * w / h), edge)
    filter_ = FILTERS[spec.interpolation]
    resized = image.resize((target[0], h), filter_).resize(target, filter_)
    return np.array(torchvision_crop(resized, spec.size, fill))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "crop_pct"), [(64, 0.875), (64, 1.0), (65, 0.9)])
def test_pixels_are_those_of_the_rules_written_by_hand(
    interpolation, crop_mode, size, crop_pct
):
    spec = Preprocess(
        size=size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation
    )
    for width_height in SIZES:
        image = noisy_image(*width_height)
        assert np.array_equal(resize_and_crop(image, spec), by_hand(image, spec)), width_height


@pytest.mark.parametrize("width_height", SIZES)
def test_pad_centres_the_image_on_a_square_of_the_fill(width_height):
    image = noisy_image(*width_height)
    w, h = image.size
    square = Image.new("RGB", (max(w, h),) * 2, (9, 8, 7))
    square.paste(image, ((max(w, h) - w) // 2, (max(w, h) - h) // 2))
    spec = Preprocess(size=64, crop_pct=1.0, crop_mode="pad", fill=(9, 8, 7))
    expected = np.array(square.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_and_crop(image, spec), expected)


def test_source_size_reduces_the_centre_square_first():
    image = noisy_image(211, 130)  # its square starts at (211 - 130) // 2 = 40
    thumbnail = image.crop((40, 0, 170, 130)).resize((32, 32), Image.Resampling.BICUBIC)
    spec = Preprocess(size=96, crop_pct=1.0, source_size=32)
    expected = np.array(thumbnail.resize((96, 96), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_and_crop(image, spec), expected)


def test_an_image_of_the_source_size_is_only_enlarged():
    image = noisy_image(32, 32)
    spec = Preprocess(size=96, crop_pct=1.0, source_size=32)
    expected = np.array(image.resize((96, 96), Image.Resampling.BICUBIC))
    assert np.array_equal(resize_and_crop(image, spec), expected)


def test_normalizing_is_float32_arithmetic_on_pixel_values():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    spec = Preprocess(size=16)
    mean, std = np.float32(spec.mean), np.float32(spec.std)
    expected = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    # One unit in the last place: a compiler may multiply by a reciprocal.
    assert np.allclose(normalize(mx.array(pixels), spec), expected, rtol=3e-7, atol=1e-7)


def test_every_way_to_give_an_image_gives_the_same(tmp_path):
    image, spec = noisy_image(90, 70), Preprocess(size=32)
    image.save(tmp_path / "a.png")
    expected = preprocess(image, spec)
    assert expected.shape == (1, 32, 32, 3)
    assert expected.dtype == mx.float32
    pixels = np.array(image)
    with (tmp_path / "a.png").open("rb") as file:
        for same in (
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            file,
            pixels,
            mx.array(pixels),
        ):
            assert mx.array_equal(preprocess(same, spec), expected)


def test_grey_and_transparent_arrays_are_read_as_their_colours():
    grey, spec = np.array(noisy_image(40, 40))[..., 0], Preprocess(size=32)
    expected = resize_and_crop(np.stack([grey] * 3, axis=-1), spec)
    assert np.array_equal(resize_and_crop(grey, spec), expected)
    assert np.array_equal(resize_and_crop(grey[..., None], spec), expected)
    transparent = np.stack([grey] * 3 + [255 - grey], axis=-1)
    assert np.array_equal(resize_and_crop(transparent, spec), expected)


def test_lists_generators_and_stacked_arrays_are_batches():
    images, spec = (
        [noisy_image(50, 40), noisy_image(40, 50), noisy_image(45, 45)],
        Preprocess(size=32),
    )
    expected = mx.concatenate([preprocess(image, spec) for image in images])
    assert mx.array_equal(preprocess(images, spec), expected)
    assert mx.array_equal(preprocess((image for image in images), spec), expected)
    stacked = np.stack([np.array(noisy_image(40, 40))] * 2)
    assert preprocess(stacked, spec).shape == (2, 32, 32, 3)


def test_another_size_keeps_the_share_that_is_cropped():
    image, spec = noisy_image(100, 80), Preprocess(size=32, crop_pct=0.9)
    larger = Preprocess(size=64, crop_pct=0.9)
    assert mx.array_equal(preprocess(image, spec, size=64), preprocess(image, larger))


def test_batches_come_in_order_and_the_last_is_short():
    images, spec = [noisy_image(40 + n, 40) for n in range(5)], Preprocess(size=32)
    found = list(batches(iter(images), spec, batch_size=2))
    assert [len(x) for x in found] == [2, 2, 1]
    assert mx.array_equal(mx.concatenate(found), preprocess(images, spec))


def test_batches_of_an_endless_generator_keep_one_image_at_a_time():
    alive = weakref.WeakValueDictionary()

    def endless():
        for n in itertools.count():
            image = noisy_image(40, 40 + n)
            alive[n] = image
            yield image

    found = batches(endless(), Preprocess(size=32), batch_size=4)
    assert [len(next(found)) for _ in range(5)] == [4] * 5
    assert len(alive) <= 2  # the last one, and the one the generator still holds


def test_files_are_decoded_at_once_and_come_in_order(tmp_path, monkeypatch):
    for n in range(6):
        noisy_image(40 + n, 40).save(tmp_path / f"{n}.png")
    (tmp_path / "3.png").write_bytes(b"x")
    spec, problems, together = Preprocess(size=32), {}, Barrier(2, timeout=30)
    mixed = [tmp_path / f"{n}.png" if n % 2 else noisy_image(40 + n, 40) for n in range(6)]
    wanted = [resize_and_crop(noisy_image(40 + n, 40), spec) for n in (0, 1, 2, 4, 5)]
    decode = preprocessing.as_rgb

    def meeting(image):  # returns when two files are open at the same time
        if isinstance(image, Path) and image.stem in "15":
            together.wait()
        return decode(image)

    monkeypatch.setattr(preprocessing, "as_rgb", meeting)
    monkeypatch.setattr(preprocessing.os, "cpu_count", lambda: 2)
    filters = list(warnings.filters)
    found = list(batches(mixed, spec, batch_size=6, on_error=problems.__setitem__))
    assert mx.array_equal(mx.concatenate(found), normalize(mx.array(np.stack(wanted)), spec))
    assert list(problems) == [3]
    assert warnings.filters == filters


def test_every_bad_image_of_a_list_is_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    given = [tmp_path / "empty.jpg", noisy_image(40, 40), tmp_path / "missing.jpg"]
    for read in (preprocess, lambda *args: list(batches(*args, batch_size=1))):
        with pytest.raises(ImageError, match=r"empty\.jpg is empty; .*missing\.jpg cannot"):
            read(given, Preprocess(size=32))


def test_bad_images_can_be_left_out():
    good, problems = noisy_image(40, 40), {}
    given = [good, "missing.jpg", good, np.zeros(3), good]
    found = list(
        batches(given, Preprocess(size=32), batch_size=2, on_error=problems.__setitem__)
    )
    assert [len(x) for x in found] == [2, 1]
    assert {i: type(error) for i, error in problems.items()} == {1: ImageError, 3: ImageError}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((8, 8, 3), np.float32), r"float32 array of shape \(8, 8, 3\) is no image"),
        (mx.zeros((8, 8, 3)), r"float32 array of shape \(8, 8, 3\)"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 array of shape \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.zeros((8, 8), bool), "bool array"),
        (7, "int is no image"),
        ([], "no images were given"),
    ],
)
def test_what_is_no_image_is_refused_with_what_would_be(given, said):
    with pytest.raises(ImageError, match=said):
        preprocess(given, Preprocess(size=32))


@pytest.mark.parametrize("crop_mode", ["center", "pad"])
def test_a_thread_of_pixels_is_refused_before_memory_is_taken(crop_mode):
    thread = Image.new("RGB", (60_000, 1))
    with pytest.raises(ImageError, match="crop it first"):
        resize_and_crop(thread, Preprocess(size=224, crop_mode=crop_mode))


def test_border_keeps_a_line_of_a_very_narrow_image():
    pixels = resize_and_crop(Image.new("RGB", (2000, 1), "red"), Preprocess(crop_mode="border"))
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 224  # the rest is the mean colour


DATA = os.environ.get("ONDEVICE_DATA", "")


@cache
def photos():
    return [
        Image.open(path).convert("RGB")
        for path in sorted(Path(DATA).glob("imagenet_sample/*.jpg"))
    ]


@cache
def timm_transform():
    pytest.importorskip("torch")
    torchvision_ops.declare()
    return pytest.importorskip("timm.data.transforms_factory").transforms_imagenet_eval


def is_width_first(image):
    """Whether every Pillow resizes the width first, as we do: from 13 on not of tall images."""
    return image.height <= image.width


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not DATA, reason="ONDEVICE_DATA names no folder with imagenet_sample")
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "crop_pct"), [(224, 0.875), (256, 0.95), (384, 1.0)])
def test_no_pixel_differs_from_timm(interpolation, crop_mode, size, crop_pct):
    spec = Preprocess(
        size=size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation
    )
    transform = timm_transform()(
        size, crop_pct, crop_mode, interpolation=interpolation, mean=spec.mean, normalize=False
    )
    differing = 0
    for image in filter(is_width_first, photos()):
        theirs = transform(image).numpy().transpose(1, 2, 0)
        differing += np.count_nonzero((resize_and_crop(image, spec) != theirs).any(axis=-1))
    assert len(photos()) >= 100
    assert differing == 0


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not DATA, reason="ONDEVICE_DATA names no folder with imagenet_sample")
def test_the_normalized_batch_is_timms():
    spec = Preprocess(size=224, crop_pct=0.875)
    transform = timm_transform()(224, 0.875, interpolation="bicubic")
    ours = preprocess(photos()[:16], spec)
    theirs = np.stack([transform(image).numpy().transpose(1, 2, 0) for image in photos()[:16]])
    assert np.abs(np.array(ours) - theirs).max() < 1e-6  # the order of one rounding


@pytest.mark.parametrize("values", [{"mean": (123, 116, 103)}, {"std": (58, 57, 57)}])
def test_means_of_values_from_0_to_255_are_refused(values):
    with pytest.raises(ConfigError, match="from 0 to 1: divide by 255"):
        Preprocess(size=96, **values)


@pytest.mark.parametrize(
    "field",
    [
        {"size": 64.5},
        {"size": "64"},
        {"size": None},
        {"size": True},
        {"size": (64, 64)},
        {"crop_pct": "1"},
        {"mean": 0.5},
        {"mean": np.array([0.5, 0.5, 0.5])},
        {"std": None},
        {"std": ("a", "b", "c")},
        {"fill": (0.5, 0, 0)},
        {"source_size": 32.0},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_where_it_is_given(field):
    with pytest.raises(ConfigError, match=f"impossible preprocessing: {next(iter(field))} is"):
        Preprocess(**field)


def test_a_list_is_as_good_as_a_tuple():
    contract = Preprocess(mean=[0.5, 0.5, 0.5])
    assert contract == Preprocess.from_dict(contract.to_dict())
    assert hash(contract) == hash(Preprocess(mean=(0.5, 0.5, 0.5)))


@pytest.mark.parametrize("size", [64.0, "64", (64, 64)])
def test_a_size_is_a_number_of_pixels(size):
    with pytest.raises(ConfigError, match="size is"):
        preprocess(noisy_image(40, 40), Preprocess(size=32), size=size)
