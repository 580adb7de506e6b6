"""How alike are two pictures? python examples/embed.py a.jpg b.jpg"""

import sys

import mlx.core as mx

import ondevice

model = ondevice.fuse(ondevice.create_model("shvit_nano.flowers"))
x = ondevice.preprocess(sys.argv[1:3], model.info.preprocess)
a, b = model.pooled(x)
print(f"cosine {(a @ b / (mx.linalg.norm(a) * mx.linalg.norm(b))).item():.3f}")
