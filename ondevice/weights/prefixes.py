"""Which of a file's arrays are a model's, whatever its training put before their names.

Wrappers of PyTorch (``module.``, ``_orig_mod.``) mean nothing wherever they stand. Of all other
prefixes (``model.``, ``backbone.``, ``student.``, …) one is taken off: that under which all of
the model's arrays lie. What lies elsewhere is left out and named; what lies there and is not
the model's stays for the caller to refuse.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import mlx.core as mx

from ..errors import WeightsError, printable

logger = logging.getLogger("ondevice")

Arrays = Mapping[str, mx.array]
M = TypeVar("M")

MAX_PARTS = 6  # of a prefix
MAX_TRIED = 24  # prefixes

# Of DistributedDataParallel and AveragedModel, torch.compile, FSDP, activation checkpoints.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# What training counts beside the weights, and buffers that inference does not need.
_IGNORED = re.compile(
    r"(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params|_extra_state"
    r"|attention_bias_idxs)$"
)
# A second copy of a model, taken only where there is no other.
_AVERAGED = re.compile(r"(^|[._])(ema|teacher|momentum|avg|averaged?|target|swa|shadow)[._]")


@dataclass(frozen=True)
class Fit(Generic[M]):
    """What some arrays are to a model: its own by name, and in what they differ."""

    model: M
    named: dict[str, mx.array]
    missing: frozenset[str]
    unexpected: frozenset[str]
    beside: frozenset[str] = frozenset()  # names of arrays from elsewhere that it took

    @property
    def matched(self) -> int:
        """How many arrays are the model's."""
        return len(self.named) - len(self.unexpected)


TryFit = Callable[[Arrays, Arrays], Fit[M]]  # of arrays without their prefix, and the others


def is_ignored(name: str) -> bool:
    """Whether an array called so is of no use to inference, in whatever model."""
    return _IGNORED.search(name) is not None


def unwrap(weights: Mapping[str, M]) -> dict[str, M]:
    """``weights`` without wrappers' prefixes and what is ignored. Raises WeightsError."""
    found: dict[str, M] = {}
    for key, value in weights.items():
        if is_ignored(key):
            continue
        name = _WRAPPERS.sub("", key)
        if name in found:
            raise WeightsError(f"two of the given weights are {printable(name)}")
        found[name] = value
    return found


def best_fit(weights: Arrays, fit: TryFit[M]) -> Fit[M]:
    """The fit of those of ``weights`` that are the model's, or else the nearest to one.

    Raises WeightsError if several sets of weights would do.
    """
    plain = _try(fit, weights, "")
    if isinstance(plain, Fit) and not plain.missing | plain.unexpected:
        return plain
    tried = {"": plain, **{p: _try(fit, weights, p) for p in _prefixes(weights)}}
    fits = {p: found for p, found in tried.items() if isinstance(found, Fit)}
    whole = [p for p, found in fits.items() if not found.missing]
    if not whole:
        if isinstance(plain, WeightsError):
            raise plain
        return max(fits.values(), key=lambda found: found.matched)
    best = _choose(whole)
    copies = [p for p in fits if p != best and 2 * fits[p].matched > fits[best].matched]
    return _without_copies(fits[best], best, copies, weights, fit)


def _try(fit: TryFit[M], weights: Arrays, prefix: str) -> Fit[M] | WeightsError:
    inside = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    try:
        return fit(inside, {k: v for k, v in weights.items() if not k.startswith(prefix)})
    except WeightsError as error:  # two arrays of one name
        return error


def _prefixes(weights: Arrays) -> list[str]:
    """How many names begin, the shortest first: a model's arrays are one of a few parts."""
    parts = (key.split(".")[:MAX_PARTS] for key in weights)
    starts = (".".join(p[:n]) + "." for p in parts for n in range(1, len(p)))
    many = [p for p, n in Counter(starts).items() if 8 * n >= len(weights)]
    return sorted(many, key=lambda p: p.count("."))[:MAX_TRIED]


def _choose(whole: list[str]) -> str:
    """The prefix to take, of those under which a whole model lies."""
    apart = [p for p in whole if not any(p != q and p.startswith(q) for q in whole)]
    best = [p for p in apart if not _AVERAGED.search(p)] or apart
    if len(best) > 1:
        names = ", ".join(sorted(printable(p.removesuffix(".")) for p in best))
        raise WeightsError(f"there are several sets of weights: {names}; choose one by --entry")
    return best[0]


def _without_copies(
    found: Fit[M], prefix: str, copies: list[str], weights: Arrays, fit: TryFit[M]
) -> Fit[M]:
    """``found`` with no other copy of the model in it, and a word about what is left out."""
    inside = tuple(p for p in copies if p.startswith(prefix))
    if found.unexpected and inside:
        kept = {k: v for k, v in weights.items() if not k.startswith(inside)}
        again = _try(fit, kept, prefix)
        if isinstance(again, Fit) and not again.missing:
            _say_left_out(prefix, [k for k in weights if k not in kept])
            return again
    beside = [k for k in weights if not k.startswith(prefix) and k not in found.beside]
    _say_left_out(prefix, beside)
    return found


def _say_left_out(prefix: str, keys: list[str]) -> None:
    if not keys:
        return
    groups = Counter(key.partition(".")[0] for key in keys)
    names = [f"{printable(name, 40)} ({n})" for name, n in groups.most_common(8)]
    more = f" and {len(groups) - 8} more" if len(groups) > 8 else ""
    what = f"took the weights under {prefix!r}" if prefix else "took the weights"
    logger.warning(f"{what}; left out {', '.join(names)}{more}")


def split_stacked(
    weights: Mapping[str, mx.array], splits: Sequence[tuple[str, tuple[str, ...]]]
) -> dict[str, mx.array]:
    """``weights`` with the parts of arrays that are stacked along their first axis."""
    found = dict(weights)
    for pattern, names in splits:
        for key in [key for key in found if re.search(pattern, key)]:
            parts = mx.split(found.pop(key), len(names))
            found |= {re.sub(pattern, n, key): p for n, p in zip(names, parts, strict=True)}
    return found
