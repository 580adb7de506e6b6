"""MobileCLIP's encoders in PyTorch: timm's, open_clip's, and Apple's MCt, which neither has."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from . import torchvision_ops
from .clip_cases import tokens, weights
from .published import OPEN_CLIP
from .weightgen import image_batch

Shapes = dict[str, list[int]]


@torch.no_grad()
def run(name: str) -> tuple[Shapes, dict[str, np.ndarray]]:
    """The shapes of a checkpoint, by its published names, and the outputs."""
    torchvision_ops.declare()
    if name == "vit_base_mci_224":
        return _vit(name)
    model = name.removesuffix("_text")
    if model == "mobileclip_s0":
        shapes = mct_shapes()
        rows = mct(weights(shapes), torch.from_numpy(tokens()).long())
    else:
        shapes, rows = _open_clip(OPEN_CLIP[model])
    return shapes, {"rows": F.normalize(rows, dim=-1).numpy()}


def _shapes(module: torch.nn.Module, prefix: str = "") -> Shapes:
    return {prefix + k: list(v.shape) for k, v in module.state_dict().items()}


def _fill(module: torch.nn.Module, shapes: Shapes, prefix: str = "") -> None:
    made = {k.removeprefix(prefix): torch.from_numpy(v) for k, v in weights(shapes).items()}
    module.load_state_dict(made)
    module.eval()


def _vit(name: str) -> tuple[Shapes, dict[str, np.ndarray]]:
    import timm

    timm.layers.set_fused_attn(False)
    model = timm.create_model(name, num_classes=512)
    shapes = _shapes(model)
    _fill(model, shapes)
    features = model.forward_features(torch.from_numpy(image_batch(7, 2, 224)))
    pooled = model.forward_head(features, pre_logits=True)
    found = {"map": features[:, 1:, :8], "pooled": pooled, "logits": model.head(pooled)}
    return shapes, {k: v.numpy() for k, v in found.items()}


def _open_clip(name: str) -> tuple[Shapes, torch.Tensor]:
    import open_clip

    config = open_clip.get_model_config(name)
    text = open_clip.model._build_text_tower(
        config["embed_dim"], open_clip.model.CLIPTextCfg(**config["text_cfg"])
    )
    shapes = _shapes(text, "text.")
    _fill(text, shapes, "text.")
    return {**shapes, "logit_scale": []}, text(torch.from_numpy(tokens()).long())


# Apple's MCt, written from its published description: RepMixer blocks around a transformer.

WIDTH, HEADS, LAYERS, KERNEL = 512, 8, 4, 11


def mct_shapes(width: int = WIDTH, layers: int = LAYERS, vocab: int = 49408) -> Shapes:
    tower: Shapes = {
        "embedding_layer.weight": [vocab, width],
        "positional_embedding.pos_embed.pos_embed": [1, 1, 77, width],
        "projection_layer": [width, width],
        **_norm("final_layer_norm", width),
    }
    for i in (0, layers + 1):
        tower |= _mixer_shapes(f"transformer.{i}", width)
    for i in range(1, layers + 1):
        at = f"transformer.{i}"
        tower |= _norm(f"{at}.pre_norm_mha.0", width) | _norm(f"{at}.pre_norm_ffn.0", width)
        tower |= _affine(f"{at}.pre_norm_mha.1.qkv_proj", [3 * width, width])
        tower |= _affine(f"{at}.pre_norm_mha.1.out_proj", [width, width])
        tower |= _affine(f"{at}.pre_norm_ffn.1", [4 * width, width])
        tower |= _affine(f"{at}.pre_norm_ffn.4", [width, 4 * width])
    return {f"text_encoder.{k}": v for k, v in tower.items()} | {"logit_scale": []}


def _mixer_shapes(at: str, width: int) -> Shapes:
    mixer = f"{at}.token_mixer"
    return {
        f"{mixer}.layer_scale": [width, 1, 1],
        f"{mixer}.mixer.rbr_conv.0.conv.weight": [width, 1, 1, KERNEL],
        f"{at}.layer_scale": [width, 1, 1],
        f"{at}.convffn.conv.conv.weight": [width, 1, 1, KERNEL],
        **_batch_norm(f"{mixer}.norm.rbr_skip", width),
        **_batch_norm(f"{mixer}.mixer.rbr_skip", width),
        **_batch_norm(f"{mixer}.mixer.rbr_conv.0.bn", width),
        **_batch_norm(f"{at}.convffn.conv.bn", width),
        **_affine(f"{at}.convffn.fc1", [4 * width, width, 1, 1]),
        **_affine(f"{at}.convffn.fc2", [width, 4 * width, 1, 1]),
    }


def _norm(at: str, width: int) -> Shapes:
    return {f"{at}.weight": [width], f"{at}.bias": [width]}


def _affine(at: str, shape: list[int]) -> Shapes:
    return {f"{at}.weight": shape, f"{at}.bias": shape[:1]}


def _batch_norm(at: str, width: int) -> Shapes:
    names = ("weight", "bias", "running_mean", "running_var")
    return {f"{at}.{n}": [width] for n in names} | {f"{at}.num_batches_tracked": []}


def mct(arrays: dict[str, np.ndarray], ids: torch.Tensor) -> torch.Tensor:
    w = {k.removeprefix("text_encoder."): torch.from_numpy(v) for k, v in arrays.items()}
    x = w["embedding_layer.weight"][ids] + w["positional_embedding.pos_embed.pos_embed"][0, 0]
    last = max(int(k.split(".")[1]) for k in w if k.startswith("transformer."))
    for i in range(last + 1):
        block = _mct_mixer if i in (0, last) else _mct_attention
        x = block(w, f"transformer.{i}", x)
    x = F.layer_norm(x, x.shape[-1:], w["final_layer_norm.weight"], w["final_layer_norm.bias"])
    return x[torch.arange(len(ids)), ids.argmax(-1)] @ w["projection_layer"]


def _mct_mixer(w: dict[str, torch.Tensor], at: str, x: torch.Tensor) -> torch.Tensor:
    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        parts = [
            w[f"{at}.{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")
        ]
        return F.batch_norm(y, *parts)

    def conv(name: str, y: torch.Tensor) -> torch.Tensor:
        kernel = w[f"{at}.{name}.weight"]
        return F.conv2d(y, kernel, padding=(0, KERNEL // 2), groups=len(kernel))

    y = x.transpose(1, 2).unsqueeze(2)
    mixed = norm(
        "token_mixer.mixer.rbr_conv.0.bn", conv("token_mixer.mixer.rbr_conv.0.conv", y)
    )
    mixed = mixed + norm("token_mixer.mixer.rbr_skip", y)
    y = y + w[f"{at}.token_mixer.layer_scale"] * (mixed - norm("token_mixer.norm.rbr_skip", y))
    z = norm("convffn.conv.bn", conv("convffn.conv.conv", y))
    z = F.gelu(F.conv2d(z, w[f"{at}.convffn.fc1.weight"], w[f"{at}.convffn.fc1.bias"]))
    z = F.conv2d(z, w[f"{at}.convffn.fc2.weight"], w[f"{at}.convffn.fc2.bias"])
    return (y + w[f"{at}.layer_scale"] * z).squeeze(2).transpose(1, 2)


def _mct_attention(w: dict[str, torch.Tensor], at: str, x: torch.Tensor) -> torch.Tensor:
    def linear(name: str, y: torch.Tensor) -> torch.Tensor:
        return F.linear(y, w[f"{at}.{name}.weight"], w[f"{at}.{name}.bias"])

    def norm(name: str, y: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(y, y.shape[-1:], w[f"{at}.{name}.weight"], w[f"{at}.{name}.bias"])

    B, N, C = x.shape
    qkv = linear("pre_norm_mha.1.qkv_proj", norm("pre_norm_mha.0", x))
    q, k, v = qkv.reshape(B, N, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
    attn = (q @ k.transpose(2, 3) / (C // HEADS) ** 0.5).softmax(-1)
    x = x + linear("pre_norm_mha.1.out_proj", (attn @ v).transpose(1, 2).reshape(B, N, C))
    y = F.gelu(linear("pre_norm_ffn.1", norm("pre_norm_ffn.0", x)))
    return x + linear("pre_norm_ffn.4", y)
