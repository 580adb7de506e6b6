"""Both encoders of a CLIP, and what they do together."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from ...cpu import blas
from ...errors import ConfigError, ImageError, OnDeviceError, printable
from ...image.preprocess import batches
from ...nn.fuse import fuse
from ...nn.layers import unit
from ...signature.decode import Prediction, probabilities, top_scores
from ...weights.hash import weights_hash
from ...weights.safetensors import read_safetensors, write_safetensors

if TYPE_CHECKING:
    from ...config import ModelInfo
    from ...image.open import ImageLike
    from ...image.preprocess import OnError
    from ...models.clip import ImageTower
    from ...models.clip_text import TextTower
    from .tokenizer import SigLIPTokenizer, Tokenizer

TEMPLATES = ("a photo of a {}.",)
MAX_SCALE = 100.0  # of cosines before a softmax, as in training
REMEMBERED = 16  # sets of labels whose vectors are kept in memory
BATCH = 64  # texts in the encoder at a time


class CLIP:
    """Images and texts as unit vectors of one space: their product is a cosine.

    ``image`` and ``text`` are the encoders as loaded. Vectors of labels are remembered, and
    kept on the disk in the folder ``cache`` if there is one.
    """

    def __init__(
        self,
        image: ImageTower,
        text: TextTower,
        tokenizer: Tokenizer | SigLIPTokenizer,
        *,
        cache: str | Path | None = None,
    ) -> None:
        self.image, self.text, self.tokenizer = image, text, tokenizer
        self.cache = Path(cache) if cache is not None else None
        self._fused_image, self._fused_text = fuse(image), fuse(text)
        self._classifiers: OrderedDict[str, mx.array] = OrderedDict()

    @property
    def info(self) -> ModelInfo:
        """What the image encoder is."""
        info: ModelInfo = self.image.info
        return info

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before the softmax or the sigmoid."""
        scale = float(mx.exp(self.text.logit_scale.astype(mx.float32)))
        return scale if self.sigmoid else min(scale, MAX_SCALE)

    @property
    def bias(self) -> float:
        """What is added to scaled cosines before a sigmoid; 0 before a softmax."""
        return float(self.text.logit_bias.astype(mx.float32)) if self.sigmoid else 0.0

    @property
    def sigmoid(self) -> bool:
        """Whether a label has a probability of its own, as in SigLIP, whatever the others."""
        return self.text.config.sigmoid

    def probabilities(self, cosines: mx.array) -> mx.array:
        """(B, labels) cosines of images and labels to how likely each label is.

        The softmax of the scaled cosines, or of each the sigmoid, its bias added.
        """
        logits = self.scale * cosines.astype(mx.float32) + self.bias
        return mx.sigmoid(logits) if self.sigmoid else probabilities(logits)

    def encode_image(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        batch_size: int = 16,
        on_error: OnError | None = None,
    ) -> mx.array:
        """(B, dim) unit vectors of images, given as ``ondevice.preprocess`` takes them.

        An image that cannot be used is left out and given to ``on_error``, by its position
        and the ImageError; without ``on_error``, an ImageError lists all of them.
        """
        blas.advise()
        found = []
        for x in batches(
            images, self.info.preprocess, batch_size=batch_size, on_error=on_error
        ):
            found.append(self._fused_image(x))
            mx.eval(found[-1])
        if not found and on_error is None:
            raise ImageError("no images were given")
        return mx.concatenate(found) if found else mx.zeros((0, self.text.config.embed_dim))

    def encode_text(self, texts: str | Sequence[str]) -> mx.array:
        """(B, dim) unit vectors of texts; of each, the first 77 tokens (SigLIP: 64) count.

        Raises ConfigError.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ConfigError("no texts were given")
        blas.advise()
        found = []
        for i in range(0, len(texts), BATCH):
            found.append(self._fused_text(self.tokenizer(texts[i : i + BATCH])))
            mx.eval(found[-1])
        return mx.concatenate(found)

    def zero_shot(
        self,
        images: ImageLike | Iterable[ImageLike],
        labels: Sequence[str],
        templates: str | Sequence[str] = TEMPLATES,
        *,
        top_k: int = 5,
        batch_size: int = 16,
        on_error: OnError | None = None,
    ) -> list[list[Prediction]]:
        """The ``top_k`` most likely labels of each image, most likely first.

        Each label replaces ``{}`` in every template, and the vectors are averaged. Scores of
        an image add up to 1 unless they are of a ``sigmoid``; then one label will do.
        Raises ConfigError for impossible labels or templates; else as ``encode_image``.
        """
        templates = check_templates(templates)
        names = check_labels(labels) if self.sigmoid else check_classes(labels)
        classifier = self.classifier(names, templates)
        rows = self.encode_image(images, batch_size=batch_size, on_error=on_error)
        return top_scores(self.probabilities(rows @ classifier.T), tuple(names), top_k)

    def classifier(
        self, labels: Sequence[str], templates: str | Sequence[str] = TEMPLATES
    ) -> mx.array:
        """(labels, dim) unit vectors, each the mean over templates. Raises ConfigError."""
        labels, templates = check_labels(labels), check_templates(templates)
        key = self._key(labels, templates)
        if key not in self._classifiers:
            self._classifiers[key] = self._stored(key, labels, templates)
            while len(self._classifiers) > REMEMBERED:
                self._classifiers.popitem(last=False)
        self._classifiers.move_to_end(key)
        return self._classifiers[key]

    def _key(self, labels: list[str], templates: list[str]) -> str:
        """What tells a set of labels from others, with this model's weights."""
        text = json.dumps([self._weights, labels, templates])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _weights(self) -> list[str]:
        """Vectors computed in half precision are kept apart from those in single."""
        return [weights_hash(self.text), str(self.text.logit_scale.dtype)]

    def _stored(self, key: str, labels: list[str], templates: list[str]) -> mx.array:
        if self.cache is None:
            return self._compute(labels, templates)
        path = self.cache / f"{key}.safetensors"
        shape = (len(labels), self.text.config.embed_dim)
        if path.is_file() and (found := _read(path, shape)) is not None:
            return found
        rows = self._compute(labels, templates)
        _write(path, rows)
        return rows

    def _compute(self, labels: list[str], templates: list[str]) -> mx.array:
        texts = [template.replace("{}", label) for template in templates for label in labels]
        rows = self.encode_text(texts).astype(mx.float32)
        rows = unit(rows.reshape(len(templates), len(labels), -1).mean(axis=0))
        mx.eval(rows)
        return rows


