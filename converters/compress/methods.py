"""Compression methods: each turns one weight into a form that a package can hold.

A method never gives up on a weight: where a width does not divide into the blocks or groups
that were asked for, it takes the nearest number that does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.errors import ConfigError

from ..graph.graph import Array
from .forms import Affine, Form, Palette, Sparse
from .rounding import Weight, output_error, palette, pruned, scaled
from .storage import Level

Method = Callable[..., Form | None]


@dataclass(frozen=True)
class Registered:
    """A method with the values that each option may have; the first is the default."""

    run: Method
    options: Mapping[str, tuple[Any, ...]]
    needs: Callable[[Mapping[str, Any]], Level]  # what a package has to hold


METHODS: dict[str, Registered] = {}
_ROUNDING = ("auto", "nearest", "gptq")
_ANY = "any"


def method(
    name: str,
    *,
    needs: Callable[[Mapping[str, Any]], Level] = lambda _: Level.TENSORS,
    **options: tuple[Any, ...],
) -> Callable[[Method], Method]:
    """Register ``function(weight, **options)`` under the name that recipes use."""

    def register(run: Method) -> Method:
        METHODS[name] = Registered(run, options, needs)
        return run

    return register


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for an unknown method, option or value."""
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; there are {', '.join(METHODS)}")
    allowed = METHODS[name].options
    for option, value in options.items():
        if option not in allowed:
            known = ", ".join(allowed) or "none"
            raise ConfigError(f"{name} has no option {option!r}; there are {known}")
        values = allowed[option]
        if _ANY in values:
            fine = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        else:
            fine = any(value == v and type(value) is type(v) for v in values)
        if not fine:
            listed = "a number" if _ANY in values else ", ".join(map(str, values))
            raise ConfigError(f"{name}: {option} is {listed}; given {value!r}")
    if name == "prune" and not 0 <= options.get("sparsity", 0.5) < 1:
        raise ConfigError("prune: sparsity is a share below 1")


def compress(weight: Weight, name: str, options: Mapping[str, Any]) -> Form | None:
    """The weight's form by a method; of ``auto`` rounding the better of two.

    Second-order rounding goes column by column and looks ahead only: once in a while, with
    many bits and few columns, the nearest code is better after all.

    Raises ConfigError for a weight that has NaN.
    """
    if np.isnan(weight.value).any():
        raise ConfigError(f"{weight.path} has NaN, which no method can compress")
    ours = METHODS[name].run(weight, **options)
    auto = options.get("rounding", "auto") == "auto"
    if ours is None or not auto or weight.statistics is None:
        return ours
    naive = METHODS[name].run(weight, **{**options, "rounding": "nearest"})
    assert naive is not None
    better = output_error(weight, naive.dense()) < output_error(weight, ours.dense())
    return naive if better else ours


def _blocks(wanted: object) -> Level:
    return Level.BLOCKS if wanted else Level.TENSORS


@method("none")
def none(weight: Weight) -> Form | None:
    """The weight stays float."""
    return None


@method(
    "quantize",
    needs=lambda o: _blocks(o.get("bits") == 4 or o.get("block")),
    bits=(8, 4),
    block=(0, _ANY),
    mode=("symmetric", "affine"),
    rounding=_ROUNDING,
)
def quantize(
    weight: Weight,
    bits: int = 8,
    block: int = 0,
    mode: str = "symmetric",
    rounding: str = "auto",
) -> Affine:
    """Integers with a scale a channel, or a scale a block of ``block`` inputs."""
    shape = [1] * weight.value.ndim
    shape[weight.axis] = weight.value.shape[weight.axis]
    if block:
        inner = 0 if weight.axis == 1 else 1  # inputs
        rest = math.prod(weight.value.shape[2:])
        size = divisor_near(weight.value.shape[inner], block / rest)
        shape[inner] = weight.value.shape[inner] // size
    return scaled(weight, bits, tuple(shape), affine=mode == "affine", rounding=rounding)


@method(
    "palettize",
    needs=lambda o: _blocks(o.get("bits") == 3 or o.get("group") or o.get("table_bits") == 8),
    bits=(4, 1, 2, 3, 6, 8),
    group=(0, _ANY),
    table_bits=(16, 8),
    rounding=_ROUNDING,
)
def palettize(
    weight: Weight, bits: int = 4, group: int = 0, table_bits: int = 16, rounding: str = "auto"
) -> Palette:
    """A table of 2**bits values for the tensor, or one for every ``group`` channels.

    A group is enlarged until its table costs at most half a bit a weight.
    """
    channels = weight.value.shape[weight.axis]
    size = channels
    if group:
        least = 2 * table_bits * 2**bits / (weight.value.size / channels)
        size = divisor_near(channels, max(group, least))
    return palette(weight, bits, channels // size, table_bits, rounding=rounding)


@method(
    "prune",
    needs=lambda o: _blocks(o.get("then")),
    sparsity=(0.5, _ANY),
    then=("", "quantize", "palettize"),
    bits=(8, 4, 6, 3, 2, 1),
    rounding=_ROUNDING,
)
def prune(
    weight: Weight,
    sparsity: float = 0.5,
    then: str = "",
    bits: int = 8,
    rounding: str = "auto",
) -> Sparse:
    """Zero the least of a weight; ``then`` also compress what is left.

    With calibration, "least" is by |w| times the norm of the inputs it meets (Sun et al., "A
    simple and effective pruning approach for large language models", 2023: Wanda).
    """
    score = np.abs(weight.value) * np.sqrt(weight.importance())
    count = round(sparsity * score.size)
    least = np.argsort(score, axis=None, kind="stable")[:count]
    mask: Array = np.ones(score.shape, np.uint8)
    mask.ravel()[least] = 0
    left = weight.masked(mask)
    if not then:
        return Sparse(mask, pruned(left, rounding=rounding))
    kept = compress(left, then, {"bits": bits, "rounding": rounding})
    assert isinstance(kept, Affine | Palette)
    return Sparse(mask, kept)


def divisor_near(number: int, wanted: float) -> int:
    """The divisor of ``number`` nearest to ``wanted`` by ratio; of two, the smaller."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: (abs(math.log(d / max(wanted, 1))), d))


def dense(form: Form | None, weight: Weight) -> Array:
    """What a weight becomes, in float."""
    return weight.value.astype(weight.dtype) if form is None else form.dense()
