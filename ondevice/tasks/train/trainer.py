"""The loop of training: short, so that it can be copied and changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ...config import check_numbers
from ...cpu import kernels
from ...errors import ConfigError, TrainingError
from ...image.preprocess import normalize
from ...nn.adapter import freeze_base
from ...nn.batch_norm import freeze_statistics
from ...nn.drop_path import set_drop_path
from ...nn.fuse import fuse
from ...nn.rounding import Errors, Rounding, rounded_model, rounding_errors
from ..ranks import Ranks
from .half import PRECISIONS, LossScale, in_precision
from .optimizer import AdamW, Arrays, learning_rate

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Loss = Callable[[Any, Any], mx.array]  # of outputs and targets

TABLES_KEPT = 16  # steps until a table of rounded values is found anew
MAX_SEED = 2**32  # with it, what is made of it for each step is below MLX's 64 bits
FREEZE_BELOW = 32  # images of a batch, whose statistics are then too noisy


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train. ``batch_size`` images are a step, in ``accumulate`` parts if not 1.

    ``layer_decay`` is what the learning rate is multiplied by from a block to the one before;
    ``ema`` the share of an average of weights that a step keeps, 0 for none, less in the first
    steps, so that little remains of the weights it starts from; ``patience`` the epochs without
    a better validation after which training stops, 0 for never. In the last ``qat_epochs`` of
    all weights are rounded as an exporter does. With ``adapter``, its rank,
    only adapters and the head learn. ``precision`` is what a step computes in: "float32",
    "bfloat16" or "float16".
    """

    epochs: int = 30
    batch_size: int = 32
    accumulate: int = 1
    lr: float = 1e-3
    warmup: int = 1  # epochs
    weight_decay: float = 0.05
    layer_decay: float = 0.9
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    ema: float = 0.0
    patience: int = 0
    qat_epochs: int = 0
    adapter: int = 0
    precision: str = "float32"
    frozen_norms: bool | None = None  # None: in batches of fewer than 32 images
    balance: bool = False
    seed: int = 0

    @property
    def freezes_norms(self) -> bool:
        """Whether batch norms keep the statistics that they have."""
        if self.adapter:
            return True
        few = self.batch_size // self.accumulate < FREEZE_BELOW
        return few if self.frozen_norms is None else self.frozen_norms

    def __post_init__(self) -> None:
        check_numbers(self)
        alone = not self.frozen_norms and self.batch_size <= self.accumulate
        problems = {
            name: expected
            for name, (fine, expected) in {
                "frozen_norms": (
                    self.frozen_norms is None
                    or not (alone or (self.adapter and not self.frozen_norms)),
                    "True, of one image at a time or with adapters",
                ),
                "adapter": (self.adapter >= 0, "0 or more"),
                "precision": (
                    self.precision == "float32"
                    or (self.precision in PRECISIONS and not self.qat_epochs),
                    f"float32 with qat_epochs, else one of {', '.join(PRECISIONS)}",
                ),
                "epochs": (self.epochs > 0, "1 or more"),
                "batch_size": (self.batch_size > 0, "1 or more"),
                "accumulate": (
                    self.accumulate > 0 and self.batch_size % self.accumulate == 0,
                    f"a divisor of batch_size={self.batch_size}",
                ),
                "lr": (0 < self.lr < math.inf, "a finite number above 0"),
                "warmup": (self.warmup >= 0, "0 or more"),
                "weight_decay": (0 <= self.weight_decay < math.inf, "0 or more"),
                "layer_decay": (0 < self.layer_decay <= 1, "above 0 and up to 1"),
                "label_smoothing": (0 <= self.label_smoothing < 1, "0 or more, below 1"),
                "drop_path": (0 <= self.drop_path < 1, "0 or more, below 1"),
                "ema": (0 <= self.ema < 1, "0 or more, below 1"),
                "patience": (
                    self.patience >= 0 and not (self.patience and self.qat_epochs),
                    "0 with qat_epochs, else 0 or more",
                ),
                "qat_epochs": (
                    0 <= self.qat_epochs <= self.epochs,
                    f"up to epochs={self.epochs}",
                ),
                "seed": (0 <= self.seed < MAX_SEED, f"0 or more, below {MAX_SEED}"),
            }.items()
            if not fine
        }
        if problems:
            given = ", ".join(f"{name}={getattr(self, name)!r}" for name in problems)
            wanted = "; ".join(f"{name}: {expected}" for name, expected in problems.items())
            raise ConfigError(f"impossible settings: {given}; expected {wanted}")


