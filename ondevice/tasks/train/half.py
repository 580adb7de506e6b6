"""Half precision: a step computes in 16 bits; weights, statistics and sums are kept in 32.

Paper: https://arxiv.org/abs/1710.03740 (mixed precision training, with a scaled loss)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ...errors import ConfigError, TrainingError
from ...image.preprocess import normalize
from .optimizer import Arrays

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

PRECISIONS = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
MAX_ERROR = 0.1  # of the logits, by their norm: more, and steps would go elsewhere
FIRST_SCALE = 2.0**12
STEPS_UP = 500  # in a row without an overflow, after which the scale is doubled


def in_precision(model: nn.Module, parameters: Arrays, precision: str) -> Arrays:
    """``parameters`` of ``model`` in half precision, but for those of batch norms."""
    norms = [f"{k}." for k, layer in model.named_modules() if isinstance(layer, nn.BatchNorm)]
    kept = tuple(norms)
    dtype = PRECISIONS[precision]
    return {k: v if k.startswith(kept) else v.astype(dtype) for k, v in parameters.items()}


def check_precision(model: nn.Module, precision: str, images: Sequence[Array]) -> None:
    """Raises ConfigError if the model does not compute about the same in ``precision``.

    ``images`` are (size, size, 3) pixel values. The model is left in eval mode.
    """
    x = normalize(mx.array(np.stack(images)), model.info.preprocess)
    exact: Arrays = dict(tree_flatten(model.eval().parameters()))
    wanted = np.array(model(x))
    cast = in_precision(model, exact, precision)
    model.update(tree_unflatten(list(cast.items())))
    found = np.array(model(x.astype(PRECISIONS[precision])).astype(mx.float32))
    model.update(tree_unflatten(list(exact.items())))
    error = np.linalg.norm(found - wanted) / max(float(np.linalg.norm(wanted)), 1e-12)
    if not error <= MAX_ERROR:
        raise ConfigError(
            f"precision {precision} does not hold for {model.info.name}: its logits are off by "
            f"{error:.0%} on {len(images)} images; use bfloat16 or float32"
        )


class LossScale:
    """By what the loss is multiplied so that float16 holds its gradients: as much as it can.

    ``state`` is the scale, and the steps since it last changed.
    """

    def __init__(self, precision: str) -> None:
        self.changes = precision == "float16"
        self.state = [FIRST_SCALE if self.changes else 1.0, 0.0]

    @property
    def value(self) -> float:
        """What to divide gradients by."""
        return self.state[0]

    def fits(self, gradients: Arrays) -> bool:
        """Whether all ``gradients`` are finite; the next scale is chosen by it.

        Raises TrainingError if they are not whatever the scale.
        """
        if not self.changes:
            return True
        fine = bool(mx.isfinite(mx.stack([g.sum() for g in gradients.values()])).all().item())
        scale, steps = self.state
        if not fine and scale < 1:
            raise TrainingError("gradients are too large for float16, use bfloat16")
        if not fine:
            self.state = [scale / 2, 0.0]
        elif steps + 1 >= STEPS_UP:
            self.state = [scale * 2, 0.0]
        else:
            self.state = [scale, steps + 1]
        return fine
