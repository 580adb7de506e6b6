"""The Core ML side: programs and packages, written and read.

coremltools reports what it misses on this platform each time it is first imported, so that
happens here, once and quietly.
"""

from .reader import quiet as quiet

with quiet():
    import coremltools as coremltools
