"""Rules about convolutions, pools and paddings."""

from __future__ import annotations

from collections.abc import Callable

from ..stored import StoredFunction, StoredOp
from .rules import complain, ints, rule


@rule("error", "T1 A3")
def kernel_too_wide(op: StoredOp, f: StoredFunction) -> str | None:
    """Convolutions wider than 13 have no path on older engines: split the kernel."""
    return _kernel(op, f, lambda width: width > 13)


@rule("info", "A3")
def large_kernel(op: StoredOp, f: StoredFunction) -> str | None:
    """Kernels beyond 7 are slow: two smaller ones cost less."""
    return _kernel(op, f, lambda width: 7 < width <= 13)


def _kernel(op: StoredOp, f: StoredFunction, matches: Callable[[int], bool]) -> str | None:
    weight = f.type_of(op, "weight") if op.type == "conv" else None
    spatial = weight.shape[2:] if weight else ()
    return complain(spatial and matches(max(spatial)), f"kernel {list(spatial)}")


@rule("warning", "T1 A3")
def computed_weight(op: StoredOp, f: StoredFunction) -> str | None:
    """A convolution whose weight is computed at run time is not compiled ahead."""
    names = op.inputs.get("weight", ()) if op.type == "conv" else ()
    return complain(names and not f.is_constant(names[0]), "weight is not a constant")


@rule("warning", "A3")
def odd_stride(op: StoredOp, f: StoredFunction) -> str | None:
    """Strides are 1, 2, or products of 2 and 3, the same in both directions."""
    strides = ints(f.value(op, "strides")) if op.type == "conv" else []
    odd = [s for s in strides if s > 2 and not _smooth(s)]
    unequal = len(set(strides)) > 1 and max(strides) > 2
    return complain(odd or unequal, f"strides {strides}")


def _smooth(n: int) -> bool:
    """A product of twos and threes."""
    for factor in (2, 3):
        while n % factor == 0:
            n //= factor
    return n == 1


@rule("warning", "A3 T1 T2")
def dilated_convolution(op: StoredOp, f: StoredFunction) -> str | None:
    """Dilation is done by rearranging the whole map: keep it small, of factors 2 and 3."""
    dilations = ints(f.value(op, "dilations")) if op.type == "conv" else []
    return complain(any(d > 8 or not _smooth(d) for d in dilations), f"{dilations}")


@rule("warning", "A3 T2")
def odd_pool(op: StoredOp, f: StoredFunction) -> str | None:
    """Pools are fast with strides of 2 or 4 and kernels up to 13."""
    if op.type not in {"max_pool", "avg_pool", "l2_pool"}:
        return None
    kernel, strides = ints(f.value(op, "kernel_sizes")), ints(f.value(op, "strides"))
    slow = any(k > 13 for k in kernel) or any(s not in (1, 2, 4) for s in strides)
    return complain(slow, f"kernel {kernel}, strides {strides}")


@rule("warning", "T1")
def odd_padding(op: StoredOp, f: StoredFunction) -> str | None:
    """Only constant padding of height and width stays on every engine."""
    if op.type != "pad":
        return None
    pad, mode = ints(f.value(op, "pad")), f.value(op, "mode", "constant")
    return complain(mode != "constant" or any(pad[:-4]), f"{mode} {pad}")


@rule("info", "T1")
def odd_groups(op: StoredOp, f: StoredFunction) -> str | None:
    """Group counts that run well are 1, 2, 4 and one for each channel."""
    x = f.type_of(op, "x") if op.type == "conv" else None
    groups = (ints(f.value(op, "groups")) or [1])[0]
    return complain(x and groups not in {1, 2, 4, x.shape[1]}, f"{groups} groups")


@rule("info", "T1")
def channels_not_of_sixteen(op: StoredOp, f: StoredFunction) -> str | None:
    """Channels go in blocks of 16: the rest of a block is wasted."""
    weight = f.type_of(op, "weight") if op.type == "conv" else None
    return complain(weight and weight.shape[0] % 16, f"{weight.shape[0] if weight else 0} out")
