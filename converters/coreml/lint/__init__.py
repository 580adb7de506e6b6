"""What a package has that the Neural Engine is said to dislike: one rule, one function.

A rule is static: it can say that an operation is eligible, not where Core ML will place it
(``MLComputePlan`` on a Mac does). Sources:

A1 Apple, "Deploying Transformers on the Apple Neural Engine" and ml-ane-transformers
A2 Apple, "Deploying Attention-Based Vision Transformers …" and ml-vision-transformers-ane
A3 apple/coreai-models, model-authoring/references/neural_engine_rules.md
A4 coremltools' documentation
T1 ane-guide.readthedocs.io (measured on M1)
T2 hollance/neural-engine
T4 ane-book, FluidAudio's profiles, rf-detr#1495
M  measured for this project

Rules stand in files by what they look at; the docstring of each is its advice.
"""

from __future__ import annotations

from ..stored import StoredFunction
from . import compression, convolutions, layout, operations, shapes  # noqa: F401 - register rules
from .rules import RULES as RULES, Finding as Finding, Rule

_EXAMPLES = 3


def lint(function: StoredFunction) -> list[Finding]:
    """The rules that the function breaks, errors first."""
    order = ("error", "warning", "info")
    findings = [f for each in RULES if (f := _apply(each, function))]
    return sorted(findings, key=lambda f: order.index(f.severity))


def _apply(each: Rule, function: StoredFunction) -> Finding | None:
    complaints = [
        f"{op.name}: {complaint}"
        for op in function.operations
        if (complaint := each.check(op, function))
    ]
    if not complaints:
        return None
    examples = tuple(complaints[:_EXAMPLES])
    return Finding(
        each.name, each.severity, each.source, each.advice, len(complaints), examples
    )
