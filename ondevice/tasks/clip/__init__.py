"""CLIP: images and texts as vectors of one space, and classes described in words."""

from .load import load_clip as load_clip, save_clip as save_clip
from .model import CLIP as CLIP
from .tokenizer import SigLIPTokenizer as SigLIPTokenizer, Tokenizer as Tokenizer
