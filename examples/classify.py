"""Classify images: python examples/classify.py photo.jpg [more.jpg ...]

The model ships inside the package; any other name or folder may stand in its place.
"""

import sys

import ondevice

model = ondevice.fuse(ondevice.load("shvit_nano.cifar10"))
paths = sys.argv[1:]
for path, predictions in zip(paths, ondevice.classify(model, paths, top_k=3), strict=True):
    print(path, ", ".join(f"{p.label} {p.score:.0%}" for p in predictions))