def check_labels(labels: Sequence[str]) -> list[str]:
    """The labels without space around them. Raises ConfigError."""
    if isinstance(labels, str):
        raise ConfigError("labels are a list of texts, not one text")
    names = [label.strip() for label in labels]
    if not names:
        raise ConfigError("no labels were given")
    if empty := [i + 1 for i, name in enumerate(names) if not name]:
        raise ConfigError(f"label {', '.join(map(str, empty[:12]))} is empty")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        shown = ", ".join(printable(name, 40) for name in twice[:12])
        raise ConfigError(f"labels that are given twice: {shown}")
    return names


def check_classes(labels: Sequence[str]) -> list[str]:
    """Labels to choose from, without space around them. Raises ConfigError."""
    names = check_labels(labels)
    if len(names) < 2:
        raise ConfigError(
            f"one label is no choice: every image would be {printable(names[0], 40)!r} to "
            "100 %; give two or more, such as what else it may be"
        )
    return names


def check_templates(templates: str | Sequence[str]) -> list[str]:
    """The templates as a list. Raises ConfigError."""
    found = [templates] if isinstance(templates, str) else list(templates)
    if not found:
        raise ConfigError("no templates were given")
    if wrong := [t for t in found if "{}" not in t]:
        raise ConfigError(f"template {printable(wrong[0])!r} has no {{}} for the label")
    return found


def _read(path: Path, shape: tuple[int, int]) -> mx.array | None:
    """What was kept; nothing if the file is damaged, so that it is computed and written."""
    try:
        rows = read_safetensors(path)[0].get("classifier")
    except OnDeviceError:
        return None
    return rows if rows is not None and rows.shape == shape else None


def _write(path: Path, rows: mx.array) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(partial, {"classifier": rows}, {"format": "mlx"})
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot keep vectors in {path.parent}: {error.strerror}") from error
