"""What DaViT's golden case does not show: Florence-2's towers, and images of any size."""

from __future__ import annotations

import re

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from ondevice import create_model, fuse
from ondevice.errors import WeightsError
from ondevice.models.davit import ChannelAttention

from .test_models import close, image

SMALL = {"depth": (1, 1, 1, 1), "embed_dim": (32, 32, 64, 64)}
# Our names -> Florence-2's.
FLORENCE = (
    (r"^stem\.", "convs.0."),
    (r"^stages\.(\d)\.downsample\.", r"convs.\1."),
    (r"^stages\.(\d)\.blocks\.(\d)\.layers\.0\.", r"blocks.\1.\2.spatial_block."),
    (r"^stages\.(\d)\.blocks\.(\d)\.layers\.1\.", r"blocks.\1.\2.channel_block."),
    (r"\.cpe([12])\.proj\.", r".conv\1.fn.dw."),
    (r"(spatial_block)\.mixer\.norm\.", r"\1.window_attn.norm."),
    (r"(spatial_block)\.mixer\.m\.", r"\1.window_attn.fn."),
    (r"(channel_block)\.mixer\.norm\.", r"\1.channel_attn.norm."),
    (r"(channel_block)\.mixer\.m\.", r"\1.channel_attn.fn."),
    (r"\.mlp\.norm\.", ".ffn.norm."),
    (r"\.mlp\.m\.", ".ffn.fn.net."),
)


def florence_file() -> dict[str, mx.array]:
    """The weights of a small tower among those of a language model, in torch's layouts."""
    model = create_model("davit_base_fl", **SMALL)
    weights = {"language_model.final_logits_bias": mx.zeros((1, 8))}
    for name, array in tree_flatten(model.parameters()):
        for pattern, theirs in FLORENCE:
            name = re.sub(pattern, theirs, name)
        array = array.transpose(0, 3, 1, 2) if array.ndim == 4 else array
        weights |= {} if name.startswith("norm.") else {f"vision_tower.{name}": array}
    return weights


def test_the_tower_of_a_florence_is_taken_out_of_its_file():
    weights = florence_file()
    model = create_model("davit_base_fl", weights=weights, **SMALL)
    assert len(tree_flatten(model.parameters())) == len(weights) - 1
    x = image(height=96, width=96)
    mean = model.features(x).mean(axis=(1, 2))
    plain = (mean - mean.mean()) / mx.sqrt(mean.var() + 1e-5)  # no norm is in the file
    assert close(model.pooled(x), plain)


def test_what_a_florence_lacks_else_is_missing():
    weights = florence_file()
    del weights["vision_tower.convs.1.proj.bias"]
    with pytest.raises(WeightsError, match=r"missing 1: stages\.1\.downsample\.proj\.bias$"):
        create_model("davit_base_fl", weights=weights, **SMALL)


def test_a_classifier_without_its_norm_is_refused():
    model = create_model("davit_tiny", **SMALL, num_classes=7)
    weights = dict(tree_flatten(model.parameters()))
    del weights["norm.weight"], weights["norm.bias"]
    with pytest.raises(WeightsError, match=r"missing 2: norm\.bias, norm\.weight"):
        create_model("davit_tiny", weights=weights, **SMALL, num_classes=7)


@pytest.mark.parametrize("queries", [False, True])
def test_channels_attend_to_channels(queries):
    """Beside the definition, a head and a channel at a time, in float64."""
    layer = ChannelAttention(64, queries)
    x = mx.random.normal((2, 5, 7, 64), key=mx.random.key(0))
    tokens = np.array(layer.qkv(x), np.float64).reshape(2, 35, 3, 2, 32)
    y = np.zeros((2, 35, 64))
    for n, head in np.ndindex(2, 2):
        q, k, v = (tokens[n, :, i, head].T for i in range(3))  # (channels, positions)
        a, b, c = (q, k, v) if queries else (k, v, q)
        for i, channel in enumerate(a):
            scores = b @ channel / np.sqrt(35 if queries else 32)
            weight = np.exp(scores - scores.max())
            y[n, :, 32 * head + i] = weight / weight.sum() @ c
    wanted = layer.proj(mx.array(y.reshape(x.shape).astype(np.float32)))
    for form in (layer, layer.fuse()):
        assert close(form(x), wanted)


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("davit_tiny", [(25, 17), (13, 9), (7, 5), (4, 3)]),
        ("davit_base_fl", [(25, 17), (13, 9), (7, 5), (4, 3)]),
    ],
)
def test_an_image_of_any_size_is_padded(name, sides):
    model = create_model(name, **SMALL)
    x = image(height=98, width=65)
    found = model.maps(x)
    assert [y.shape[1:3] for y in found] == sides
    whole = mx.pad(x, [(0, 0), (0, 2), (0, 3), (0, 0)])
    assert mx.array_equal(found[-1], model.maps(whole)[-1])
    assert close(fuse(model).pooled(x), model.pooled(x))
