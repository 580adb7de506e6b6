"""What goes into a model and what comes out of it, as the model itself says.

Whoever runs, exports or verifies a model reads its ``Signature`` and asks for no class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import mlx.core as mx

from ..config import Preprocess
from ..errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]

InputKind = Literal["image", "array", "tokens"]
OutputKind = Literal[
    "logits",
    "embedding",
    "map",
    "tokens",
    "boxes",
    "scores",
    "depth",
    "mask",
    "image",
    "array",
]
Pixels = Literal["", "grey", "grey16", "rgb"]
THRESHOLD = 0.5  # of the score of an object that is worth telling
OBJECTS = "objects"  # the group of a detector's outputs that Apple's Vision reads objects from


@dataclass(frozen=True)
class Input:
    """One input of a model.

    ``shape`` is that of one call, the batch axis first: (1, height, width, 3) of an image,
    whose ``contract`` makes a photo of any size fit. ``examples(n)`` gives n values, of
    shape ``(n, *shape[1:])``, where the model knows better ones than noise.
    """

    name: str
    kind: InputKind = "array"
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    contract: Preprocess | None = None
    examples: Callable[[int], Array] | None = None

    def read(self, value: Any) -> Array:
        """A sample as an array: uint8 pixel values (height, width, 3) of an image.

        Raises ImageError for an image that cannot be used, ConfigError for an array of
        another shape, or what is none.
        """
        import numpy as np

        if self.contract is None:
            is_array = hasattr(value, "shape") or isinstance(value, bool | int | float)
            array = np.asarray(value) if is_array else None
            if array is not None and {array.shape, self.shape} == {(), (1,)}:
                array = array.reshape(self.shape)  # packages have no shape ()
            if array is None or array.shape != self.shape or array.dtype.kind in "OUS":
                given = f"{type(value).__name__} {list(getattr(value, 'shape', ()))}"
                raise ConfigError(f"an array, {self}, is expected; given {given}")
            return array.astype(self.dtype)
        from ..image.preprocess import resize_and_crop

        height, width, _ = self.shape[1:]
        is_pixels = isinstance(value, np.ndarray) and value.dtype == np.uint8
        fits = is_pixels and value.shape == (height, width, 3)
        return value if fits else resize_and_crop(value, self.contract)

    def prepare(self, array: Array) -> mx.array:
        """What ``read`` gave as the model's own input, with a batch axis of one."""
        if self.contract is None:
            return mx.array(array)
        from ..image.preprocess import normalize

        return normalize(mx.array(array)[None], self.contract)

    def example(self) -> mx.array:
        """An input to trace with: zeros, or what the model knows better."""
        if self.examples is not None:
            return mx.array(self.examples(1))
        return mx.zeros(self.shape, getattr(mx, self.dtype))

    def samples(self, count: int) -> list[Array]:
        """``count`` different inputs that ``read`` takes."""
        import numpy as np

        if self.contract is not None:
            from .samples import sample_images

            return sample_images(self.shape[1], count)
        if self.examples is not None:
            return [row[None] for row in self.examples(count)]
        rng = np.random.default_rng(0)
        return [rng.standard_normal(self.shape).astype(self.dtype) for _ in range(count)]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Output:
    """One output of a model.

    ``boxes`` are (B, N, 4): centre x and y, width and height as parts of the image; the
    ``scores`` beside them are (B, N, classes). ``method`` of the model computes it, alone or as
    an ``item`` (a position or a key) of several. ``axes`` names the axes of a map: "NHWC",
    which packages hold channels-first. ``pixels`` says as what image a half-precision package
    gives it, if as one: "grey" and "rgb" of 8 bits, whose values are whole numbers from 0 to
    255, or "grey16" of any values. ``group`` is a name under which several are asked for. Of
    ``labels`` there is one for each class. Of two ``boxes`` of one class that overlap by more
    than ``max_overlap`` the less sure one has to be dropped; 1 where none has to be.
    """

    name: str
    kind: OutputKind = "array"
    method: str = "__call__"
    item: int | str | None = None
    axes: str = ""
    pixels: Pixels = ""
    labels: tuple[str, ...] = ()
    group: str = ""
    max_overlap: float = 1.0
    text: str = ""  # a line for people

    @property
    def is_classifier(self) -> bool:
        """Whether these are scores of an image's classes that have names."""
        return self.kind == "logits" and bool(self.labels)

    def of(self, result: Any) -> mx.array:
        """This output, of what the method gave."""
        found: mx.array = result if self.item is None else result[self.item]
        return found


