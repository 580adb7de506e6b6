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

from . import compression, convolutions, layout, operations, shapes  # noqa: F401 - register rules
from .rules import RULES as RULES

lint = RULES.lint
