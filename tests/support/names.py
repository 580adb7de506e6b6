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


MOST = 100e6  # parameters of a model that is built in earnest
EACH = ("shvit", "efficientvit_msra", "fastvit")  # families of which every variant is tried


def representatives() -> list[str]:
    """The smallest and the largest variant of each family, and every one of the first three:
    between them are more or wider blocks of the same kind."""
    families: dict[str, list[str]] = {}
    for name in sorted(list_models(), key=lambda name: model_spec(name).params or 0):
        spec = model_spec(name)
        if (spec.params or 0) <= MOST or name == "fastvithd":
            families.setdefault(spec.family, []).append(name)
    ends = (names if f in EACH else {names[0], names[-1]} for f, names in families.items())
    return sorted(name for found in ends for name in found)
