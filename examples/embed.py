"""How similar are two images? python examples/embed.py a.jpg b.jpg"""

import sys

import ondevice  # before mlx: on Linux it loads a fast BLAS

# isort: split
import mlx.core as mx

model = ondevice.fuse(ondevice.load("shvit_nano.flowers"))
x = ondevice.preprocess(sys.argv[1:3], model.info.preprocess)
a, b = model.pooled(x)
print(f"cosine {(a @ b / (mx.linalg.norm(a) * mx.linalg.norm(b))).item():.3f}")
