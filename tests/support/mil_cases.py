"""One row for each way of using each operation that the reference evaluates."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.support import naive
from tests.support.mil import Array, Function, ct, mb

_RNG = np.random.default_rng(7)


def normal(*shape: int) -> Array:
    return _RNG.normal(size=shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> Array:
    return _RNG.uniform(low, high, size=shape).astype(np.float32)


def integers(low: int, high: int, *shape: int) -> Array:
    return _RNG.integers(low, high, size=shape).astype(np.int32)


@dataclass(frozen=True)
class Case:
    """``inputs`` arrive at run time (a bool array through a cast); ``fixed`` is in the program.

    ``expect`` computes the answer from both; without it coremltools' value inference does.
    """

    op: str
    inputs: dict[str, Any]
    fixed: dict[str, Any] = field(default_factory=dict)
    expect: Callable[..., Any] | None = None

    def build(self, given: dict[str, Any]) -> tuple[Any, ...]:
        result = getattr(mb, self.op)(**given, **self.fixed)
        return tuple(result) if isinstance(result, list | tuple) else (result,)

    def expected(self) -> tuple[Array, ...]:
        if self.expect is not None:
            result = self.expect(**self.inputs, **self.fixed)
        else:
            with Function({}, opset_version=ct.target.iOS18):
                # A copy, because some value inferences write into their input.
                result = tuple(v.val for v in self.build(deepcopy(self.inputs)))
        assert result is not None
        return tuple(map(np.asarray, result if isinstance(result, tuple) else (result,)))


X = normal(2, 6, 5, 7)
POOL = {"kernel_sizes": [3, 2], "strides": [2, 2]}
PADDED = {"pad_type": "custom", "pad": [1, 1, 0, 0]}


def unary(op: str, x: Array = X, **fixed: Any) -> Case:
    return Case(op, {"x": x}, fixed)


def binary(op: str, x: Array = X, y: Array | None = None) -> Case:
    return Case(op, {"x": x, "y": normal(6, 1, 7) if y is None else y})


def loops(op: str, inputs: dict[str, Any], **fixed: Any) -> Case:
    return Case(op, inputs, fixed, getattr(naive, op))


BOOLS = (np.array([[True, False, True]]), np.array([[True], [False]]))
PLACES = np.array([[0, 1], [3, 4], [2, 4], [1, 0]], np.int32)
SMALL = integers(-4, 5, 2, 6)

CASES = {
    # Elementwise
    **{op: unary(op) for op in ("abs", "ceil", "cos", "erf", "exp", "exp2", "floor")},
    **{op: unary(op) for op in ("relu", "relu6", "round", "sigmoid", "sign", "sin")},
    **{op: unary(op) for op in ("square", "tan", "tanh", "cosh", "sinh", "atan")},
    **{op: unary(op) for op in ("identity", "softplus", "softsign")},
    **{op: unary(op, uniform(-0.9, 0.9, 3, 4)) for op in ("acos", "asin", "atanh")},
    "sqrt": unary("sqrt", uniform(0, 9, 3, 4)),
    "rsqrt": unary("rsqrt", uniform(0, 0.01, 3, 4), epsilon=1e-3),
    "rsqrt of zero": unary("rsqrt", np.zeros((3,), np.float32)),
    "log": unary("log", uniform(0, 0.01, 3, 4), epsilon=1e-3),
    "inverse": unary("inverse", uniform(0, 0.01, 3, 4)),
    "round halves": unary("round", np.arange(-3, 4, 0.5, np.float32)),
    "clip": unary("clip", alpha=-0.5, beta=0.7),
    "threshold": unary("threshold", alpha=0.2),
    "logical_not": unary("logical_not", BOOLS[0]),
    "cast to int": unary("cast", X * 9, dtype="int32"),
    "cast to float": unary("cast", SMALL, dtype="fp32"),
    "silu": Case("silu", {"x": X}, expect=lambda x: x / (1 + np.exp(-x))),
    "elu": unary("elu", alpha=0.7),
    "leaky_relu": unary("leaky_relu", alpha=0.1),
    "clamped_relu": unary("clamped_relu", alpha=0.1, beta=0.8),
    "thresholded_relu": unary("thresholded_relu", alpha=0.3),
    "linear_activation": unary("linear_activation", alpha=2.0, beta=0.5),
    "scaled_tanh": unary("scaled_tanh", alpha=2.0, beta=0.5),
    "sigmoid_hard": unary("sigmoid_hard", alpha=0.3, beta=0.4),
    "prelu": unary("prelu", alpha=uniform(0, 1, 6)),
    "softplus_parametric": unary(
        "softplus_parametric", alpha=uniform(1, 2, 6), beta=uniform(1, 2, 6)
    ),
    "gelu": unary("gelu", mode="EXACT"),
    "gelu of many": unary("gelu", normal(3, 30_000), mode="EXACT"),
    "gelu tanh": unary("gelu", mode="TANH_APPROXIMATION"),
    "gelu sigmoid": unary("gelu", mode="SIGMOID_APPROXIMATION"),
    **{op: binary(op) for op in ("add", "sub", "mul", "real_div", "maximum", "minimum")},
    **{op: binary(op) for op in ("greater", "greater_equal", "less", "less_equal")},
    **{op: binary(op, SMALL, integers(-2, 3, 6)) for op in ("equal", "not_equal")},
    **{op: binary(op, *BOOLS) for op in ("logical_and", "logical_or", "logical_xor")},
    "pow": binary("pow", uniform(0.1, 3, 3, 4), normal(4)),
    "floor_div": binary("floor_div"),
    "mod": binary("mod"),
    "select": Case("select", {"cond": BOOLS[1], "a": normal(2, 3), "b": normal(2, 3)}),
    # Matrix products
    "linear": Case(
        "linear", {"x": normal(2, 3, 5)}, {"weight": normal(4, 5), "bias": normal(4)}
    ),
    "linear without bias": Case("linear", {"x": normal(3, 5)}, {"weight": normal(4, 5)}),
    "matmul": binary("matmul", normal(2, 3, 4), normal(2, 4, 5)),
    "matmul broadcast": binary("matmul", normal(2, 1, 3, 4), normal(5, 4, 3)),
    "matmul transposed": Case(
        "matmul",
        {"x": normal(2, 4, 3), "y": normal(2, 5, 4)},
        {"transpose_x": True, "transpose_y": True},
    ),
    "einsum": Case(
        "einsum",
        {"values": [normal(1, 2, 3, 4), normal(1, 4, 3, 5)]},
        {"equation": "nchw,nwhu->nchu"},
    ),
    "attention": Case(
        "scaled_dot_product_attention",
        {"query": normal(1, 2, 5, 4), "key": normal(1, 2, 6, 4), "value": normal(1, 2, 6, 3)},
    ),
    "attention with a mask": Case(
        "scaled_dot_product_attention",
        {
            "query": normal(2, 5, 4),
            "key": normal(2, 6, 4),
            "value": normal(2, 6, 3),
            "attn_mask": normal(5, 6),
        },
    ),
    "attention with a bool mask": Case(
        "scaled_dot_product_attention",
        {
            "query": normal(2, 2, 4),
            "key": normal(2, 3, 4),
            "value": normal(2, 3, 3),
            "attn_mask": np.array([[True, False, True], [False, True, True]]),
        },
    ),
    # Convolutions
    "conv": loops("conv", {"x": X}, weight=normal(4, 6, 3, 3), bias=normal(4)),
    "conv 1x1": loops("conv", {"x": X}, weight=normal(4, 6, 1, 1)),
    "conv same": loops(
        "conv", {"x": X}, weight=normal(4, 6, 2, 4), strides=[2, 3], pad_type="same"
    ),
    "conv same lower": loops(
        "conv", {"x": X}, weight=normal(4, 6, 2, 4), strides=[1, 2], pad_type="same_lower"
    ),
    "conv padded and dilated": loops(
        "conv",
        {"x": X},
        weight=normal(4, 6, 3, 2),
        pad_type="custom",
        pad=[2, 1, 0, 3],
        dilations=[2, 3],
        strides=[2, 1],
    ),
    "conv grouped": loops("conv", {"x": X}, weight=normal(6, 2, 3, 3), groups=3),
    "conv depthwise": loops(
        "conv", {"x": X}, weight=normal(6, 1, 3, 3), groups=6, strides=[2, 2], pad_type="same"
    ),
    "conv depthwise in chunks": loops(
        "conv", {"x": normal(1, 3, 92, 96)}, weight=normal(3, 1, 2, 2), groups=3
    ),
    "conv depthwise, two each": loops(
        "conv", {"x": X}, weight=normal(12, 1, 3, 3), groups=6, dilations=[1, 2]
    ),
    "conv 1d": loops("conv", {"x": normal(2, 4, 9)}, weight=normal(3, 4, 3), strides=[2]),
    "conv 3d": loops("conv", {"x": normal(1, 2, 4, 5, 3)}, weight=normal(3, 2, 2, 2, 2)),
    "conv_transpose": loops(
        "conv_transpose", {"x": X}, weight=normal(6, 4, 3, 2), bias=normal(4), strides=[2, 3]
    ),
    "conv_transpose grouped and cropped": loops(
        "conv_transpose",
        {"x": X},
        weight=normal(6, 2, 3, 3),
        groups=3,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 0],
        dilations=[1, 2],
    ),
    "conv_transpose to a shape": loops(
        "conv_transpose",
        {"x": X},
        weight=normal(6, 2, 3, 3),
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 0, 1, 0],
        output_shape=[2, 2, 10, 14],
    ),
    # Pools
    "max_pool": loops("max_pool", {"x": X}, pad_type="valid", **POOL),
    "max_pool padded": loops("max_pool", {"x": X - 9}, **PADDED, **POOL),
    "max_pool same": loops("max_pool", {"x": X}, pad_type="same", **POOL),
    "max_pool ceil": loops("max_pool", {"x": X}, ceil_mode=True, **PADDED, **POOL),
    "avg_pool": loops("avg_pool", {"x": X}, pad_type="valid", **POOL),
    "avg_pool padded": loops("avg_pool", {"x": X}, **PADDED, **POOL),
    "avg_pool without padding": loops(
        "avg_pool", {"x": X}, exclude_padding_from_average=True, **PADDED, **POOL
    ),
    "avg_pool same": loops(
        "avg_pool", {"x": X}, pad_type="same", exclude_padding_from_average=True, **POOL
    ),
    "l2_pool": loops("l2_pool", {"x": X}, pad_type="valid", **POOL),
    # Normalizations
    "batch_norm": loops(
        "batch_norm",
        {"x": X},
        mean=normal(6),
        variance=uniform(0.1, 2, 6),
        gamma=normal(6),
        beta=normal(6),
        epsilon=np.float32(1e-3),
    ),
    "batch_norm plain": loops(
        "batch_norm", {"x": X}, mean=normal(6), variance=uniform(0.1, 2, 6)
    ),
    "instance_norm": loops("instance_norm", {"x": X}, gamma=normal(6), beta=normal(6)),
    "local_response_norm": loops(
        "local_response_norm", {"x": X}, size=3, alpha=np.float32(0.5)
    ),
    "l2_norm": unary("l2_norm"),
    "layer_norm last": unary(
        "layer_norm", axes=[-1], gamma=normal(7), beta=normal(7), epsilon=np.float32(0.1)
    ),
    "layer_norm channels": unary("layer_norm", axes=[1], gamma=normal(6), beta=normal(6)),
    "layer_norm plain": unary("layer_norm", axes=[1, 2, 3]),
    "layer_norm two axes": unary("layer_norm", axes=[1, 3], gamma=normal(6, 7)),
    # Reductions
    **{
        f"reduce_{by}": unary(f"reduce_{by}", axes=[1, -1], keep_dims=True)
        for by in ("mean", "sum", "prod", "max", "min", "sum_square", "l1_norm", "l2_norm")
    },
    "reduce_mean all": unary("reduce_mean", keep_dims=False),
    "reduce_sum without axis": unary("reduce_sum", axes=[2], keep_dims=False),
    "reduce_log_sum": unary("reduce_log_sum", uniform(1, 2, 3, 4), axes=[1], keep_dims=False),
    "reduce_log_sum_exp": unary("reduce_log_sum_exp", axes=[1, 2], keep_dims=False),
    "reduce_argmax": unary("reduce_argmax", axis=1, keep_dims=False),
    "reduce_argmin": unary("reduce_argmin", axis=-1, keep_dims=True),
    "softmax": unary("softmax", axis=1),
    "softmax of large values": unary("softmax", X * 100, axis=-1),
    "cumsum": unary("cumsum", axis=1),
    "cumsum backwards": unary("cumsum", axis=2, reverse=True),
    "argsort": unary("argsort", axis=1, ascending=True),
    "topk": unary("topk", k=3, axis=1),
    "topk ascending": unary("topk", k=2, axis=-1, ascending=True),
    # Shapes
    "reshape": unary("reshape", shape=[2, -1, 7]),
    "reshape keeping an axis": unary("reshape", shape=[0, 3, -1, 7]),
    "transpose": unary("transpose", perm=[0, 3, -2, 1]),
    "expand_dims": unary("expand_dims", normal(2, 3), axes=[0, -1]),
    "squeeze": unary("squeeze", normal(1, 2, 1, 3), axes=[0]),
    "squeeze all": unary("squeeze", normal(1, 2, 1, 3)),
    "concat": Case("concat", {"values": [normal(2, 3), normal(2, 4)]}, {"axis": 1}),
    "concat interleaved": Case(
        "concat",
        {"values": [X, X + 1]},
        {"axis": 1, "interleave": True},
        lambda values, **_: np.stack(values, 2).reshape(2, 12, 5, 7),
    ),
    "stack": Case("stack", {"values": [normal(2, 3), normal(2, 3)]}, {"axis": 1}),
    "split": unary("split", num_splits=3, axis=1),
    "split by sizes": unary("split", split_sizes=[1, 2, 3], axis=1),
    "slice_by_index": unary(
        "slice_by_index", begin=[0, 1, -4, 5], end=[1, 6, -1, 0], stride=[1, 2, 1, -2]
    ),
    "slice_by_index with masks": unary(
        "slice_by_index",
        begin=[1, 9, 1, 0],
        end=[0, 4, 9, 2],
        begin_mask=[False, True, False, False],
        end_mask=[False, False, True, False],
        squeeze_mask=[True, False, False, False],
    ),
    "slice_by_size": unary("slice_by_size", begin=[0, 2, 1, 0], size=[1, 3, -1, 7]),
    "slice_update": Case(
        "slice_update",
        {"x": normal(3, 4), "update": normal(2, 2)},
        {"begin": [0, 1], "end": [2, 3]},
    ),
    "pad": unary("pad", pad=[1, 2, 0, 3], mode="constant", constant_val=0.5),
    "pad reflect": unary("pad", pad=[1, 2, 0, 3], mode="reflect"),
    "pad replicate": unary("pad", pad=[1, 2, 0, 3], mode="replicate"),
    "tile": unary("tile", normal(2, 3), reps=[2, 3]),
    "reverse": unary("reverse", axes=[1, -1]),
    "crop": Case(
        "crop",
        {"x": X},
        {"crop_height": [1, 2], "crop_width": [0, 3]},
        lambda x, **_: x[:, :, 1:3, 0:4],
    ),
    "gather": Case("gather", {"x": X, "indices": integers(0, 5, 2, 3)}, {"axis": 2}),
    "gather in batches": Case(
        "gather",
        {"x": normal(2, 5, 3), "indices": integers(0, 5, 2, 4)},
        {"axis": 1, "batch_dims": 1},
        lambda x, indices, **_: np.stack([x[i][indices[i]] for i in range(2)]),
    ),
    "gather_along_axis": Case(
        "gather_along_axis", {"x": normal(4, 5), "indices": integers(0, 4, 2, 5)}, {"axis": 0}
    ),
    "gather_nd": loops("gather_nd", {"x": X, "indices": integers(0, 5, 3, 4, 3) % 2}),
    "gather_nd in batches": loops(
        "gather_nd", {"x": X, "indices": integers(0, 5, 2, 4, 2)}, batch_dims=1
    ),
    **{
        f"resample {padding} {mode}": loops(
            "resample",
            {"x": normal(2, 3, 4, 5), "coordinates": points},
            sampling_mode="bilinear",
            padding_mode=padding,
            padding_value=0.5,
            coordinates_mode=mode,
            align_corners=mode == "normalized_zero_to_one",
        )
        for padding in ("constant", "border")
        for mode, points in (
            ("normalized_minus_one_to_one", 1.2 * normal(2, 3, 2, 2)),
            ("normalized_zero_to_one", 0.5 + normal(2, 3, 2, 2)),
            ("unnormalized", 2 + 2 * normal(2, 3, 2, 2)),
        )
    },
    **{
        f"scatter_nd, {mode}": loops(
            "scatter_nd",
            {"data": X, "indices": np.array([[0, 1], [1, 3], [0, 1]], np.int32) % 2,
             "updates": normal(3, *X.shape[2:])},
            mode=mode,
        )
        for mode in ("add", "mul", "max", "min")
    },
    **{
        f"scatter_along_axis, {mode}": loops(
            "scatter_along_axis",
            {"data": normal(4, 5), "indices": PLACES, "updates": normal(4, 2)},
            axis=1,
            mode=mode,
        )
        for mode in ("update", "add", "mul", "max", "min")
    },
    "pixel_shuffle": loops("pixel_shuffle", {"x": normal(1, 8, 2, 3)}, upscale_factor=2),
    "pixel_unshuffle": loops(
        "pixel_unshuffle", {"x": normal(1, 2, 4, 6)}, downscale_factor=np.uint32(2)
    ),
    "depth_to_space": loops("depth_to_space", {"x": normal(1, 8, 2, 3)}, block_size=2),
    "space_to_depth": loops("space_to_depth", {"x": normal(1, 2, 4, 6)}, block_size=2),
    "shape": unary("shape"),
    "fill": Case("fill", {"shape": np.array([2, 3], np.int32)}, {"value": 1.5}),
    "range_1d": Case(
        "range_1d",
        {"end": np.array(9, np.int32)},
        {"start": 1, "step": 2},
    ),
    "one_hot": loops(
        "one_hot",
        {"indices": integers(0, 4, 3)},
        one_hot_vector_size=4,
        on_value=2,
        off_value=1,
    ),
    # Resizing: the grids that MIL's documentation lists for the input [0, 1].
    **{
        f"resize_bilinear {mode}": Case(
            "resize_bilinear",
            {"x": np.array([[[0, 1]]], np.float32)},
            {"target_size_height": 1, "target_size_width": len(grid), "sampling_mode": mode},
            lambda grid=grid, **_: np.array([[grid]], np.float32),
        )
        for mode, grid in {
            "UNALIGN_CORNERS": [0, 0.1, 0.5, 0.9, 1],
            "STRICT_ALIGN_CORNERS": [0, 0.25, 0.5, 0.75, 1],
            "ALIGN_CORNERS": [0, 0.2, 0.4, 0.6, 0.8, 1],
            "DEFAULT": [0, 0.4, 0.8, 1, 1],
            "OFFSET_CORNERS": [0.1, 0.3, 0.5, 0.7, 0.9],
        }.items()
    },
    **{
        f"upsample_bilinear align_corners={align}": Case(
            "upsample_bilinear",
            {"x": np.array([[[0], [1]]], np.float32)},
            {"scale_factor_height": 2.5, "scale_factor_width": 1.0, "align_corners": align},
            lambda grid=grid, **_: np.array([grid], np.float32)[..., None],
        )
        for align, grid in {
            True: [0, 0.25, 0.5, 0.75, 1],
            False: [0, 0.1, 0.5, 0.9, 1],
        }.items()
    },
    "resize": Case(
        "resize",
        {"x": np.array([[[0, 1]]], np.float32)},
        {"shape": [0, 5], "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
        lambda **_: np.array([[[0, 0.1, 0.5, 0.9, 1]]], np.float32),
    ),
    "upsample_nearest_neighbor": Case(
        "upsample_nearest_neighbor",
        {"x": X},
        {"scale_factor_height": 2, "scale_factor_width": 3},
        lambda x, **_: x.repeat(2, -2).repeat(3, -1),
    ),
    "resize_nearest_neighbor": Case(
        "resize_nearest_neighbor",
        {"x": X},
        {"target_size_height": 10, "target_size_width": 14},
        lambda x, **_: x.repeat(2, -2).repeat(2, -1),
    ),
    # Eight bits
    "quantize": Case(
        "quantize",
        {"input": normal(3, 40) * 2},
        {"scale": 0.02, "zero_point": np.int8(3), "output_dtype": "int8"},
    ),
    "quantize halves": Case(
        "quantize",
        {"input": np.arange(-3, 4, dtype=np.float32) / 4},
        {"scale": 0.5, "output_dtype": "int8"},
    ),
    "quantize per channel": Case(
        "quantize",
        {"input": normal(3, 4)},
        {"scale": uniform(0.01, 0.1, 4), "axis": 1, "output_dtype": "uint8",
         "zero_point": np.full(4, 120, np.uint8)},
    ),
}  # fmt: skip