def call(model: nn.Module, x: mx.array) -> Any:
    """The outputs of most models: ``model(x)``."""
    return model(x)


def soft_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Mean over images of (B, classes) targets, which may be smoothed, mixed or weighted."""
    logs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return -(targets * logs).sum(axis=-1).mean()


def _rows(part: slice, array: Array) -> mx.array:
    return mx.array(array[part])


class Trainer:
    """A model, its optimizer, and one step after the other: ``step`` has them all.

    ``steps`` are those of the whole training, ``epoch_steps`` those of one epoch, which warm-up
    counts. ``loss`` gives a number for what ``outputs`` gives of the model and images, such as
    (B, classes) logits, and the targets; ``compiled`` is whether MLX may compile it. Of several
    ``ranks`` each computes the gradients of its share of a batch, and all take the same step;
    batch norms that learn normalize each share by itself.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        *,
        steps: int,
        epoch_steps: int = 0,
        loss: Loss = soft_cross_entropy,
        outputs: Callable[[nn.Module, mx.array], Any] = call,
        compiled: bool = True,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.settings = model, settings
        self.outputs, self.loss = outputs, loss
        self.ranks = ranks or Ranks()
        self.steps, self.warmup, self.done = steps, settings.warmup * epoch_steps, 0
        self.train_mode()
        self.optimizer = AdamW(
            self.parameters(),
            weight_decay=settings.weight_decay,
            layer_decay=settings.layer_decay,
        )
        self.average: Arrays = {**self.arrays()} if settings.ema else {}
        self.rounding: Rounding | None = None
        self.scale = LossScale(settings.precision)
        self.fresh = True  # whether tables of rounded values are to be found anew
        self._gradients, self._update = self._gradients_of_part, self._updated
        if not kernels.is_plain_cpu():  # there it takes longer, and gains nothing
            state = [model.state, mx.random.state]
            if compiled:
                self._gradients = mx.compile(self._gradients, inputs=state, outputs=state)
            state = [model.state, self.optimizer.state, self.average]
            self._update = mx.compile(self._update, inputs=state, outputs=state)

    def train_mode(self) -> None:
        """The model in the form in which it learns."""
        self.model.train()
        set_drop_path(self.model, self.settings.drop_path)
        if self.settings.freezes_norms:
            freeze_statistics(self.model)
        if self.settings.adapter:
            freeze_base(self.model)

    def round_by(self, rounding: Rounding) -> None:
        """From now on compute with rounded weights, whose batch norms are fused."""
        self.rounding, self.fresh = rounding, True

    def inference(self) -> nn.Module:
        """The model in the form that is exported: fused, and rounded if training rounds."""
        self.model.eval()
        if self.rounding is None:
            return fuse(self.model)
        errors = rounding_errors(self.model, self.rounding, fresh=True)
        network = rounded_model(self.model, errors, self.rounding.ranges).eval()
        mx.eval(network.parameters())
        return network

    def parameters(self) -> Arrays:
        """What is learned, by name."""
        return dict(tree_flatten(self.model.trainable_parameters()))

    def arrays(self) -> Arrays:
        """What is saved: the parameters, and the statistics of batch norms."""
        return dict(tree_flatten(self.model.parameters()))

    def step(self, pixels: Array, targets: Any, images: int = 0) -> float:
        """One step on (B, H, W, 3) uint8 pixel values and their targets; its loss.

        Targets are (B, classes), or a tree of arrays that each have a row an image.

        ``images`` are those of all ranks, if there are several.

        Raises TrainingError if the loss is no number any more, or for one image where batch
        norms learn.
        """
        own = self.settings.seed * 1_000_003 + self.ranks.rank * 999_999_937
        mx.random.seed(own + self.done)  # so that no state has to be kept
        errors = self._errors()
        total: Arrays = {}
        loss = 0.0
        for part in self._parts(len(pixels)):
            share = mx.array(self.scale.value * len(pixels[part]) / (images or len(pixels)))
            wanted = tree_map(partial(_rows, part), targets)
            value, gradients = self._gradients(mx.array(pixels[part]), wanted, share, errors)
            total = {k: total[k] + g if total else g for k, g in gradients.items()}
            mx.eval(value, total, self.model.state)
            loss += float(value.item())  # type: ignore[arg-type]
        loss /= self.scale.value
        if self.ranks.size > 1:
            total, loss = self._of_all_ranks(total, loss)
        if not abs(loss) < float("inf"):
            raise TrainingError(f"the loss is {loss} at step {self.done + 1:,}")
        scale = self.scale.value
        if self.scale.fits(total):  # or else this step is left out
            total = {k: g / scale for k, g in total.items()} if scale != 1 else total
            self._update(total, mx.array(self.rate))
            mx.eval(self.model.state, self.optimizer.state, self.average)
        self.done += 1
        return loss

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        peak, warmup = self.settings.lr, self.warmup
        return learning_rate(self.done, peak=peak, warmup=warmup, total=self.steps)

    def _of_all_ranks(self, gradients: Arrays, loss: float) -> tuple[Arrays, float]:
        """Sums over the ranks; statistics that batch norms have learned become the mean."""
        shared = self.ranks.sum({**gradients, "": mx.array([loss])})
        loss = float(shared.pop("")[0].item())  # type: ignore[arg-type]
        if not self.settings.freezes_norms:
            learned = self.parameters().keys()
            own = {k: v for k, v in self.arrays().items() if k not in learned}
            means = {k: v / self.ranks.size for k, v in self.ranks.sum(own).items()}
            self.model.update(tree_unflatten(list(means.items())))
        return shared, loss

    def _parts(self, images: int) -> list[slice]:
        """As many even parts as asked for; of two images or more where batch norms learn."""
        least = 1 if self.settings.freezes_norms else 2
        if images < least:
            raise TrainingError(f"a batch of {images} image has no statistics: add images")
        count = min(self.settings.accumulate, images // least)
        ends = [round(images * i / count) for i in range(count + 1)]
        return [slice(*pair) for pair in pairwise(ends)]

    def _errors(self) -> Errors:
        """What rounding adds to weights in the next step. Raises TrainingError."""
        if self.rounding is None:
            return {}
        fresh = self.fresh or self.done % TABLES_KEPT == 0
        self.fresh = False
        return rounding_errors(self.model, self.rounding, fresh=fresh)

    def _network(self, errors: Errors) -> nn.Module:
        if self.rounding is None:
            return self.model
        return rounded_model(self.model, errors, self.rounding.ranges)

    def _gradients_of_part(
        self, pixels: mx.array, targets: Any, share: mx.array, errors: Errors
    ) -> tuple[mx.array, Arrays]:
        def loss(parameters: Arrays) -> mx.array:
            used = in_precision(self.model, {**frozen, **parameters}, precision)
            self.model.update(tree_unflatten(list(used.items())))
            network = self._network(errors)
            x = normalize(pixels, self.model.info.preprocess).astype(PRECISIONS[precision])
            found = tree_map(lambda y: y.astype(mx.float32), self.outputs(network, x))
            return share * self.loss(found, targets)

        precision, parameters = self.settings.precision, self.parameters()
        learned = {*parameters, *(k for k in self.arrays() if ".running_" in k)}
        halved = precision != "float32"
        frozen = {k: v for k, v in self.arrays().items() if halved and k not in learned}
        value, gradients = mx.value_and_grad(loss)(parameters)
        self.model.update(tree_unflatten(list({**frozen, **parameters}.items())))
        return value, gradients

    def _updated(self, gradients: Arrays, rate: mx.array) -> None:
        found = self.optimizer.updated(self.parameters(), gradients, rate)
        self.model.update(tree_unflatten(list(found.items())))
        if not self.settings.ema:
            return
        steps = self.optimizer.state["steps"]
        keep = mx.minimum(self.settings.ema, (1 + steps) / (10 + steps))
        for name, array in self.arrays().items():
            self.average[name] = keep * self.average[name] + (1 - keep) * array

    def state(self) -> Arrays:
        """All arrays that the next step depends on, by name."""
        return dict(tree_flatten(self._tree()))

    def restore(self, arrays: Arrays, done: int) -> None:
        """Go on from what ``state`` gave after so many steps."""
        tree: Any = tree_unflatten(list(arrays.items()))
        self.model.update(tree["model"])
        self.optimizer.state["steps"] = tree["optimizer"]["steps"]
        for key in ("mean", "square"):
            self.optimizer.state[key].update(tree_flatten(tree["optimizer"][key]))
        self.average.update(tree_flatten(tree.get("average", {})))
        self.scale.state = tree["scale"].tolist()
        self.done = done

    def _tree(self) -> dict[str, Any]:
        return {
            "model": self.arrays(),
            "optimizer": self.optimizer.state,
            "average": self.average,
            "scale": mx.array(self.scale.state),
        }
