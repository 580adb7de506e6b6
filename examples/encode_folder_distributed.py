"""Encode a folder of photos with several processes, each its share:

    mlx.launch -n 2 -- python examples/encode_folder_distributed.py photos/ photos.safetensors

Interrupted, the same command goes on where it was. Without mlx.launch one process does it all;
`mlx.launch --hosts a,b` takes several machines, each with the same folder.
"""

import argparse
import sys

import ondevice  # before mlx: on Linux it loads a fast BLAS

# isort: split
import mlx.core as mx

from ondevice.image.files import expand
from ondevice.tasks.embeddings.encode import encode

parser = argparse.ArgumentParser(description="Encode a folder of photos.")
parser.add_argument("folder")
parser.add_argument("out", help="a .safetensors, .npz or .parquet file")
parser.add_argument("--model", default="shvit_nano.cifar10", help="model name or saved folder")
args = parser.parse_args()

group = mx.distributed.init()
done = encode(
    ondevice.load(args.model),
    expand([args.folder]),
    args.out,
    group=group,
    on_error=lambda position, error: print("skipped:", error, file=sys.stderr),
)
if group.rank() == 0:
    print(f"{done.out}: {done.images} x {done.dim} by {group.size()} processes")
