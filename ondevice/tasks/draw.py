"""Results drawn: depth in colours, masks over a photo, boxes on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..image.colours import palette, shaded

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from ..signature.decode import Detection

    Array = np.ndarray[Any, Any]

OPAQUE = 0.6  # of a mask's colours over a photo


def draw_depth(depth: Array) -> Image.Image:
    """(H, W) values as an image in colours, from the least in dark to the largest in light."""
    import numpy as np
    from PIL import Image

    low, high = float(depth.min()), float(depth.max())
    return Image.fromarray(shaded(np.asarray(depth - low) / ((high - low) or 1.0)))


def draw_mask(photo: Image.Image, mask: Array, classes: int) -> Image.Image:
    """(H, W) class numbers as colours over a photo of that size."""
    import numpy as np
    from PIL import Image

    colours = np.array(palette(classes), np.uint8)[mask]
    return Image.blend(photo, Image.fromarray(colours), OPAQUE)


def draw_boxes(photo: Image.Image, found: Sequence[Detection]) -> Image.Image:
    """A photo with a box around each object, its class and its score on it."""
    from PIL import ImageDraw, ImageFont

    image = photo.copy()
    pen = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 300))
    font = ImageFont.load_default(size=max(10, 6 * line))
    colours = palette(max((d.index for d in found), default=0) + 1)
    for each in reversed(found):  # the surest on top
        x, y, width, height = each.box
        colour, text = colours[each.index], f"{each.label} {each.score:.0%}"
        pen.rectangle((x, y, x + width, y + height), outline=colour, width=line)
        _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
        top = max(y - bottom - line, 0)
        pen.rectangle((x, top, x + right + 2 * line, top + bottom + line), fill=colour)
        ink = "black" if sum(colour) > 3 * 127 else "white"
        pen.text((x + line, top), text, fill=ink, font=font)
    return image
