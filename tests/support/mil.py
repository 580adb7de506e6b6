"""Small MIL programs, saved as packages: what the tests of ``converters/coreml`` read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.coreml.reader import quiet

with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import (
        Builder as mb,
        Function,
        Program,
        types,
    )

Array = np.ndarray[Any, Any]
_TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


def build(
    body: Callable[..., Any], inputs: Mapping[str, tuple[Sequence[int], str]], target: str
) -> Program:
    """A program of one function: ``body(**variables)`` gives its output variables."""
    placeholders = {
        name: mb.placeholder(shape=tuple(shape), dtype=_TYPES[dtype])
        for name, (shape, dtype) in inputs.items()
    }
    with Function(placeholders, opset_version=getattr(ct.target, target)) as function:
        outputs = body(**function.inputs)
        function.set_outputs(list(outputs) if isinstance(outputs, list | tuple) else [outputs])
    program = Program()
    program.add_function("main", function)
    return program


def convert(
    body: Callable[..., Any],
    tensors: Mapping[str, tuple[Sequence[int], str]],
    *,
    target: str = "iOS17",
    precision: str = "float32",
    fuse: bool = True,
    **options: Any,
) -> Any:
    """The program as a coremltools model; with ``fuse=False``, just as it was written."""
    with quiet():
        return ct.convert(
            build(body, tensors, target),
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=ct.precision(precision),
            pass_pipeline=None if fuse else ct.PassPipeline.EMPTY,
            **options,
        )


def save(body: Callable[..., Any], inputs: Any, path: Path, **options: Any) -> Path:
    """``convert``, saved."""
    return save_model(convert(body, inputs, **options), path)


def save_model(model: Any, path: Path) -> Path:
    with quiet():
        model.save(str(path))
    return path
