"""Train with a loss of one's own: python examples/train_my_loss.py photos/ flowers

The focal loss (https://arxiv.org/abs/1708.02002) looks away from what is learned already. In
photos/ there is a folder for each class.
"""

import sys

import ondevice  # before mlx: on Linux it loads a fast BLAS

import mlx.core as mx  # isort: skip


def focal(logits: mx.array, targets: mx.array) -> mx.array:
    """The mean over (B, classes) logits and targets."""
    logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return -(targets * (1 - mx.exp(logs)) ** 2 * logs).sum(axis=-1).mean()


images, out = sys.argv[1:]
model = ondevice.train(
    images, out, model="shvit_nano.cifar10", method="full", loss=focal, epochs=3, size=64
)
print(f"{out}: {model.info.metrics['val_top1']} % of {model.info.metrics['val_images']} images")
