"""Heads that two families or more have: of networks that learned from a teacher, too."""

from __future__ import annotations

import copy

import mlx.core as mx
import mlx.nn as nn

from .layers import NormLinear

# Names of timm's two heads of a distilled network become ours.
DISTILLED = ((r"^head\.(weight|bias)$", r"head.head.\1"), (r"^head_dist\.", "head.head_dist."))


class DistilledHead(nn.Module):
    """The mean of two heads, of which one learned from the labels and one from a teacher."""

    def __init__(self, head: nn.Module, head_dist: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.head_dist = head_dist

    @classmethod
    def linear(cls, dim: int, num_classes: int) -> DistilledHead:
        """Two linear layers."""
        return cls(nn.Linear(dim, num_classes), nn.Linear(dim, num_classes))

    @classmethod
    def normed(cls, dim: int, num_classes: int) -> DistilledHead:
        """Two linear layers, each with a batch norm of its own."""
        return cls(NormLinear(dim, num_classes), NormLinear(dim, num_classes))

    def __call__(self, x: mx.array) -> mx.array:
        """(B, dim) vectors to (B, num_classes)."""
        return (self.head(x) + self.head_dist(x)) / 2

    def fuse(self) -> nn.Module:
        """One linear layer."""
        fused = copy.copy(self.head)
        fused.weight = (self.head.weight + self.head_dist.weight) / 2
        fused.bias = (self.head.bias + self.head_dist.bias) / 2
        return fused
