"""What Qwen2 was taught a conversation looks like."""

from __future__ import annotations

from ...errors import ConfigError

IMAGE = "<image>"
_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
_USER = "<|im_start|>user\n"
_ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"


def conversation(prompt: str, images: int) -> list[str]:
    """The texts around ``images`` pictures: before the first, between, after the last.

    ``prompt`` says where the pictures are by <image>, or they come first, each on a line.
    Raises ConfigError.
    """
    if not prompt.replace(IMAGE, "").strip():
        raise ConfigError("the prompt is empty; ask something, such as 'Describe the image.'")
    marks = prompt.count(IMAGE)
    if marks not in (0, images):
        raise ConfigError(f"the prompt has {marks} places for images, {images} are given")
    before = "" if marks else f"{IMAGE}\n" * images
    return (_SYSTEM + _USER + before + prompt + _ASSISTANT).split(IMAGE)
