"""AdamW with a learning rate for each depth, and the schedule of the rate.

Papers: https://arxiv.org/abs/1711.05101 (AdamW), https://arxiv.org/abs/1608.03983 (cosine),
https://arxiv.org/abs/2106.08254 (layer-wise decay, in the appendix)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx

Arrays = dict[str, mx.array]

BACKBONE = "backbone."  # of a detector, as its parameters are called
_GROUP = re.compile(r".*?\b(blocks|downsample|layers)\.\d+|[^.]+")


def rate_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by: 1 in the head, less before it.

    ``names`` are in the order in which a model computes; from one block to the one before it
    the rate is multiplied by ``decay``. Of a model with a ``backbone``, all that is behind it
    is one block.
    """
    names = list(names)
    behind = any(name.startswith(BACKBONE) for name in names)
    groups = {
        name: "" if behind and not name.startswith(BACKBONE) else found[0]
        for name in names
        if (found := _GROUP.match(name))
    }
    depth = {group: i for i, group in enumerate(dict.fromkeys(groups.values()))}
    return {name: decay ** (len(depth) - 1 - depth[group]) for name, group in groups.items()}


def decays(name: str, array: mx.array) -> bool:
    """Whether weight decay is for this parameter: not for norms, biases and tables."""
    return name.endswith("weight") and array.ndim > 1


def learning_rate(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Up to ``peak`` over ``warmup`` steps, then down to 0 along a cosine; from step 0."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(total - warmup, 1)
    return peak * (1 + math.cos(math.pi * min(share, 1))) / 2


class AdamW:
    """The state of the optimizer: two arrays for each parameter, and the number of steps."""

    def __init__(
        self,
        parameters: Mapping[str, mx.array],
        *,
        weight_decay: float = 0.05,
        layer_decay: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.betas, self.eps = betas, eps
        self.scales = rate_scales(parameters, layer_decay)
        self.decay = {k: weight_decay * decays(k, v) for k, v in parameters.items()}
        self.state: dict[str, Any] = {
            "steps": mx.array(0.0),
            "mean": {k: mx.zeros_like(v) for k, v in parameters.items()},
            "square": {k: mx.zeros_like(v) for k, v in parameters.items()},
        }

    def updated(
        self,
        parameters: Mapping[str, mx.array],
        gradients: Mapping[str, mx.array],
        rate: mx.array,
    ) -> Arrays:
        """The parameters after a step at the learning rate ``rate``, a number."""
        state, (b1, b2) = self.state, self.betas
        state["steps"] = steps = state["steps"] + 1
        first, second = 1 - mx.power(b1, steps), mx.sqrt(1 - mx.power(b2, steps))
        found = {}
        for name, gradient in gradients.items():
            mean = state["mean"][name] * b1 + gradient * (1 - b1)
            square = state["square"][name] * b2 + mx.square(gradient) * (1 - b2)
            state["mean"][name], state["square"][name] = mean, square
            own = rate * self.scales[name]
            step = (mean / first) / (mx.sqrt(square) / second + self.eps)
            found[name] = parameters[name] * (1 - own * self.decay[name]) - own * step
        return found
