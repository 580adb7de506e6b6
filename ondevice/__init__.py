"""Efficient vision models in MLX, exported straight to verified Core ML packages."""

# backend comes first: it has to run before anything imports mlx.core.
from . import backend as backend, models as models
from .config import (
    FeatureInfo as FeatureInfo,
    ModelConfig as ModelConfig,
    ModelInfo as ModelInfo,
    Preprocess as Preprocess,
)
from .errors import OnDeviceError as OnDeviceError
from .fuse import fuse as fuse
from .registry import list_models as list_models, model_spec as model_spec
from .weights import (
    create_model as create_model,
    load_model as load_model,
    load_weights as load_weights,
    save_model as save_model,
)
