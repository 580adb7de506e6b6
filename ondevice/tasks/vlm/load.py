"""A FastVLM from the hub or a folder, in any layout that ``checkpoint.py`` knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ...errors import ConfigError, HubError, WeightsError, printable
from ...nn.fuse import fuse
from ...registry import Checkpoint, Shapes, hub_repository, model_spec, registered_name
from ...weights.fit import load_weights, rename
from ...weights.folder import create_model
from ...weights.hub import fetch, fetch_folder, mention_license, quiet
from .checkpoint import (
    ENCODER,
    FILES,
    Parts,
    end_tokens,
    language_config,
    missing_files,
    read_config,
    read_parts,
    weights_file,
)
from .model import VLM
from .vision import Projector, Recent, Vision, VisionTower

LICENSE = "apple-amlr"  # of all FastVLM's weights, converted or not


def load_vlm(
    name: str | Path,
    *,
    revision: str | None = None,
    vision: Vision | None = None,
    dtype: mx.Dtype = mx.float32,
    cache: Recent | None = None,
) -> VLM:
    """A FastVLM: a repository such as "apple/FastVLM-0.5B", or a folder of its files.

    Encoder and projector compute in ``dtype``, the language model as it is stored, on a CPU
    in float32. Tokens of images are remembered in ``cache``, which several models may share.

    Raises ConfigError, WeightsError, HubError.
    """
    _require_mlx_lm()
    folder = find_folder(name, revision)
    config, parts = read_config(folder), read_parts(folder)
    language = _language(config, parts, folder)
    mx.eval(language.parameters())
    return VLM(
        str(name),
        load_tower(parts, folder, name=str(name), dtype=dtype, cache=cache),
        language,
        _tokenizer(folder, end_tokens(folder, config)),
        context=language.args.max_position_embeddings,
        vision=vision or Vision(),
    )


def load_vision(
    name: str | Path, *, revision: str | None = None, dtype: mx.Dtype = mx.float32
) -> VisionTower:
    """Encoder and projector of a FastVLM, without mlx-lm. Raises as ``load_vlm``."""
    folder = find_folder(name, revision)
    return load_tower(read_parts(folder), folder, name=str(name), dtype=dtype)


def _require_mlx_lm() -> None:
    try:
        import mlx_lm  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"language models need mlx-lm: pip install 'ondevice[vlm]' ({error})"
        ) from error


def find_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a FastVLM, fetched if it has to be. Raises ConfigError, HubError."""
    folder = Path(name)
    if not folder.is_dir():
        repo = hub_repository(str(name))
        if not repo or not is_vlm(str(name), revision):
            raise ConfigError(
                f"{name} is no FastVLM: give a folder of one, or a repository, OWNER/NAME, "
                "such as apple/FastVLM-0.5B"
            )
        if registered_name(repo):
            mention_license(str(name), LICENSE)  # before it comes
        folder = fetch_folder(repo, FILES, missing_files, revision)
    if lacks := missing_files(folder):
        raise ConfigError(f"{folder} is no FastVLM: it lacks {', '.join(lacks)}")
    read_config(folder)
    mention_license(str(name), LICENSE)
    return folder


def is_vlm(name: str, revision: str | None = None) -> bool:
    """Whether ``name`` means a FastVLM: a folder of one, or a repository of the hub.

    One that is not known is asked for its ``config.json``.
    """
    folder = Path(name)
    if not folder.is_dir():
        if known := registered_name(name):
            return model_spec(known).name == ENCODER
        if not hub_repository(name):
            return False
        try:
            config = Checkpoint(tag="", repo=hub_repository(name), file="config.json")
            folder = fetch(config, revision).parent
        except HubError:
            return True  # so that this is said again where it is looked for
    try:
        return bool(read_config(folder))
    except ConfigError:
        return False


def load_tower(
    parts: Parts, folder: Path, *, name: str, dtype: mx.Dtype, cache: Recent | None = None
) -> VisionTower:
    """FastViTHD, fused, and the projector. Raises WeightsError, ConfigError."""
    encoder = _encoder(parts.encoder, dtype)
    projector = _projector(parts.projector, 2 * encoder.config.embed_dim[-1], dtype)
    encoder.info = replace(encoder.info, license=LICENSE, source=name)
    mx.eval(projector.parameters())
    cache = Recent() if cache is None else cache
    return VisionTower(encoder, projector, _identity(weights_file(folder)), cache)


