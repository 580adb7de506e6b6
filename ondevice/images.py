"""Pictures of any kind as upright 8-bit RGB.

Colours are what PIL's ``convert("RGB")`` makes of them, as in timm, where the accuracy of
published weights was measured: alpha is dropped, not composed on a background, and colour
profiles are not applied. 16-bit grey keeps its upper 8 bits, as PIL does for 16-bit colour.
"""

from __future__ import annotations

import os
import stat
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from .errors import ImageError, printable

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    from PIL import Image

    Array: TypeAlias = np.ndarray[Any, Any] | mx.array
    ImageLike: TypeAlias = str | os.PathLike[str] | BinaryIO | Image.Image | Array

MAX_PIXELS = 178_956_970  # what PIL opens at most; resized images are held to it as well
_ACCEPTED = (
    "give a path, a PIL image, or uint8 levels of shape (height, width), (height, width, 3) "
    "or (height, width, 4)"
)
_PROGRAMS = {"EPS"}  # opening one would run Ghostscript


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


def open_image(source: str | os.PathLike[str] | BinaryIO) -> Image.Image:
    """The first frame of an image file, turned upright as its EXIF data say, in RGB.

    Raises ImageError if it is missing, empty, truncated, no image, or has more than
    ``MAX_PIXELS`` according to its header.
    """
    from PIL import Image, UnidentifiedImageError

    name = name_of(source)
    if isinstance(source, str | os.PathLike):
        _check_file(source, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, odd metadata
            with Image.open(source) as image:
                return _decode(image, name)
    except Image.DecompressionBombError:
        problem = f"has more than {MAX_PIXELS:,} pixels; make it smaller first"
    except UnidentifiedImageError:
        problem = "is not an image, or of a kind that PIL does not read; use JPEG or PNG"
    except (OSError, ValueError, SyntaxError) as error:
        problem = f"cannot be read: {error}"
    raise ImageError(f"{name} {problem}")


def name_of(image: object) -> str:
    """What to call ``image`` in a message: its path or file's name, if it has one."""
    if isinstance(image, str | os.PathLike):
        return printable(str(image))
    name = getattr(image, "name", "") or getattr(image, "filename", "")
    return printable(str(name)) if name else "the given image"


def _check_file(path: str | os.PathLike[str], name: str) -> None:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"{name} cannot be opened: {problem}") from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"{name} is a folder; give image files, such as {name}/*.jpg")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{name} is not a regular file")
    if found.st_size == 0:
        raise ImageError(f"{name} is empty")


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        if image.format in _PROGRAMS:
            raise ImageError(f"{name} is PostScript, a program; save it as PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _eight_bits(_upright(image), name).convert("RGB")
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


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    import numpy as np
    from PIL import Image

    levels = np.asarray(image)
    if image.mode == "F" or levels.min() < 0 or levels.max() >= 2**16:
        raise ImageError(
            f"{name} has {levels.dtype} pixels of unknown scale; save it with 8 or 16 bits"
        )
    return Image.fromarray((levels >> 8).astype(np.uint8))


def _from_array(array: Array) -> Image.Image:
    import numpy as np
    from PIL import Image

    if not str(array.dtype).endswith("uint8") or not _is_picture(array.shape):
        given = f"{array.dtype} array of shape {tuple(array.shape)}"
        raise ImageError(f"{given} is no image; {_ACCEPTED}")
    levels = np.asarray(array)
    if levels.ndim == 3:
        levels = levels[..., 0] if levels.shape[2] == 1 else levels[..., :3]
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


def _is_picture(shape: tuple[int, ...]) -> bool:
    return 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)))
