"""Ask FastVLM about a photo, through mlx-lm (pip install 'ondevice[vlm]'):

    python examples/describe.py photo.jpg "What is in the photo?" [--size 512] [--model FOLDER]

`vlm.generate(question, photo).text` does all of this in one call.
"""

import argparse

import ondevice  # before mlx: on Linux it loads a fast BLAS

# isort: split
import mlx.core as mx
from mlx_lm import stream_generate

from ondevice.tasks.vlm import Vision

parser = argparse.ArgumentParser(description="Ask FastVLM about a photo.")
parser.add_argument("photo")
parser.add_argument("question")
parser.add_argument("--size", type=int, default=1024, help="in pixels: (size / 64)² tokens")
parser.add_argument("--model", default="apple/FastVLM-0.5B", help="on the hub, or a folder")
parser.add_argument("--max-tokens", type=int, default=256, help="maximum tokens of the answer")
args = parser.parse_args()

vlm = ondevice.load_vlm(args.model)
image = vlm.encode_image(args.photo, vision=Vision(size=args.size))  # (tokens, dim)
inputs = vlm.splice(vlm.tokenize(args.question, images=1), [image])
for response in stream_generate(
    vlm.language,
    vlm.tokenizer,
    mx.array([], mx.int32),  # the whole prompt is in the embeddings
    input_embeddings=inputs,
    max_tokens=args.max_tokens,
):
    print(response.text, end="", flush=True)
print()
