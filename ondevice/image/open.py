"""Images of any kind as upright 8-bit RGB.

Colours are what PIL's ``convert("RGB")`` makes of them, as in timm, where the accuracy of
published weights was measured: alpha is dropped, not composed on a background, and colour
profiles are not applied: the Display P3 values of an iPhone's photo are taken as they are.
(An app that draws such a photo into an sRGB buffer converts its colours first.) Of more than
8 bits the upper 8 are kept; what is white may be said: see ``open_image``.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from ..errors import ConfigError, ImageError, printable

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    from PIL import Image

    Array: TypeAlias = np.ndarray[Any, Any] | mx.array
    ImageLike: TypeAlias = str | os.PathLike[str] | BinaryIO | Image.Image | Array

MAX_PIXELS = 178_956_970  # what PIL opens at most; resized images are held to it as well
_ACCEPTED = (
    "give a path, a PIL image, or uint8 pixels of shape (height, width), (height, width, 3) "
    "or (height, width, 4)"
)
_HEIC = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())
_AVIF = frozenset(b"avif avis".split())
_PROGRAMS = {"EPS"}  # opening one would run Ghostscript
_WHITE = 2**16 - 1  # what is white in 16 bits
_DARK = 2**14  # below, 16 bits most likely hold 10, 12 or 14
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFile(os.PathLike[str]):
    """A path to an image with the value that is white in it, wherever a path will do."""

    path: str
    max_level: float | None = None

    def __fspath__(self) -> str:
        return self.path


def as_rgb(image: ImageLike) -> Image.Image:
    """A path, open file, PIL image or uint8 array (height, width[, 1, 3 or 4]) as PIL RGB.

    Raises ImageError.
    """
    from PIL import Image

    given: Any = image
    if isinstance(given, Image.Image):
        return _decode(given, name_of(given))
    if isinstance(given, str | os.PathLike) or hasattr(given, "read"):
        return open_image(given)
    if hasattr(given, "dtype"):
        return _from_array(given)
    raise ImageError(f"{type(given).__name__} is no image; {_ACCEPTED}")


def open_image(
    source: str | os.PathLike[str] | BinaryIO, *, max_level: float | None = None
) -> Image.Image:
    """The first frame of an image file, turned upright as its EXIF data say, in RGB.

    ``max_level`` is the value that is white in grey images of more than 8 bits: 4095 of 12
    bits in a 16-bit file, 1.0 of floats from 0 to 1. Without it it is 65535, what seems to
    have fewer bits is logged as a warning, and values of 32 bits are refused.

    Raises ImageError if the file is missing, empty, truncated, no image, of a format that
    needs a plugin, or has more than ``MAX_PIXELS`` according to its header; ConfigError for a
    ``max_level`` that no image can have.
    """
    from PIL import Image, UnidentifiedImageError

    name = name_of(source)
    if max_level is None:
        max_level = getattr(source, "max_level", None)
    if max_level is not None and not 0 < max_level < 2**32:
        raise ConfigError(f"max_level is a positive number; given {max_level}")
    if isinstance(source, str | os.PathLike):
        _check_file(source, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images, odd metadata
            with _opened(source) as image:
                return _decode(image, name, max_level)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        problem = f"has more than {MAX_PIXELS:,} pixels; make it smaller first"
    except UnidentifiedImageError:
        problem = _why_unknown(source)
    except Exception as error:  # PIL's plugins raise nearly anything for a broken file
        problem = f"cannot be read: {error}"
    raise ImageError(f"{name} {problem}")


_TURNED = range(5, 9)  # orientations of EXIF in which width and height change places


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """The width and height of what ``open_image`` gives, from the file's header if that says.

    Raises ImageError.
    """
    from PIL import ExifTags, Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
                width, height = image.size
    except Exception:  # PIL's plugins raise nearly anything; what is wrong is found below
        return open_image(path).size
    return (height, width) if turned else (width, height)


def _opened(source: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """What PIL opens; HEIC by pillow-heif, which is asked only if there is some."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source)
    except UnidentifiedImageError:
        if _mp4_brand(source) not in _HEIC or not _register_heif():
            raise
        return Image.open(source)


def _register_heif() -> bool:
    """Let PIL read HEIC; False if nothing that does is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _mp4_brand(source: str | os.PathLike[str] | BinaryIO) -> bytes:
    """Four letters that tell apart the formats whose files are built as MP4's are."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            start = file.read(12)
    else:
        source.seek(0)
        start = source.read(12)
    return start[8:12] if start[4:8] == b"ftyp" else b""


