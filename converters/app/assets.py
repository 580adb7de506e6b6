"""The catalog of an app's icon and colour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw


def write_assets(folder: Path) -> None:
    """A catalog with a drawn icon and a colour, which the app's owner replaces."""
    said: dict[str, Any] = {"info": {"author": "xcode", "version": 1}}
    icon = {
        "filename": "icon.png",
        "idiom": "universal",
        "platform": "ios",
        "size": "1024x1024",
    }
    accent = {"color": {"platform": "ios", "reference": "systemTealColor"}}
    contents: dict[str, dict[str, Any]] = {
        "": {},
        "AppIcon.appiconset": {"images": [icon]},
        "AccentColor.colorset": {"colors": [{**accent, "idiom": "universal"}]},
    }
    for name, content in contents.items():
        where = folder / name
        where.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**content, **said}, indent=2)
        (where / "Contents.json").write_text(text + "\n", encoding="utf-8")
    _icon().save(folder / "AppIcon.appiconset/icon.png", optimize=True)


def _icon() -> Any:
    """1024 px: a lens."""
    image = Image.new("RGB", (1024, 1024), (18, 52, 64))
    draw = ImageDraw.Draw(image)
    for middle, radius, color in (
        (512, 380, (44, 122, 123)),
        (512, 300, (129, 230, 217)),
        (512, 220, (18, 52, 64)),
        (442, 70, (255, 255, 255)),
    ):
        low, high = middle - radius, middle + radius
        draw.ellipse((low, low, high, high), fill=color)
    return image
