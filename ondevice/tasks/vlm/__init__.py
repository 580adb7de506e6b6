"""FastVLM: an image and a question in, an answer out.

FastViTHD encodes the image, a projector turns its tokens into words of the language model,
Qwen2, which mlx-lm runs. Paper: https://arxiv.org/abs/2412.13303
Code: https://github.com/apple/ml-fastvlm
"""

from .answer import Answer as Answer, Timings as Timings
from .load import load_vision as load_vision, load_vlm as load_vlm
from .model import VLM as VLM
from .tokens_file import write_tokens as write_tokens
from .vision import Vision as Vision, VisionTower as VisionTower
