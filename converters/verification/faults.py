"""What is wrong with a package that no figure shows: labels, the contract, other weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.signature import Signature
from ondevice.signature.decode import probabilities

from ..function import PROBABILITIES
from .stored_weights import weight_problems

if TYPE_CHECKING:
    from ..program import Program

SCORES = 0.02  # how far a package's scores by label may be from those of its own logits


def problems(model: nn.Module, signature: Signature, package: Program) -> Iterator[str]:
    """What no metric shows: labels, the contract, weights that are not the model's.

    ``signature`` is the model's own, of the outputs that the package has.
    """
    for given in signature.images:
        yield from _contract_problems(given.contract, package)
    if PROBABILITIES in package.arrays or _spoken(package) or signature.labels:
        yield from label_problems(signature.labels, package.labels)
    yield from _overlap_problems(signature, package)
    if package.is_compressed:
        yield from weight_problems(model, package)


def _contract_problems(contract: Any, package: Program) -> Iterator[str]:
    """Both sides follow the package's contract: that it is the model's has to be looked at."""
    if package.preprocess is None:
        return
    said, wanted = package.preprocess.to_dict(), contract.to_dict()
    for name in said:
        if name != "size" and said[name] != wanted[name]:
            yield (
                f"preprocessing: {name} is {said[name]} in the package and {wanted[name]} in "
                "the model"
            )


def _overlap_problems(signature: Signature, package: Program) -> Iterator[str]:
    """Whether as many boxes that overlap are dropped of the package's as of the model's."""
    wanted = [output.max_overlap for output in signature.outputs if output.kind == "boxes"]
    if wanted and not np.isclose(package.max_overlap, wanted[0]):
        yield (
            f"boxes of one class may overlap by {package.max_overlap:g} in the package and by "
            f"{wanted[0]:g} in the model"
        )


def label_problems(wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """What is wrong with a package's labels, which have to be the model's."""
    if twice := [label for label, count in Counter(found).items() if count > 1]:
        listed = ", ".join(map(repr, twice[:3]))
        yield f"label {listed} is given twice: a score by label is lost"
    if len(wanted) != len(found):
        yield f"the package has {len(found) or 'no'} labels; the model has {len(wanted)}"
        return
    for i, (ours, theirs) in enumerate(zip(wanted, found, strict=True)):
        if ours != theirs:
            yield f"class {i} is {theirs!r} in the package and {ours!r} in the model"
            return


def spoken_problems(
    signature: Signature, package: Program, got: Mapping[str, Any]
) -> Iterator[str]:
    """Whether a classifier's label and scores by label are those of its own logits."""
    kinds = _spoken(package)
    classes = next((o.name for o in signature.outputs if o.is_classifier), "")
    if not {"string", "dictionary"} <= kinds.keys() or classes not in got:
        return
    label, scores = got[kinds["string"]], got[kinds["dictionary"]]
    wanted = np.array(probabilities(mx.array(got[classes], mx.float32)))[0]
    if list(scores) != list(package.labels) or len(scores) != len(wanted):
        yield f"{len(scores)} scores by label are given for {len(wanted)} classes"
    elif not np.abs(np.array([*scores.values()]) - wanted).max() <= SCORES:
        yield f"{kinds['dictionary']} are not the probabilities of the logits"
    elif scores.get(label, 0) < max(scores.values()):
        yield f"{kinds['string']} is {label!r}, which is not the likeliest class"


def _spoken(package: Program) -> dict[str, str]:
    """The outputs that are no arrays, by kind: a class's label, scores by label."""
    return {f.kind: name for name, f in package.outputs.items() if f.kind != "array"}


def notes(model: nn.Module, package: Program) -> Iterator[str]:
    """What explains a deviation and fails nothing."""
    from ondevice.weights.hash import weights_hash

    said = package.metadata.get("ondevice.weights_sha256")
    if said and said != weights_hash(model):
        yield "the package was made from other weights than this model has"
