"""What Core ML computes, in NumPy: an oracle for saved packages on any machine.

Arithmetic is float32; a value that the program types as float16 is rounded to float16 when
stored, overflow included. Neural Engine and GPU accumulate in an order of their own, so
Core ML's values agree to a tolerance, not bit for bit.
"""

from . import (
    conv as conv,
    elementwise as elementwise,
    linear as linear,
    norm as norm,
    quantize as quantize,
    reduce as reduce,
    resize as resize,
    shape as shape,
)
from .plan import Plan as Plan, compile_function as compile_function
from .registry import EVALUATORS as EVALUATORS, evaluates as evaluates
