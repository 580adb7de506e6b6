"""Efficient vision models in MLX, exported straight to verified Core ML packages."""

from importlib import import_module
from typing import TYPE_CHECKING

# cpu comes first: it has to run before anything imports mlx.core.
from . import cpu as cpu, models as models
from .config import (
    FeatureInfo as FeatureInfo,
    ModelConfig as ModelConfig,
    ModelInfo as ModelInfo,
    Preprocess as Preprocess,
)
from .errors import OnDeviceError as OnDeviceError
from .image.preprocess import preprocess as preprocess
from .nn.fuse import fuse as fuse
from .nn.quantize import quantize as quantize
from .registry import list_models as list_models, model_spec as model_spec

if TYPE_CHECKING:
    from .cpu.threads import run as run
    from .image.open import open_image as open_image
    from .signature.decode import Prediction as Prediction
    from .tasks.classify import classify as classify
    from .tasks.clip import load_clip as load_clip
    from .tasks.load import load as load
    from .tasks.train.run import train as train
    from .tasks.vlm import load_vlm as load_vlm
    from .weights.fit import load_weights as load_weights
    from .weights.folder import (
        create_model as create_model,
        load_model as load_model,
        save_model as save_model,
    )

# Imported when first asked for: what needs numpy, a fifth of a second of `ondevice list`.
_MODULES = {
    "Prediction": "signature.decode",
    "classify": "tasks.classify",
    "create_model": "weights.folder",
    "load": "tasks.load",
    "load_clip": "tasks.clip",
    "load_model": "weights.folder",
    "load_vlm": "tasks.vlm",
    "load_weights": "weights.fit",
    "open_image": "image.open",
    "run": "cpu.threads",
    "save_model": "weights.folder",
    "train": "tasks.train.run",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
