"""One way to load whatever has a name or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    import mlx.nn as nn


def load(
    name: str | Path, *, revision: str | None = None, dtype: mx.Dtype = mx.float32
) -> nn.Module:
    """A model with its weights, ready to run or to export: ``model.signature`` says what for.

    ``name`` is a registered model ("shvit_s1", its default weights, or "name.tag"), a folder
    that ``save_model``, ``ondevice import`` or timm wrote, one of the text encoders of a CLIP
    ("mobileclip_s0_text", or the folder ``text`` in that of a CLIP), a repository of the hub,
    or a FastVLM, of which it is the image encoder with its projector (``load_vlm`` has the
    language model as well). Parameters have type ``dtype``.

    Raises UnknownModelError, ConfigError, WeightsError, HubError.
    """
    from ..weights.folder import create_model
    from .clip.load import add_tokenizer
    from .vlm.load import is_vlm, load_vision

    if is_vlm(str(name), revision):
        return load_vision(name, revision=revision, dtype=dtype).exportable()
    model = create_model(str(name), pretrained=True, revision=revision, dtype=dtype)
    add_tokenizer(model, Path(name))
    return model
