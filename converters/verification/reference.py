"""What a package is compared with: the model in MLX float32, on what the package is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.errors import ConfigError, OnDeviceError
from ondevice.signature import Output, Signature, signature_of

from ..function import PROBABILITIES, Function, by_name, model_function, module_function
from ..graph.graph import Array
from ..graph.record import record, rounding
from ..graph.results import arrays_in
from ..graph.trace import translated
from ..graph.untouched import evaluated
from .rankings import Ranking, rankings

if TYPE_CHECKING:
    from ..program import Feature, Program


@dataclass(frozen=True)
class Reference:
    """``signature`` is the model's, of the outputs that the package has as arrays.

    Samples are read by ``reading``: images by the package's contract.
    """

    model: nn.Module
    signature: Signature
    reading: Signature
    is_own: bool  # the model has a signature of its own
    keywords: tuple[str, ...] = ()  # by which a module is called, if not by position

    @property
    def name(self) -> str:
        """What the model is called in reports."""
        return self.signature.model

    @property
    def fn(self) -> Callable[..., Any]:
        """The module as a function of arrays by position."""
        return by_name(self.model, self.keywords) if self.keywords else self.model

    def compute(self, arrays: Sequence[Array]) -> dict[str, Array | Ranking]:
        """The outputs by name, in float32, laid out as the package has them."""
        with evaluated(self.model), rankings() as known:
            values = self._lazy(self.signature.prepare(arrays))
            ranked = {name: known.of(value) for name, value in values.items()}
        return {
            name: ranked[name] or np.array(value.astype(mx.float32))
            for name, value in values.items()
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each output, which is not computed for it."""
        inputs = [mx.array(np.zeros(i.shape, i.dtype)) for i in self.signature.inputs]
        with evaluated(self.model):
            return {name: tuple(value.shape) for name, value in self._lazy(inputs).items()}

    @cached_property
    def rounding(self) -> str:
        """The type below float32 that the model computes in inside; "" if there is none.

        No package rounds so: its weights and inputs aside, which both sides have in float32.
        """
        inputs = [mx.array(np.zeros(i.shape, i.dtype)) for i in self.signature.inputs]
        with evaluated(self.model):
            try:
                return rounding(record(lambda *xs: [*self._lazy(xs).values()], inputs))
            except ValueError:  # a primitive that MLX does not hand over
                return ""

    def _called(self, inputs: Sequence[mx.array]) -> Any:
        """What the module gives. Raises ConfigError for whatever goes wrong in it."""
        try:
            return self.fn(*inputs)
        except OnDeviceError:
            raise
        except Exception as error:
            raise translated(self.model, error) from error

    def _lazy(self, inputs: Sequence[mx.array]) -> dict[str, mx.array]:
        if self.is_own:
            found = self.signature.compute(self.model, *inputs)
        else:
            names = [output.name for output in self.signature.outputs]
            given = list(arrays_in(self._called(inputs)).values())
            if len(names) != len(given):
                raise ConfigError(f"{self.name} gives {len(given)} arrays, not {len(names)}")
            found = dict(zip(names, given, strict=True))
        maps = {o.name for o in self.signature.outputs if o.axes == "NHWC"}
        laid = {n: v.transpose(0, 3, 1, 2) if n in maps else v for n, v in found.items()}
        return {n: v if v.ndim else v.reshape(1) for n, v in laid.items()}  # as packages have


def reference_of(model: nn.Module, package: Program) -> Reference:
    """Raises ConfigError if the package has inputs or outputs that the model has not."""
    if not package.arrays:
        raise ConfigError(f"{package.path} gives no arrays to compare")
    own = signature_of(model)
    if own is not None:
        signature = _own(own, package)
        contract = package.preprocess
        reading = signature.with_contract(contract) if contract else signature
        reference = Reference(model, signature, reading, is_own=True)
    else:
        plain = replace(package.signature, model=type(model).__name__)
        arrays = package.module_inputs
        signature = replace(plain, inputs=arrays, outputs=tuple(map(Output, package.arrays)))
        reference = Reference(model, signature, signature, False, package.keywords)
    _check_shapes(reference, package)
    return reference


def _own(signature: Signature, package: Program) -> Signature:
    """The model's signature for the outputs and the image size of the package."""
    names = [name for name in package.model_outputs if name != PROBABILITIES]
    known = {output.name for output in signature.outputs}
    if foreign := [name for name in names if name not in known]:
        raise ConfigError(
            f"{package.path} gives {', '.join(foreign)}, which {signature.model} does not; it "
            f"gives {', '.join(known)}"
        )
    if not names:
        raise ConfigError(f"{package.path} gives no arrays to compare but probabilities")
    return _fitted(signature.select(names), package)


def _fitted(signature: Signature, package: Program) -> Signature:
    """For the size of the package's images. Raises ConfigError if the inputs are others."""
    features = tuple(map(package.as_image, package.inputs.values()))
    kinds = ["image" if i.contract else "array" for i in signature.inputs]
    if [f.kind for f in features] != kinds:
        takes = ", ".join(map(str, features)) or "nothing"
        raise ConfigError(
            f"{package.path} takes {takes}; {signature.model} takes {signature.listed()}: name "
            "the model that it was made from with --model"
        )
    if package.preprocess is None or not signature.images:
        return signature
    size = package.preprocess.size
    for feature in features:
        if feature.kind == "image" and feature.shape != (size, size):
            listed = " x ".join(map(str, feature.shape))
            raise ConfigError(
                f"{package.path} takes an image of {listed} pixels; its preprocessing makes "
                f"{size}"
            )
    return signature.resized(size)


def _check_shapes(reference: Reference, package: Program) -> None:
    """Raises ConfigError for an output that has not the model's shape."""
    made, outputs = package.model_outputs, package.outputs
    wrong = [
        f"{made[name]} is {list(declared.shape)}; the model gives {list(shape)}"
        for name, shape in reference.shapes().items()
        if not _is_declared(shape, declared := outputs[made[name]])
    ]
    if wrong:
        raise ConfigError(
            f"{package.path}: {'; '.join(wrong)}: it was made from another model, such as a "
            "fine-tuned one: name that with --model FOLDER"
        )


def _is_declared(shape: tuple[int, ...], feature: Feature) -> bool:
    """Whether a package declares such a shape, or none."""
    return feature.fits(shape[-2:] if feature.kind == "image" else shape)


def function_of(model: nn.Module, package: Program) -> Function:
    """What ``export`` traced for the package."""
    own = signature_of(model)
    if own is not None:
        return model_function(model, _own(own, package))
    return module_function(
        model,
        example_inputs(package),
        input_names=tuple(package.inputs),
        output_names=package.arrays,
    )


def example_inputs(package: Program) -> list[mx.array] | dict[str, mx.array]:
    """Zeros as the package takes them, by keyword where the module was called so."""
    arrays = [mx.array(np.zeros(i.shape, i.dtype)) for i in package.module_inputs]
    return dict(zip(package.keywords, arrays, strict=True)) if package.keywords else arrays


def export_options(model: nn.Module, package: Program) -> dict[str, Any]:
    """The options of ``export`` that the package was made with, those of settings aside."""
    own = signature_of(model)
    if own is None:
        return {"input_names": tuple(package.inputs), "output_names": package.arrays}
    signature = _own(own, package)
    options: dict[str, Any] = {"outputs": [output.name for output in signature.outputs]}
    if signature.images:
        options |= {
            "size": signature.images[0].shape[1],
            "input": package.metadata.get("ondevice.input"),
        }
    return options
