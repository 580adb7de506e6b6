"""What timm and open_clip need where torchvision was built for a GPU and runs on a CPU."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def declare() -> Any:
    """Declare the two operators that torchvision looks for when it is imported."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library  # whose end would undo it
