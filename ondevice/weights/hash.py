"""What tells the weights of one model from another's."""

from __future__ import annotations

import hashlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's parameters: their names, shapes and values.

    Floating-point values count as float32, so that a model in half precision and the same
    values in single precision have one hash. Indexes and packages carry it.
    """
    digest = hashlib.sha256()
    parameters: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name, array in sorted(parameters.items()):
        if mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(mx.float32)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.asarray(array.flatten().view(mx.uint8)).data)
    return digest.hexdigest()
