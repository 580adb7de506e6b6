"""Vision modules of other MLX packages, small and with random weights: what a user may bring.

Each package is imported only when a module of it is built, and is no dependency of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

Build = Callable[[], tuple[nn.Module, Sequence[mx.array]]]


class Called(nn.Module):
    """A module called with arguments that are the same each time: grids, sizes, flags."""

    def __init__(
        self, module: Any, *fixed: Any, method: str = "__call__", **named: Any
    ) -> None:
        super().__init__()
        self.module = module
        self._call = method, fixed, named

    def __call__(self, *inputs: mx.array) -> Any:
        method, fixed, named = self._call
        return getattr(self.module, method)(*inputs, *fixed, **named)


def randomized(module: nn.Module) -> nn.Module:
    """The module with noise on what is all zeros or ones: no gate is shut, no scale is one."""
    mx.random.seed(0)

    def noisy(x: Any) -> Any:
        if not isinstance(x, mx.array) or not mx.issubdtype(x.dtype, mx.floating):
            return x
        is_one_number = x.size > 0 and bool(x.min() == x.max())
        return x + 0.02 * mx.random.normal(x.shape, x.dtype) if is_one_number else x

    module.update(tree_map(noisy, module.parameters()))
    module.eval()
    mx.eval(module.parameters())
    return module


def pixels(*shape: int) -> mx.array:
    return mx.array(np.random.default_rng(0).normal(size=shape).astype(np.float32))


# -- mlx-image

_MLX_IMAGE = {
    "resnet18": 96, "resnet50": 96, "wide_resnet50_2": 64, "vit_base_patch16_224": 224,
    "vit_base_patch32_224": 224, "vit_small_patch16_224.dino": 224,
    "vit_small_patch8_224.dino": 224, "vit_small_patch14_518.dinov2": 518,
    "swin_tiny_patch4_window7_224": 224, "swin_small_patch4_window7_224": 224,
    "swin_v2_tiny_patch4_window8_256": 256, "regnet_x_400mf": 96, "regnet_x_1_6gf": 96,
    "regnet_y_400mf": 96, "regnet_y_1_6gf": 96, "efficientnet_b0": 96, "efficientnet_b3": 96,
    "mobilenet_v2": 96, "mobilenet_v3_large": 96, "mobilenet_v3_small": 96,
}  # fmt: skip


def _mlx_image(name: str, size: int) -> tuple[nn.Module, Sequence[mx.array]]:
    create = import_module("mlxim.model").create_model
    return create(name, weights=False), [pixels(1, size, size, 3)]


# -- mlx-vlm: the vision towers, made small by whatever their configurations call things

_SMALL: dict[str, Any] = {
    "hidden_size": 64, "embed_dim": 64, "width": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "depth": 2, "layers": 2, "num_layers": 2,
    "num_attention_heads": 4, "num_heads": 4, "num_key_value_heads": 4, "head_dim": 16,
    "global_head_dim": 16, "out_hidden_size": 48, "projection_dim": 48, "patch_size": 8,
    "spatial_patch_size": 8, "image_size": 32, "img_size": 32, "init_pos_emb_height": 8,
    "init_pos_emb_width": 8, "num_position_embeddings": 16, "fullatt_block_indexes": [1],
    "deepstack_visual_indexes": [0], "window_size": 16, "num_patches": 16,
    "projector_input_dim": 64, "projector_output_dim": 48, "vision_output_dim": 64,
    "pixel_shuffle_ratio": 0.5, "norm_eps": 1e-5, "initializer_range": 0.02, "rope_theta": 1e4,
    "projector_dropout": 0.0, "vision_feature_layer": -1, "model_type": "siglip_vision_model",
    "vision_feature_select_strategy": "default", "num_channels": 3, "vt_hidden_size": 64,
    "vt_num_attention_heads": 4, "vt_num_hidden_layers": 2, "vt_intermediate_size": 96,
    "qkv_hidden_size": 64, "mm_hidden_size": 64, "text_hidden_size": 48,
    "pos_emb_height": 8, "pos_emb_width": 8, "crop_size": 32, "proj_inner_dim": 64,
    "proj_out_dim": 48,
}  # fmt: skip


def _small(config: Any, **given: Any) -> Any:
    """An instance of a configuration class: small, but for what is ``given``."""
    known = {f.name: f for f in fields(config)}
    chosen = {k: v for k, v in _SMALL.items() if k in known}
    if "model_type" in known and isinstance(known["model_type"].default, str):
        chosen.pop("model_type")
    return config(**{**chosen, **given})


def _tower(
    name: str,
    inputs: Sequence[mx.array],
    *fixed: Any,
    named: dict[str, Any] | None = None,
    of: str = "VisionModel",
    **config: Any,
) -> tuple[nn.Module, Sequence[mx.array]]:
    package = f"mlx_vlm.models.{name}"
    settings = _small(import_module(f"{package}.config").VisionConfig, **config)
    module = getattr(import_module(f"{package}.vision"), of)(settings)
    return (Called(module, *fixed, **(named or {})) if fixed or named else module), inputs


def _grid(rows: int, columns: int, frames: int = 1) -> mx.array:
    return mx.array([[frames, rows, columns]])


def _patches(name: str, frames: int = 2, fixed: Any = None, **config: Any) -> Any:
    """A tower of the Qwen kind: flat patches of an 8 by 8 grid, and the grid."""
    x = pixels(64, 3 * frames * 64)
    return _tower(name, [x], _grid(8, 8) if fixed is None else fixed, **config)


_NHWC, _NCHW = (1, 32, 32, 3), (1, 3, 32, 32)
_PLAIN: dict[str, dict[str, Any]] = {
    "aya_vision": {}, "gemma3": {}, "granite4_vision": {}, "granite_vision": {},
    "idefics3": {}, "llava": {"model_type": "clip_vision_model"}, "llava_bunny": {},
    "llava_next": {"model_type": "clip_vision_model"}, "llava_onevision": {}, "llmjpvl": {},
    "multi_modality": {"params": {}, "model_type": "vision"}, "paligemma": {}, "plamo2vl": {},
    "got": {},
    "deepseek_vl_v2": {"model_type": "vision"}, "idefics2": {"model_type": "idefics2"},
    "internvl": {}, "minicpmo": {}, "minicpmv4_6": {}, "moondream2": {}, "moondream3": {},
    "step3p7": {},
}  # fmt: skip
_CHANNELS_FIRST: dict[str, dict[str, Any]] = {
    "florence2": {
        "depths": [1, 1, 1, 1], "dim_embed": [16, 32, 48, 64], "num_heads": [2, 2, 4, 4],
        "num_groups": [2, 2, 4, 4], "window_size": 4, "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2], "patch_padding": [3, 1, 1, 1],
        "patch_prenorm": [False, True, True, True],
    },
    "jina_vlm": {}, "llama4": {
        "model_type": "llama4", "intermediate_size": 256, "projector_output_dim": 64,
    },
    "nemotron_parse": {"image_size": (32, 32)}, "nemotron_h_nano_omni": {}, "gemma4": {},
}  # fmt: skip
_FLAT: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"hidden_size": 48}, "qwen2_5_vl": {}, "qwen3_vl": {}, "qwen3_vl_moe": {},
    **{
        n: {"deepstack_visual_indexes": []} for n in ("qwen3_5", "qwen3_5_moe", "qwen4_exp")
    },
    "qwen3_omni_moe": {}, "glm4v": {"model_type": "glm4v"},
    "glm4v_moe": {"model_type": "glm4v_moe"}, "glm_ocr": {},
    "glm5_next": {"projection_intermediate_size": 96},
    "cohere_compass": {}, "dots_ocr": {"frames": 1}, "ernie4_5_moe_vl": {"frames": 1},
    "mimo_v2": {}, "muse_glimmer": {}, "muse_spark": {},
    "youtu_vl": {"frames": 1, "fixed": mx.array([[8, 8]])},
    "hunyuan_vl": {"frames": 1}, "zaya1_vl": {}, "minimax_m3_vl": {},
}  # fmt: skip


_SQUARE_GRIDS = {"kimi_vl": [[8, 8]], "locateanything": [[8, 8]], "paddleocr_vl": [[1, 8, 8]]}


def _square_patches(name: str, *shape: int) -> Any:
    return _tower(name, [pixels(*shape)], mx.array(_SQUARE_GRIDS.get(name, [[1, 8, 8]])))


def _sam3() -> Any:
    vision = import_module("mlx_vlm.models.sam3.vision")
    config = import_module("mlx_vlm.models.sam3.config")
    backbone = _small(
        config.ViTConfig, image_size=64, window_size=4, pretrain_image_size=32,
        global_attn_indexes=[1],
    )  # fmt: skip
    settings = config.VisionEncoderConfig(backbone_config=backbone, fpn_hidden_size=32)
    return vision.VisionModel(settings), [pixels(1, 64, 64, 3)]


# -- whole models of mlx-vlm


def _detr(name: str, **config: Any) -> tuple[nn.Module, Sequence[mx.array]]:
    package = import_module(f"mlx_vlm.models.{name}")
    size = config.get("image_size") or config.get("resolution") or 64
    return package.Model(package.ModelConfig(**config)), [pixels(1, size, size, 3)]


_RT_DETR: dict[str, Any] = {
    "image_size": 64, "d_model": 32, "encoder_hidden_dim": 32, "num_queries": 84,
    "encoder_in_channels": [32, 64, 128], "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_layers": 2,
    "decoder_in_channels": [32, 32, 32],
    "backbone_config": {
        "depths": [1, 1, 1, 1], "embedding_size": 16, "hidden_sizes": [16, 32, 64, 128],
    },
}  # fmt: skip
_RF_DETR: dict[str, Any] = {
    "resolution": 56, "num_queries": 12, "dec_layers": 2, "sa_nheads": 4,
    "ca_nheads": 4, "group_detr": 1, "hidden_dim": 256, "num_windows": 2, "patch_size": 14,
}  # fmt: skip


def _vlm(path: str, model: str, config: str, inputs: Sequence[mx.array], **given: Any) -> Any:
    module = import_module(f"mlx_vlm.models.{path}")
    settings = import_module(f"mlx_vlm.models.{path.split('.')[0]}.config")
    return getattr(module, model)(_small(getattr(settings, config), **given)), inputs


# -- mlx-cv and mlx-sam


def _mlx_cv(path: str, model: str, config: str, made: str, *shape: int) -> Any:
    module = import_module(f"mlx_cv.{path}")
    return getattr(module, model)(getattr(getattr(module, config), made)()), [pixels(*shape)]


def _sam_config() -> Any:
    config = import_module("mlx_sam.config")
    hiera = config.HieraConfig(
        image_size=128, embed_dim=16, stages=(1, 2, 3, 1), global_att_blocks=(4,),
        window_spec=(8, 4, 14, 7), q_pool=3, pos_embed_hw=(32, 32),
    )  # fmt: skip
    return config.Sam2ImageEncoderConfig(
        hiera, config.FpnConfig(backbone_channel_list=(128, 64, 32, 16))
    )


def _sam_hiera() -> Any:
    module = import_module("mlx_sam.models.hiera").Hiera(_sam_config().hiera)
    return module, [pixels(1, 3, 128, 128)]


def _sam_encoder() -> Any:
    encoder = import_module("mlx_sam.models.image_encoder").Sam2ImageEncoder(_sam_config())
    return encoder, [pixels(1, 3, 128, 128)]


def _sam_decoder() -> Any:
    """The decoder of a point that is an object: a score near zero would say nothing."""
    decoder = import_module("mlx_sam.models.sam_heads").MaskDecoder()
    decoder.pred_obj_score_head.layers[-1].bias += 2
    maps = [pixels(1, 256, 16, 16), pixels(1, 256, 16, 16), pixels(1, 3, 256)]
    fine = [pixels(1, 32, 64, 64), pixels(1, 64, 32, 32)]
    return Called(decoder, True, fine), [*maps, pixels(1, 256, 16, 16)]


def _sam_part(path: str, name: str, inputs: Sequence[mx.array], *fixed: Any) -> Any:
    module = getattr(import_module(f"mlx_sam.models.{path}"), name)()
    return (Called(module, *fixed) if fixed else module), inputs


CATALOGUE: dict[str, Build] = {
    **{f"mlx-image/{n}": partial(_mlx_image, n, size) for n, size in _MLX_IMAGE.items()},
    **{f"mlx-vlm/{n}": partial(_tower, n, [pixels(*_NHWC)], **c) for n, c in _PLAIN.items()},
    **{
        f"mlx-vlm/{n}": partial(_tower, n, [pixels(*_NCHW)], **c)
        for n, c in _CHANNELS_FIRST.items()
    },
    **{f"mlx-vlm/{n}": partial(_patches, n, **c) for n, c in _FLAT.items()},
    **{
        f"mlx-vlm/{n}": partial(_square_patches, n, 64, 8, 8, 3)
        for n in ("kimi_vl", "kimi_k25", "kimi_k3", "locateanything")
    },
    "mlx-vlm/paddleocr_vl": partial(_square_patches, "paddleocr_vl", 1, 64, 3, 8, 8),
    "mlx-vlm/sam3": _sam3,
    "mlx-vlm/rt_detr_v2": partial(_detr, "rt_detr_v2", **_RT_DETR),
    "mlx-vlm/rfdetr": partial(_detr, "rfdetr", **_RF_DETR),
    "mlx-vlm/yolo11": lambda: (
        import_module("mlx_vlm.models.yolo11.yolo11").YOLO11(),
        [pixels(1, 64, 64, 3)],
    ),
    "mlx-vlm/dinov2": partial(
        _vlm, "dinov2.dinov2", "Model", "ModelConfig", [pixels(*_NHWC)]
    ),
    "mlx-vlm/siglip": partial(
        _vlm, "siglip.siglip", "SiglipTextModel", "TextConfig", [mx.array([[3, 1, 4, 1, 5]])]
    ),
    "mlx-cv/depth_anything_v3": partial(
        _mlx_cv, "models.depth_anything_v3.modeling", "DepthAnythingV3Monocular",
        "DA3MonocularConfig", "tiny_fixture", 1, 3, 28, 28,
    ),
    "mlx-cv/eomt_dinov3": partial(
        _mlx_cv, "models.eomt_dinov3.modeling", "EoMTDINOv3", "EoMTDINOv3Config",
        "tiny_fixture", 1, 3, 8, 8,
    ),
    "mlx-sam/hiera": _sam_hiera,
    "mlx-sam/image_encoder": _sam_encoder,
    "mlx-sam/memory_encoder": partial(
        _sam_part, "memory", "MemoryEncoder", [pixels(1, 256, 16, 16), pixels(1, 1, 256, 256)]
    ),
    "mlx-sam/mask_down_sampler": partial(
        _sam_part, "memory", "MaskDownSampler", [pixels(1, 1, 256, 256)]
    ),
    "mlx-sam/cx_block": partial(_sam_part, "memory", "CXBlock", [pixels(1, 256, 16, 16)]),
    "mlx-sam/two_way_transformer": partial(
        _sam_part, "sam_heads", "TwoWayTransformer",
        [pixels(1, 256, 16, 16), pixels(1, 256, 16, 16), pixels(1, 7, 256)],
    ),
    "mlx-sam/mask_decoder": _sam_decoder,
}  # fmt: skip
