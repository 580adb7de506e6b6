"""The last stage of a package whose objects Vision knows: boxes that mark the same are dropped.

Core ML calls it ``nonMaximumSuppression``, and says what it does in
https://apple.github.io/coremltools/mlmodel/Format/NonMaximumSuppression.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ondevice.errors import PackageError
from ondevice.image.boxes import from_centres, iou

if TYPE_CHECKING:
    from ..graph.graph import Array

FLOAT32 = 65568  # FeatureTypes.proto's ArrayDataType


@dataclass(frozen=True)
class Suppression:
    """What the stage reads and gives, by name, and its thresholds.

    ``threshold`` is the least score of an object; of two boxes that overlap by more than
    ``max_overlap`` (of one class, if ``per_class``) the less sure one is dropped. The inputs of
    the package that replace both have names, or "" if there are none. ``labels`` has a name for
    each column of the scores, or nothing.
    """

    scores: str
    boxes: str
    threshold: float
    max_overlap: float
    labels: tuple[str, ...]
    kept_scores: str = "confidence"
    kept_boxes: str = "coordinates"
    threshold_input: str = "confidenceThreshold"
    max_overlap_input: str = "iouThreshold"
    per_class: bool = True

    @classmethod
    def of(cls, stored: Any) -> Suppression:
        """As a specification has it. Raises PackageError for what Core ML refuses."""
        stage = stored.nonMaximumSuppression
        kind = stage.WhichOneof("ClassLabels")
        found = cls(
            scores=stage.confidenceInputFeatureName,
            boxes=stage.coordinatesInputFeatureName,
            threshold=stage.confidenceThreshold,
            max_overlap=stage.iouThreshold,
            labels=tuple(map(str, getattr(stage, kind).vector)) if kind else (),
            kept_scores=stage.confidenceOutputFeatureName,
            kept_boxes=stage.coordinatesOutputFeatureName,
            threshold_input=stage.confidenceThresholdInputFeatureName,
            max_overlap_input=stage.iouThresholdInputFeatureName,
            per_class=stage.pickTop.perClass,
        )
        if not (found.threshold >= 0 and 0 <= found.max_overlap <= 1):
            raise PackageError(
                f"it suppresses boxes with confidenceThreshold {found.threshold:g} and "
                f"iouThreshold {found.max_overlap:g}; expected 0 or more, and 0 to 1"
            )
        return found

    @property
    def thresholds(self) -> dict[str, float]:
        """The package's inputs for them, with what they are where nothing is given."""
        named = {
            self.threshold_input: self.threshold,
            self.max_overlap_input: self.max_overlap,
        }
        return {name: value for name, value in named.items() if name}

    @property
    def keep_all(self) -> dict[str, float]:
        """The inputs with which no box is dropped."""
        named = {self.threshold_input: 0.0, self.max_overlap_input: 1.0}
        return {name: value for name, value in named.items() if name}

    def run(
        self, scores: Array, boxes: Array, given: Mapping[str, float]
    ) -> tuple[Array, Array]:
        """(N, columns) scores and (N, 4) boxes, centre and size, to those rows of both that
        are kept, the surest first. ``given`` replaces thresholds by the names of inputs."""
        chosen = {**self.thresholds, **given}
        threshold = chosen.get(self.threshold_input, self.threshold)
        limit = chosen.get(self.max_overlap_input, self.max_overlap)
        best, classes = scores.max(axis=-1), scores.argmax(axis=-1)
        order = np.argsort(-best, kind="stable")
        left = order[best[order] >= threshold]
        corners, kept = from_centres(boxes), []
        while left.size:
            first, left = left[0], left[1:]
            kept.append(first)
            drops = iou(corners[first], corners[left]) > limit
            if self.per_class:
                drops &= classes[left] == classes[first]
            left = left[~drops]
        rows = np.array(kept, np.int64)
        return scores[rows], boxes[rows]

    def to_spec(self, stored: Any, version: int) -> Any:
        """The stage as a specification of ``version``, behind the network ``stored``, whose
        outputs it reads as they are declared."""
        from coremltools import proto

        model = proto.Model_pb2.Model(specificationVersion=version)
        stage, description = model.nonMaximumSuppression, model.description
        declared = {feature.name: feature for feature in stored.description.output}
        pairs = ((self.scores, self.kept_scores), (self.boxes, self.kept_boxes))
        for name, kept in pairs:
            description.input.add().CopyFrom(declared[name])
            columns = declared[name].type.multiArrayType.shape[-1]
            array = description.output.add(name=kept).type.multiArrayType
            array.dataType = FLOAT32
            array.shapeRange.sizeRanges.add(lowerBound=0, upperBound=-1)
            array.shapeRange.sizeRanges.add(lowerBound=columns, upperBound=columns)
        for name in self.thresholds:
            description.input.add(name=name).type.doubleType.SetInParent()
        stage.confidenceInputFeatureName, stage.coordinatesInputFeatureName = (
            self.scores,
            self.boxes,
        )
        stage.confidenceOutputFeatureName = self.kept_scores
        stage.coordinatesOutputFeatureName = self.kept_boxes
        stage.confidenceThresholdInputFeatureName = self.threshold_input
        stage.iouThresholdInputFeatureName = self.max_overlap_input
        stage.confidenceThreshold, stage.iouThreshold = self.threshold, self.max_overlap
        stage.pickTop.perClass = self.per_class
        stage.stringClassLabels.vector.extend(self.labels)
        return model