def _why_unknown(source: str | os.PathLike[str] | BinaryIO) -> str:
    brand = _mp4_brand(source)
    if brand in _HEIC:
        return "is HEIC, which needs pillow-heif: pip install 'ondevice[heif]'"
    if brand in _AVIF:
        return "is AVIF, which needs Pillow 11.3 or later: pip install -U pillow"
    return "is not an image, or of a kind that PIL does not read; use JPEG or PNG"


def name_of(image: object) -> str:
    """What to call ``image`` in a message: its path or file's name, if it has one."""
    if isinstance(image, str | os.PathLike):
        return printable(os.fspath(image))
    name = getattr(image, "name", "") or getattr(image, "filename", "")
    return printable(str(name)) if name else "the given image"


def _check_file(path: str | os.PathLike[str], name: str) -> None:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be opened: {problem}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"{name} {_why_not_entered(path, name)}")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{name} is not a regular file")
    if found.st_size == 0:
        raise ImageError(f"{name} is empty")


def _why_not_entered(folder: str | os.PathLike[str], name: str) -> str:
    if os.path.islink(os.path.abspath(folder)):
        return "is a link to a folder, which is not followed; give that folder itself"
    if not os.access(folder, os.R_OK | os.X_OK):
        return "is a folder that may not be read"
    return f"is a folder; give image files, such as {name}/*.jpg"


def _decode(image: Image.Image, name: str, max_level: float | None = None) -> Image.Image:
    try:
        if image.format in _PROGRAMS:
            raise ImageError(f"{name} is PostScript, a program; save it as PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _eight_bits(image, name, max_level).convert("RGB")
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # PIL's decoders raise nearly anything for a broken file
        raise ImageError(f"{name} is damaged: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data are no reason to refuse good pixels
        return image


def _eight_bits(image: Image.Image, name: str, max_level: float | None) -> Image.Image:
    """``image`` upright, in a mode of 8 bits."""
    stored = str(getattr(image, "tile", ""))  # as it is until it is loaded
    tags = getattr(image, "tag_v2", {})
    upright = _upright(image)
    if upright.mode != "F" and not upright.mode.startswith("I"):
        if ";16" in stored:
            _check_deep_colours(upright, name, max_level)
        elif max_level is not None:
            _log.warning("%s has 8 bits: no --max-level (max_level=) applies", name)
        return upright
    import numpy as np
    from PIL import Image

    if tags.get(_BITS_PER_SAMPLE) == (12,):
        max_level = max_level or 2**12 - 1
    pixels = _grey_pixels(np.asarray(upright), name, max_level)
    return Image.fromarray(255 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels)


def _grey_pixels(given: Any, name: str, max_level: float | None) -> Any:
    """Pixel values of any type as 8 bits, white at ``max_level``. Raises ImageError."""
    import numpy as np

    low, high = given.min(), given.max()
    if max_level is not None:
        if not np.isfinite(given).all():
            raise ImageError(f"{name} has NaN or infinite pixel values")
        if high > max_level:
            _log.warning(
                "%s has values up to %g: all above %g are white", name, high, max_level
            )
        return np.rint(np.clip(given * (255 / max_level), 0, 255)).astype(np.uint8)
    if given.dtype.kind == "f" or low < 0 or high > _WHITE:
        raise ImageError(
            f"{name} has {given.dtype} pixels of unknown scale; say which value is white with "
            "--max-level (max_level=), or save it with 8 or 16 bits"
        )
    if 0 < high < _DARK:
        _log.warning(
            "%s has values up to %d of %d and comes out nearly black; if that is white, give "
            "--max-level %d (max_level=)",
            *(name, high, _WHITE, next(2**b - 1 for b in (8, 10, 12, 14) if high < 2**b)),
        )
    return (given >> 8).astype(np.uint8)


def _check_deep_colours(image: Image.Image, name: str, max_level: float | None) -> None:
    """Of 16-bit colours PIL gives the upper 8 bits alone: too late to say what is white."""
    if max_level is not None:
        raise ImageError(
            f"{name} has 16-bit colours, of which PIL keeps the upper 8 bits: no --max-level "
            "(max_level=) applies; save it with 8 bits"
        )
    bands: Any = image.convert("RGB").getextrema()
    high = max(high for _, high in bands)
    if 0 < high < _DARK >> 8:
        _log.warning(
            "%s has 16-bit colours up to %d of %d and comes out nearly black; save it with 8 "
            "bits, with its white at 255",
            *(name, high << 8 | 255, _WHITE),
        )


def _from_array(array: Array) -> Image.Image:
    import numpy as np
    from PIL import Image

    if not str(array.dtype).endswith("uint8") or not _is_image_shape(array.shape):
        given = f"{array.dtype} array of shape {tuple(array.shape)}"
        raise ImageError(f"{given} is no image; {_ACCEPTED}")
    pixels = np.asarray(array)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _is_image_shape(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
