"""From images to a model's input, with the very pixels of timm's evaluation transform.

Resizing is PIL's, antialiased, on 8-bit pixel values, with torchvision's rules for sizes and
crops.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import mlx.core as mx

from ..config import Preprocess
from ..cpu import kernels
from ..errors import ConfigError, ImageError
from .open import MAX_PIXELS, as_rgb, name_of

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .open import ImageLike

    OnError: TypeAlias = Callable[[int, ImageError], object]
    Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]


def preprocess(
    images: ImageLike | Iterable[ImageLike], spec: Preprocess, *, size: int | None = None
) -> mx.array:
    """One image or several as a float32 array (B, size, size, 3), normalized.

    An image is a path, an open file, a PIL image, or an array of uint8 pixel values of shape
    (height, width), (height, width, 3) or (height, width, 4), whose alpha is dropped. Floats
    are refused, because the scale they have cannot be known. ``size`` replaces the spec's.

    Raises ImageError that lists every image that cannot be used.
    """
    found = list(batches(images, spec, size=size, batch_size=sys.maxsize))
    if not found:
        raise ImageError("no images were given")
    return found[0]


def batches(
    images: ImageLike | Iterable[ImageLike],
    spec: Preprocess,
    *,
    size: int | None = None,
    batch_size: int = 16,
    on_error: OnError | None = None,
) -> Iterator[mx.array]:
    """As ``preprocess``, but ``batch_size`` images at a time, of any number of them.

    Files are decoded by several threads: one image a thread is in memory in its full size. An
    image that cannot be used is left out and given to ``on_error``, by its position and the
    ImageError; without ``on_error``, the rest is read to find all of them, and an ImageError
    lists them. Raises ConfigError for an impossible ``batch_size``.
    """
    import numpy as np

    if not (isinstance(batch_size, SupportsIndex) and batch_size >= 1):
        raise ConfigError(f"batch_size is a number of images, 1 or more; given {batch_size!r}")
    if not isinstance(spec, Preprocess):
        raise ConfigError(
            f"spec is a Preprocess, such as model.info.preprocess; given {type(spec).__name__}"
        )
    spec = spec if size is None else replace(spec, size=size)
    problems: list[str] = []
    report = on_error or (lambda _, error: problems.append(str(error)))
    given = enumerate(each(images))
    while group := _next_batch(given, spec, batch_size, report):
        if not problems:
            yield normalize(mx.array(np.stack(group)), spec)
    if problems:
        raise ImageError("; ".join(problems))


def normalize(pixels: mx.array, spec: Preprocess) -> mx.array:
    """Pixel values 0-255 (..., 3) as the model expects them: ``(x / 255 - mean) / std``."""
    return kernels.normalize(
        pixels.astype(mx.float32) / 255, mx.array(spec.mean), mx.array(spec.std)
    )


def resize_and_crop(image: ImageLike, spec: Preprocess) -> Pixels:
    """An image as the (size, size, 3) pixel values that the model sees. Raises ImageError."""
    import numpy as np

    *_, (_, last) = steps(image, spec)
    return np.asarray(last)


def steps(image: ImageLike, spec: Preprocess) -> Iterator[tuple[str, Image.Image]]:
    """The image upright, and after each step of ``resize_and_crop`` with what was done.

    Raises ImageError.
    """
    from PIL import Image

    rgb = as_rgb(image)
    yield "upright", rgb
    filter_ = Image.Resampling[spec.interpolation.upper()]
    if spec.source_size is not None:
        rgb = _resized(_center_square(rgb), (spec.source_size,) * 2, filter_)
        yield "reduced", rgb
    if spec.crop_mode == "pad":
        _check_area((max(rgb.size),) * 2, image)
        rgb = _centered(rgb, max(rgb.size), spec.fill)
        yield "padded", rgb
    target = _SIZES[spec.crop_mode](rgb.size, math.floor(spec.size / spec.crop_pct))
    _check_area(target, image)
    resized = _resized(rgb, target, filter_)
    yield "resized", resized
    fill = _mean_color(spec) if spec.crop_mode == "border" else spec.fill
    yield "cropped", _centered(resized, spec.size, fill)


Size: TypeAlias = tuple[int, int]  # width, height


def _resized(image: Image.Image, size: Size, filter_: Image.Resampling) -> Image.Image:
    """Its width first, then its height.

    From 13 on Pillow begins with the height of a tall image, which rounds other values
    between the passes; models were trained and measured with the older order.
    """
    return image.resize((size[0], image.height), filter_).resize(size, filter_)


Rectangle: TypeAlias = tuple[float, float, float, float]  # x, y, width, height


def window(size: Size, spec: Preprocess) -> Rectangle:
    """The part of a photo of ``size`` that the model's square shows, in the photo's pixels.

    It reaches beyond the photo where the square is padded.
    """
    left, top, (width, height) = 0, 0, size
    if spec.source_size is not None:
        width = height = min(size)
        left, top = ((n - width) // 2 for n in size)
    elif spec.crop_mode == "pad":
        width = height = max(size)
        left, top = (_before(n, width) for n in size)
    edge = math.floor(spec.size / spec.crop_pct)
    target = _SIZES[spec.crop_mode]((width, height), edge)
    across, down = width / target[0], height / target[1]
    return (
        left + across * _before(target[0], spec.size),
        top + down * _before(target[1], spec.size),
        across * spec.size,
        down * spec.size,
    )


def _before(length: int, side: int) -> int:
    """What is cut off before the middle ``side`` of a length; below 0 it is put there."""
    return -((side - length) // 2) if length < side else round((length - side) / 2)


def _short_edge(size: Size, edge: int) -> Size:
    short, long = sorted(size)
    other = int(edge * long / short)
    return (edge, other) if size[0] <= size[1] else (other, edge)


def _long_edge(size: Size, edge: int) -> Size:
    ratio = max(size) / edge
    return max(round(size[0] / ratio), 1), max(round(size[1] / ratio), 1)


def _both_edges(size: Size, edge: int) -> Size:
    return edge, edge


# What an image is resized to before its centre is cut out, by crop mode.
_SIZES: dict[str, Callable[[Size, int], Size]] = {
    "center": _short_edge,
    "squash": _both_edges,
    "border": _long_edge,
    "pad": _both_edges,
}


def _center_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle; half a pixel goes to the left and the top."""
    side = min(image.size)
    left, top = ((n - side) // 2 for n in image.size)
    return image.crop((left, top, left + side, top + side))


def _centered(image: Image.Image, side: int, fill: tuple[int, int, int]) -> Image.Image:
    """The middle of ``image`` as a square of ``side`` px, cropped or padded, as torchvision."""
    from PIL import Image

    square = Image.new("RGB", (side, side), fill)
    left, top = (-_before(n, side) for n in image.size)
    square.paste(image, (left, top))
    return square


def _mean_color(spec: Preprocess) -> tuple[int, int, int]:
    red, green, blue = (round(255 * m) for m in spec.mean)
    return red, green, blue


def _check_area(size: Size, image: ImageLike) -> None:
    if math.prod(size) > MAX_PIXELS:
        raise ImageError(
            f"{name_of(image)} is so long and narrow that it would take {size[0]:,} x "
            f"{size[1]:,} px on the way; crop it first"
        )


def _next_batch(
    images: Iterator[tuple[int, ImageLike]], spec: Preprocess, count: int, on_error: OnError
) -> list[Pixels]:
    """The next ``count`` images that can be used, or as many as there still are."""
    found: list[Pixels] = []
    while len(found) < count and (some := _prepared(images, spec, count - len(found))):
        for position, result in some:
            if isinstance(result, ImageError):
                on_error(position, result)
            else:
                found.append(result)
    return found


def _prepared(
    images: Iterator[tuple[int, ImageLike]], spec: Preprocess, count: int
) -> list[tuple[int, Pixels | ImageError]]:
    """The next ``count`` images, or why one cannot be used; of several files in parallel."""
    given = itertools.islice(images, count)
    # What is no file is in memory already, and makes room for the next one at once.
    some: list[tuple[int, Any]] = [
        (i, x if _is_file(x) else _attempt(x, spec)) for i, x in given
    ]
    files = {i: x for i, x in some if _is_file(x)}
    done = dict(zip(files, _attempt_all(list(files.values()), spec), strict=True))
    return [(i, done.get(i, x)) for i, x in some]


def _attempt_all(files: list[ImageLike], spec: Preprocess) -> list[Pixels | ImageError]:
    if len(files) < 2:
        return [_attempt(file, spec) for file in files]
    from concurrent.futures import ThreadPoolExecutor

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # here, once: in threads it is undone at random
        return list(pool.map(lambda file: _attempt(file, spec), files))


def _is_file(image: Any) -> bool:
    return isinstance(image, str | os.PathLike)


def _attempt(image: ImageLike, spec: Preprocess) -> Pixels | ImageError:
    try:
        return resize_and_crop(image, spec)
    except ImageError as error:
        return error


def each(images: Any) -> Iterable[ImageLike]:
    """The images in ``images``, which may be one, or an array of shape (B, H, W, C)."""
    from PIL import Image

    if hasattr(images, "shape"):
        return images if len(images.shape) == 4 else [images]
    one = _is_file(images) or isinstance(images, Image.Image) or hasattr(images, "read")
    return [images] if one or not isinstance(images, Iterable) else images