@dataclass(frozen=True)
class Signature:
    """``outputs`` are all that the model can give, ``default_outputs`` what it usually does.

    ``model`` is a name for messages.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    default_outputs: tuple[str, ...] = ()
    model: str = "the model"

    @property
    def images(self) -> tuple[Input, ...]:
        """The inputs that are images."""
        return tuple(given for given in self.inputs if given.contract is not None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, of the first output that has any."""
        return next((output.labels for output in self.outputs if output.labels), ())

    @property
    def max_overlap(self) -> float:
        """That of the boxes, if any come out."""
        return next((o.max_overlap for o in self.outputs if o.kind == "boxes"), 1.0)

    @property
    def kinds(self) -> str:
        """What comes out, by kind, each once: for messages, and to look for one in."""
        return ", ".join(dict.fromkeys(output.kind for output in self.outputs))

    def select(self, names: str | Iterable[str] | None = None) -> Signature:
        """The same with the outputs that are asked for, each by its name or its group's.

        Nothing means the default ones. Raises ConfigError for one that does not exist.
        """
        asked = [names] if isinstance(names, str) else names or self.default_outputs
        wanted = list(asked) if isinstance(asked, Iterable) else [asked]
        if not all(isinstance(name, str) for name in wanted):
            raise ConfigError(f"outputs are names in a list; given {names!r}")
        known = dict.fromkeys(o.group or o.name for o in self.outputs)
        known |= dict.fromkeys(o.name for o in self.outputs)
        if unknown := [name for name in wanted if name not in known]:
            groups = ", ".join(dict.fromkeys(o.group or o.name for o in self.outputs))
            raise ConfigError(f"{self.model} gives no {', '.join(unknown)}; it gives {groups}")
        chosen = (o for name in wanted for o in self.outputs if name in (o.name, o.group))
        return replace(self, outputs=tuple(dict.fromkeys(chosen)))

    def resized(self, size: int) -> Signature:
        """The same for images of ``size`` pixels. Raises ConfigError if it takes none."""
        if not self.images:
            raise ConfigError(f"size is of images; {self.model} takes {self.listed()}")
        return self._with_contracts(lambda spec: replace(spec, size=size))

    def with_contract(self, contract: Preprocess) -> Signature:
        """The same with all images prepared by ``contract``."""
        return self._with_contracts(lambda _: contract)

    def _with_contracts(self, change: Callable[[Preprocess], Preprocess]) -> Signature:
        def changed(given: Input) -> Input:
            if given.contract is None:
                return given
            spec = change(given.contract)
            shape = (*given.shape[:1], spec.size, spec.size, *given.shape[3:])
            return replace(given, contract=spec, shape=shape)

        return replace(self, inputs=tuple(map(changed, self.inputs)))

    def listed(self) -> str:
        """The inputs in words, for messages."""
        return ", ".join(map(str, self.inputs)) or "nothing"

    def compute(self, model: Any, *inputs: mx.array) -> dict[str, mx.array]:
        """The outputs by name. Each method of ``model`` is called once."""
        methods = dict.fromkeys(output.method for output in self.outputs)
        results = {name: getattr(model, name)(*inputs) for name in methods}
        return {output.name: output.of(results[output.method]) for output in self.outputs}

    def read(self, sample: Any) -> tuple[Array, ...]:
        """One sample as an array for each input: a tuple or list where there are several, or a
        dict by their names.

        Raises ImageError, or ConfigError for what the inputs cannot take.
        """
        if isinstance(sample, Mapping):
            names = [given.name for given in self.inputs]
            if sample.keys() != set(names):
                given = ", ".join(map(str, sample)) or "nothing"
                raise ConfigError(f"{self.model} takes {', '.join(names)}; given {given}")
            sample = tuple(sample[name] for name in names)
        several = isinstance(sample, tuple | list)
        values: Sequence[Any] = sample if several else (sample,)
        if len(values) != len(self.inputs):
            raise ConfigError(
                f"{self.model} takes {len(self.inputs)} inputs ({self.listed()}); "
                f"given {len(values)}"
            )
        return tuple(i.read(value) for i, value in zip(self.inputs, values, strict=True))

    def prepare(self, arrays: Sequence[Array]) -> list[mx.array]:
        """What ``read`` gave as the model's inputs, images normalized by their contract."""
        return [i.prepare(array) for i, array in zip(self.inputs, arrays, strict=True)]

    def samples(self, count: int = 4) -> list[Any]:
        """``count`` different samples that ``read`` takes, to verify with.

        Test images of edges, gradients and noise, a model's own examples, or noise.
        """
        columns = [given.samples(count) for given in self.inputs]
        rows = list(zip(*columns, strict=True))
        return [row[0] if len(row) == 1 else row for row in rows]

    def decode(
        self,
        outputs: Mapping[str, Any],
        sizes: Sequence[tuple[int, int]] = (),
        threshold: float = THRESHOLD,
    ) -> dict[str, Any]:
        """Outputs as a person reads them, in lists of one for each image: the best classes of
        logits, the objects in boxes that score ``threshold`` or more, the values of depth and
        the classes of masks as (height, width) arrays. All others are float32 arrays.

        ``sizes`` are the photos' (width, height): boxes, depth and masks are in their pixels,
        what the contract did to them undone. Without them they are in the model's own.

        Raises ConfigError if an output is missing, or sizes are not one pair for each image.
        """
        from .decode import Frame, decode

        given = outputs if isinstance(outputs, Mapping) else {}
        if lost := [o.name for o in self.outputs if o.name not in given]:
            raise ConfigError(
                f"decode takes a dict of outputs by name; it has no {', '.join(lost)}: "
                "signature.select(names) is of fewer"
            )
        if not all(isinstance(size, tuple | list) and len(size) == 2 for size in sizes):
            raise ConfigError(
                f"sizes are (width, height) of each photo, in a list; given {sizes!r:.60}"
            )
        spec = self.images[0].contract if self.images else None
        frames = [Frame.of(size, spec) for size in sizes] if spec else []
        return decode(self.outputs, outputs, frames, threshold)


def signature_of(model: Any) -> Signature | None:
    """What a model says of itself; None of a module that says nothing."""
    found = getattr(model, "signature", None)
    return found if isinstance(found, Signature) else None


def check_is_ours(model: Any) -> None:
    """Raises ConfigError for what does not say what it takes: a name, a package, a layer."""
    if signature_of(model) is None or not hasattr(model, "info"):
        given = repr(model) if isinstance(model, str) else type(model).__name__
        raise ConfigError(f"{given} is no model of ours; ondevice.load(NAME) gives one")
