"""What makes MLX fast on a plain CPU, for machines that only verify. Nothing else knows of it.

Importing it loads a tuned BLAS library, which has to happen before anything imports mlx.core.
"""

from . import blas as blas
