"""Packages whose objects Apple's Vision knows: a network, and a stage that suppresses boxes.

``VNCoreMLRequest`` gives ``VNRecognizedObjectObservation`` only if the model is a pipeline that
ends in such a stage: apple/turicreate#877. Names, optional inputs and flexible shapes are those
that Apple's Turi Create writes; types and ranks are what Core ML's validator asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ondevice.errors import PackageError
from ondevice.signature import OBJECTS

from ..program import Feature, Finding
from ..program.options import number_in
from ..program.stored import TensorType
from .loaded import Package, feature_of
from .reader import SavedPackage, quiet
from .stored import StoredFunction, StoredOp
from .suppression import Suppression

if TYPE_CHECKING:
    from ..function import Function

CONFIDENCE = 0.25  # the least score of an object, as Turi Create has it
_UNUSED = "unused {}"  # the label of a column that no class has
_TEXTS = {
    "confidence": "The score of each object's class, objects x classes; the others are 0",
    "coordinates": "Boxes as centre x, centre y, width and height, parts of the image",
    "confidenceThreshold": "The least score of an object; {:g} where none is given",
    "iouThreshold": "Of two boxes of one class that overlap more, as intersection over union, "
    "the less sure one is dropped; {:g} where none is given",
}


def gives_objects(function: Function) -> bool:
    """Whether a package of it ends in the stage that Vision looks for."""
    return any(output.group == OBJECTS for output in function.signature.outputs)


def with_suppression(network: Any, function: Function) -> Any:
    """coremltools' ``MLModel`` of a network that gives scores and boxes, with the stage behind
    it that the function's signature asks for."""
    with quiet():
        import coremltools as ct
        from coremltools import proto

        spec = network.get_spec()
        names = {output.kind: output for output in function.signature.outputs}
        scores, boxes = names["scores"], names["boxes"]
        declared = {feature.name: feature for feature in spec.description.output}
        columns = declared[scores.name].type.multiArrayType.shape[-1]
        labels = [*scores.labels, *map(_UNUSED.format, range(len(scores.labels), columns))]
        stage = Suppression(
            scores.name, boxes.name, CONFIDENCE, boxes.max_overlap, tuple(labels)
        )
        whole = proto.Model_pb2.Model(specificationVersion=spec.specificationVersion)
        last = stage.to_spec(spec, spec.specificationVersion)
        whole.pipeline.models.extend([spec, last])
        _declare(whole.description, spec.description, last.description, stage)
        return ct.models.MLModel(whole, weights_dir=network.weights_dir, skip_model_load=True)


def _declare(whole: Any, network: Any, last: Any, stage: Suppression) -> None:
    """The inputs and outputs of the package, with a line for each, and the thresholds."""
    whole.metadata.CopyFrom(network.metadata)
    whole.input.extend(network.input)
    for name, value in stage.thresholds.items():
        given = whole.input.add(name=name, shortDescription=_TEXTS[name].format(value))
        given.type.doubleType.SetInParent()
        given.type.isOptional = True
    for output in last.output:
        whole.output.add(
            name=output.name, type=output.type, shortDescription=_TEXTS[output.name]
        )
    said = whole.metadata.userDefined
    said["confidence_threshold"], said["iou_threshold"] = (
        f"{value:g}" for value in (stage.threshold, stage.max_overlap)
    )


class ObjectsPackage(Package):
    """A saved package that ends in a stage which suppresses boxes, anybody's.

    The network is evaluated as any other; what comes out of the package went through the
    stage, with its own thresholds unless others are given.
    """

    def __init__(self, saved: SavedPackage, *, compute_units: str = "ALL") -> None:
        """Raises PackageError for a stage that does not fit the network."""
        super().__init__(saved, compute_units=compute_units)
        try:
            self.stage = Suppression.of(saved.spec.pipeline.models[-1])
        except PackageError as error:
            raise PackageError(f"{saved.path}: {error}") from error
        made = {f.name: f for f in map(feature_of, saved.network.description.output)}
        wanted, given = [*self.model_outputs], [*self.model_outputs.values()]
        if not {*wanted} <= made.keys() or {*given} != {*self.outputs} or len({*wanted}) < 2:
            raise PackageError(
                f"{saved.path}: its stage makes {', '.join(given)} of {', '.join(wanted)}; the "
                f"network gives {', '.join(made)}, and the package {', '.join(self.outputs)}"
            )
        labels, shape = self.stage.labels, made[self.stage.scores].shape
        if labels and shape[-1:] != (len(labels),):
            raise PackageError(
                f"{saved.path}: its stage has {len(labels)} labels for scores of {list(shape)}"
            )

    def features(self, which: str, function: str | None = None) -> dict[str, Feature]:
        found = super().features(which, function)
        return {n: f for n, f in found.items() if n not in self.stage.thresholds}

    @property
    def optional_inputs(self) -> dict[str, Feature]:
        declared = map(feature_of, self.saved.spec.description.input)
        return {f.name: f for f in declared if f.name in self.stage.thresholds}

    @property
    def keep_all(self) -> dict[str, float]:
        named = self.stage.keep_all.items()
        return {name: value for name, value in named if name in self.optional_inputs}

    @property
    def model_outputs(self) -> dict[str, str]:
        return {
            self.stage.scores: self.stage.kept_scores,
            self.stage.boxes: self.stage.kept_boxes,
        }

    @property
    def max_overlap(self) -> float:
        return self.stage.max_overlap

    @property
    def labels(self) -> tuple[str, ...]:
        """What Vision calls the classes, without the columns that no class has."""
        found = self.stage.labels
        while found and found[-1] == _UNUSED.format(len(found) - 1):
            found = found[:-1]
        return found

    def stored(self, function: str | None = None) -> StoredFunction:
        """The network's operations, and the stage as one more."""
        network = super().stored(function)
        types = {n: TensorType("fp32", f.shape) for n, f in self.outputs.items()}
        return replace(
            network,
            everything=(*network.everything, self._operation),
            types={**network.types, **types},
        )

    def findings(self, function: str | None = None) -> Sequence[Finding]:
        """Of the network: the stage is none of the Neural Engine's."""
        from .lint import lint

        return lint(super().stored(function))

    @cached_property
    def _operation(self) -> StoredOp:
        reads = {"boxes": (self.stage.boxes,), "scores": (self.stage.scores,)}
        gives = (self.stage.kept_scores, self.stage.kept_boxes)
        return StoredOp("non_maximum_suppression", reads, gives, {}, ())

    def _run(
        self,
        inputs: Mapping[str, Any],
        keep: Callable[[str], bool] | None,
        function: str | None,
    ) -> dict[str, Any]:
        values = super()._run(inputs, keep, function)
        given = [name for name in self.optional_inputs if name in inputs]
        chosen = {name: number_in(self.path, name, inputs[name]) for name in given}
        scores, boxes = (np.asarray(values[name]) for name in self.model_outputs)
        if scores.ndim != 2 or boxes.shape != (len(scores), 4):
            raise PackageError(
                f"{self.path}: its network gives scores {list(scores.shape)} and boxes "
                f"{list(boxes.shape)}; expected [boxes, classes] and [boxes, 4]"
            )
        kept = self.stage.run(scores, boxes, chosen)
        return values | dict(zip(self.model_outputs.values(), kept, strict=True))
