"""Photos as FastVLM's visual tokens, without its projector and with it:

    python examples/vlm_encode.py photo.jpg [more.jpg ...] [--size 512] [--model FOLDER]

encoder.safetensors gets what the vision encoder makes, projected.safetensors what the language
model reads: `tokens`, of shape (photos, tokens, dim), and `paths`. A smaller size makes fewer
tokens. The language model is not loaded.
"""

import argparse
import time

from ondevice.tasks.vlm import Vision, load_vision, write_tokens

parser = argparse.ArgumentParser(description="Photos as FastVLM's visual tokens.")
parser.add_argument("photos", nargs="+")
parser.add_argument("--size", type=int, default=1024, help="in pixels: (size / 64)² tokens")
parser.add_argument("--model", default="apple/FastVLM-0.5B", help="on the hub, or a folder")
args = parser.parse_args()

tower, vision = load_vision(args.model), Vision(size=args.size)
for out, projected in {"encoder.safetensors": False, "projected.safetensors": True}.items():
    start = time.perf_counter()
    photos = write_tokens(
        tower, args.photos, out, vision=vision, projected=projected, force=True
    )
    seconds = time.perf_counter() - start
    print(f"{out}: {photos} x {vision.count} tokens in {seconds:.2f} s")
