"""What is compared with an installed timm: every variant that is built in earnest."""

from __future__ import annotations

from typing import Any

from ondevice import model_spec

from ..support.names import EACH, MOST, image_encoders

OTHERS = {"shvit_nano", "fastvithd"}  # not timm's
OTHER_FAMILIES = {"vit", "cct"}  # compared in test_clip_parity.py; not timm's
SIZES = {"efficientvit_msra": 224, "shvit": 224, "dinov2": 140}  # by family, else:
SIZE = 128
OTHER_SIZES: list[tuple[str, int, dict[str, Any]]] = [
    ("shvit_s2", 160, {}),
    ("efficientvit_m1", 256, {}),  # 16 x 16 cells in windows of 7
    ("efficientvit_m4", 320, {"img_size": 320}),  # a 5 x 5 window last
    ("efficientvit_m2", 512, {"img_size": 512}),
    ("fastvit_sa12", 192, {}),
    ("fastvit_mci1", 320, {}),
    ("davit_tiny", 201, {}),
    ("visformer_tiny", 236, {"img_size": 236}),
    ("twins_svt_small", 224, {}),
]


def variants() -> list[str]:
    """Of every family; those of the three first ones whatever their size."""
    specs = [model_spec(name) for name in image_encoders() if name not in OTHERS]
    specs = [s for s in specs if s.family not in OTHER_FAMILIES]
    return [s.name for s in specs if (s.params or 0) <= MOST or s.family in EACH]


def cases() -> list[tuple[str, int, dict[str, Any]]]:
    """Name, pixels a side, and what both sides are told when they build the model."""
    return [*map(_case, variants()), *OTHER_SIZES]


def _case(name: str) -> tuple[str, int, dict[str, Any]]:
    """Of the only size that the variant takes, or else small."""
    spec = model_spec(name)
    if spec.config.only_size:
        return name, spec.config.only_size, {}
    size = SIZES.get(spec.family, SIZE)
    return name, size, {"img_size": size} if hasattr(spec.config, "img_size") else {}
