"""A question in the form in which Qwen2 was trained on conversations."""

from __future__ import annotations

from ...errors import ConfigError

IMAGE = "<image>"
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_USER = "<|im_start|>user\n"
_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"


def conversation(prompt: str, images: int) -> list[str]:
    """The texts around so many ``images``: before the first, between each two, after the last.

    ``prompt`` says by <image> where they are, or they come first, each on a line. Raises
    ConfigError.
    """
    if not prompt.replace(IMAGE, "").strip():
        raise ConfigError("the prompt is empty; ask something, such as 'Describe the image.'")
    marks = prompt.count(IMAGE)
    if marks not in (0, images):
        raise ConfigError(f"the prompt has <image> {marks} times, {images} images are given")
    before = "" if marks else f"{IMAGE}\n" * images
    return (_SYSTEM + _USER + before + prompt + _ASSISTANT).split(IMAGE)
