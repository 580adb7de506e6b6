"""Classify images: python examples/classify.py photo.jpg [more.jpg ...]

The model ships inside the package; name any other as the second argument of create_model.
"""

import sys

import ondevice

model = ondevice.fuse(ondevice.create_model("shvit_nano.cifar10"))
paths = sys.argv[1:]
for path, predictions in zip(paths, ondevice.classify(model, paths, top_k=3), strict=True):
    print(path, ", ".join(f"{p.label} {p.score:.0%}" for p in predictions))
