"""Text encoders of MobileCLIP and SigLIP: token ids in, a unit vector of the images' space out.

Papers: https://arxiv.org/abs/2103.00020 (CLIP), https://arxiv.org/abs/2311.17049 (MobileCLIP),
https://arxiv.org/abs/2303.15343 (SigLIP)
Code: https://github.com/apple/ml-mobileclip, https://github.com/mlfoundations/open_clip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig
from ..nn.layers import ACTIVATIONS, unit
from ..nn.reparam import RepMixer
from ..nn.transformer import Block, causal_mask
from ..signature import Input, Output, Signature
from ..signature.samples import CAPTIONS
from .fastvit import Block as ConvBlock

# By whose tokens they are: the ids that begin a text, end it, and fill the row up; negative
# ones count from the end of the vocabulary.
MARKS: dict[str, tuple[int | None, int, int]] = {
    "clip": (-2, -1, 0),
    "t5": (None, 1, 1),
    "gemma": (None, 1, 0),
}


@dataclass(frozen=True, kw_only=True)
class TextConfig(ModelConfig):
    num_classes: int = 0
    embed_dim: int = 512  # of the space shared with images
    width: int = 512
    depth: int = 12
    heads: int = 8
    causal: bool = False
    conv_blocks: bool = False  # one before the transformer blocks, one after
    context: int = 77
    vocab: int = 49408
    tokens: Literal["clip", "t5", "gemma"] = "clip"  # whose tokenizer makes the ids
    pool: Literal["end", "last"] = "end"  # which position is read: the text's end, or the last
    act: Literal["gelu", "gelu_tanh"] = "gelu"
    eps: float = 1e-5
    projection_bias: bool = False
    sigmoid: bool = False  # whether each pair of image and text has a probability of its own

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return ()


class MixerBlock(nn.Module):
    """FastViT's block over a sequence: convolutions over eleven tokens."""

    KERNEL = (1, 11)

    def __init__(self, dim: int) -> None:
        super().__init__()
        mixer = RepMixer(dim, self.KERNEL, scale=0)
        self.block = ConvBlock(dim, 4 * dim, mixer, self.KERNEL)

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        """(B, N, C) tokens to the same shape; there is nothing to mask."""
        return self.block(x[:, None])[:, 0]


class TextTower(nn.Module):
    """(B, context) token ids to (B, embed_dim); with ``pool="end"``, a text's end is its
    largest id.

    ``tokenize``, if set, gives the (texts, context) ids of captions to be verified with.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.tokenize: Callable[[list[str]], Any] | None = None
        c = self.config = config
        self.token_embedding = nn.Embedding(c.vocab, c.width)
        self.positional_embedding = mx.zeros((c.context, c.width))
        self.blocks: list[nn.Module] = [
            Block(c.width, c.heads, c.eps, act=ACTIVATIONS[c.act]()) for _ in range(c.depth)
        ]
        if c.conv_blocks:
            self.blocks = [MixerBlock(c.width), *self.blocks, MixerBlock(c.width)]
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.projection = nn.Linear(c.width, c.embed_dim, bias=c.projection_bias)
        self.logit_scale = mx.zeros(())  # the logarithm of what cosines are multiplied by
        if c.sigmoid:
            self.logit_bias = mx.zeros(())  # what is then added, before the sigmoid

    def __call__(self, tokens: mx.array) -> mx.array:
        """Tokens beyond the end of a text are those of ``MARKS``, as in training."""
        x = self.token_embedding(tokens) + self.positional_embedding
        mask = causal_mask(self.config.context) if self.config.causal else None
        for block in self.blocks:
            x = block(x, mask)
        pooled = at_end(x, tokens) if self.config.pool == "end" else x[:, -1]
        return unit(self.projection(self.norm(pooled)))

    def example_ids(self, count: int) -> Any:
        """(count, context) ids in NumPy: of captions with a tokenizer, else of any words."""
        import numpy as np

        if self.tokenize is None:
            return np.array(example_tokens(self.config, texts=count))
        return np.array(self.tokenize([CAPTIONS[-1 - i % len(CAPTIONS)] for i in range(count)]))

    @property
    def signature(self) -> Signature:
        """The token ids of a text in, its unit vector out."""
        text = Input(
            "text", "tokens", (1, self.config.context), "int32", examples=self.example_ids
        )
        embedding = Output(
            "embedding",
            "embedding",
            text="Unit vector of the text in the space shared with images",
        )
        return Signature((text,), (embedding,), ("embedding",), self.info.name)


def at_end(x: mx.array, tokens: mx.array) -> mx.array:
    """The (B, C) rows of (B, N, C) where the texts end: at their largest number, the first.

    As a product with zeros and a one, which every Apple processor does, unlike a gather.
    """
    end = mx.argmax(tokens, axis=-1, keepdims=True)
    selected = (mx.arange(tokens.shape[1]) == end).astype(x.dtype)
    return (selected[:, None] @ x)[:, 0]


def example_tokens(config: TextConfig, texts: int = 1) -> mx.array:
    """(texts, context) ids as of texts: short ones first, the last as long as can be."""
    c, key = config, mx.random.key(0)
    start, last, pad = MARKS[c.tokens]
    position = mx.arange(c.context)
    end = 1 + (c.context - 2) * mx.arange(1, texts + 1)[:, None] // texts
    among = (3, c.vocab) if start is None else (1, c.vocab - 2)
    words = mx.random.randint(*among, (texts, c.context), key=key)
    words = words if start is None else mx.where(position == 0, start, words)
    rows = mx.where(position < end, words, mx.where(position == end, last, pad))
    return mx.where(rows < 0, rows + c.vocab, rows).astype(mx.int32)


# Apple's names and open_clip's become ours.
RENAMES = (
    (r"^embedding_layer\.", "token_embedding."),
    (r"^positional_embedding\.pos_embed\.pos_embed$", "positional_embedding"),
    (r"^transformer\.(resblocks\.)?", "blocks."),
    (r"^(final_layer_norm|ln_final)\.", "norm."),
    (r"^(projection_layer|text_projection)$", "projection.weight"),
    (r"^text_projection\.", "projection."),
    (r"\.pre_norm_mha\.0\.|\.ln_1\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.|\.attn\.in_proj_(?=weight|bias)", ".attn.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.|\.attn\.out_proj\.", ".attn.proj."),
    (r"\.pre_norm_ffn\.0\.|\.ln_2\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.|\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.pre_norm_ffn\.4\.|\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^(blocks\.\d+)\.(?=token_mixer\.|convffn\.|layer_scale$)", r"\1.block."),
    (r"\.convffn\.", ".mlp."),
    (r"\.token_mixer\.norm\.rbr_skip\.", ".token_mixer.norm."),
    (r"\.rbr_conv\.", ".conv_kxk."),
    (r"\.rbr_skip\.", ".identity."),
)
TRANSPOSES = r"(^|\.)(projection_layer|text_projection)$"

# Of a file with both encoders, all but the images'; of a text encoder's own, everything.
KEY_PREFIX = r"(?:(?:module|model)\.)?+(?:text_encoder\.|text\.|(?!image_encoder\.|visual\.))"
