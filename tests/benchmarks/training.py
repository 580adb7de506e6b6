"""Steps of training, images a second: ours in MLX beside PyTorch's eager mode, on a CPU.

    python -m tests.benchmarks.training --model shvit_s1 --batch 32

Without torch and timm only ours is measured. Both do forward, backward and AdamW on the same
random images, in training mode; the fastest of the steps counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

import ondevice
from ondevice.tasks.train.trainer import Settings, Trainer


def fastest(step: Callable[[], object], count: int) -> float:
    """Seconds of the fastest step; the first is left out."""
    step()
    found = []
    for _ in range(count):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return min(found)


def ours(
    name: str, pixels: np.ndarray, targets: np.ndarray, precision: str
) -> Callable[[], object]:
    model = ondevice.create_model(name, num_classes=targets.shape[1])
    settings = Settings(batch_size=len(pixels), frozen_norms=False, precision=precision)
    trainer = Trainer(model, settings, steps=1000)
    return lambda: trainer.step(pixels, targets)


def theirs(name: str, pixels: np.ndarray, targets: np.ndarray) -> Callable[[], object] | None:
    """timm's model in PyTorch; None where one of them is not installed."""
    try:
        import timm
        import torch
    except ImportError:
        return None
    model = timm.create_model(name, num_classes=targets.shape[1]).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    x = torch.from_numpy(pixels.astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(targets)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="shvit_s1")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8)
    targets = np.eye(10, dtype=np.float32)[rng.integers(0, 10, args.batch)]
    mlx = args.batch / fastest(ours(args.model, pixels, targets, args.precision), args.steps)
    print(f"{args.model}, batch {args.batch}, {args.size} px: MLX {mlx:.1f} images/s")
    step = theirs(args.model, pixels, targets)
    if step is None:
        print("torch and timm are not installed: nothing to compare with")
        return
    torch = args.batch / fastest(step, args.steps)
    print(f"PyTorch eager {torch:.1f} images/s; MLX is {mlx / torch:.2f} of it (bar 0.8)")


if __name__ == "__main__":
    main()