def _identity(path: Path) -> str:
    """What tells a file of weights from others and from what it was before."""
    found = path.stat()
    return f"{path.resolve()}:{found.st_size}:{found.st_mtime_ns}"


def _encoder(arrays: Mapping[str, mx.array], dtype: mx.Dtype) -> nn.Module:
    spec = model_spec(ENCODER)
    named = {k: v for k, v in rename(arrays, spec).items() if not k.startswith("head.")}
    shapes = {key: tuple(array.shape) for key, array in named.items()}
    encoder = create_model(ENCODER, dtype=dtype, **spec.adapt(shapes), **_sizes(shapes))
    depthwise = shapes.get("stem.1.reparam_conv.weight", ())
    load_weights(encoder, named, mlx_layout=depthwise[1:] == (3, 3, 1))
    return fuse(encoder)


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """Widths, blocks and MLP ratio: of FastViTHD, or of another with as many stages."""
    stages = range(len(model_spec(ENCODER).config.to_dict()["depth"]))
    try:
        widths = tuple(max(shapes[f"stages.{i}.blocks.0.layer_scale"]) for i in stages)
        hidden = shapes["stages.0.blocks.0.mlp.fc1.weight"][0]
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"the vision encoder is no FastViTHD: it has no {error}") from error
    blocks = [re.match(r"stages\.(\d)\.blocks\.(\d+)\.layer_scale$", key) for key in shapes]
    depth = tuple(sum(1 for m in blocks if m and int(m[1]) == i) for i in stages)
    return {"embed_dim": widths, "depth": depth, "mlp_ratio": hidden // widths[0]}


def _projector(arrays: Mapping[str, mx.array], in_dim: int, dtype: mx.Dtype) -> Projector:
    """The two layers, whatever their numbers: 0 and 2, or 1 and 2."""
    numbers = sorted({key.partition(".")[0] for key in arrays})
    if len(numbers) != 2 or f"{numbers[0]}.bias" not in arrays:
        raise WeightsError("the projector is not of FastVLM's kind, mlp2x_gelu: two layers")
    ours = dict(zip(numbers, ("linear_1", "linear_2"), strict=True))
    named = {f"{ours[k[0]]}{k[1:]}": v for k, v in arrays.items()}
    projector = Projector(in_dim, named["linear_1.bias"].size)
    projector.set_dtype(dtype)
    load_weights(projector, named)
    return projector


def _language(config: Mapping[str, Any], parts: Parts, folder: Path) -> nn.Module:
    from mlx_lm.models import qwen2
    from mlx_lm.utils import infer_quant_config

    weights = parts.language

    def quantization(path: str, layer: nn.Module) -> Any:
        return f"{path}.scales" in weights and infer_quant_config(path, layer, weights)

    try:
        arguments = qwen2.ModelArgs.from_dict(language_config(config, weights))
        model = qwen2.Model(arguments)
        nn.quantize(model, class_predicate=quantization)
        model.load_weights(list(weights.items()))
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        reason = printable(" ".join(str(error).split()))
        raise WeightsError(f"{folder}: the language model does not fit: {reason}") from error
    if mx.default_device() == mx.cpu:  # which multiplies halves twenty times slower
        model.set_dtype(mx.float32)
    model.eval()
    return model


def _tokenizer(folder: Path, ends: list[int]) -> Any:
    from mlx_lm.tokenizer_utils import load
    from transformers import Qwen2Config

    # Given a config, transformers does not look for the folder's, which may ask for timm.
    options = {"config": Qwen2Config()}
    try:
        with quiet("transformers"):
            return load(folder, options, eos_token_ids=ends)
    except Exception as error:  # transformers and tokenizers raise nearly anything
        reason = printable(" ".join(str(error).split()))
        raise ConfigError(f"{folder} has no usable tokenizer: {reason}") from error
