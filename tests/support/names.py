"""The registered models by what they are."""

from __future__ import annotations

from ondevice import list_models, model_spec
from ondevice.nn.detection import Detector
from ondevice.nn.image_model import ImageModel


def image_encoders() -> list[str]:
    """Those that give an embedding of an image, and no text's beside it."""
    return [name for name in list_models() if _is_a(ImageModel, model_spec(name).build)]


def detectors() -> set[str]:
    """Those that give boxes."""
    return {name for name in list_models() if _is_a(Detector, model_spec(name).build)}


def _is_a(kind: type, build: object) -> bool:
    return isinstance(build, type) and issubclass(build, kind)
