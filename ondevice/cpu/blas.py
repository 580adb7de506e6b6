"""A tuned BLAS for MLX on Linux, whose wheel brings only the slow reference one.

MLX takes the routines from whatever was loaded with global symbols before ``mlx.core`` was
imported, so importing this module, first of all, is what makes it 40 times faster there.
macOS has Accelerate and is left alone.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import sys
from pathlib import Path

NO_ADVICE = "ONDEVICE_NO_ADVICE"
_LIBRARIES = (
    "libopenblas.so.0",
    "libopenblas.so",
    "libblis.so.4",
    "libblis.so",
    "libmkl_rt.so.3",
    "libmkl_rt.so.2",
    "libmkl_rt.so",
)


def load_blas() -> str:
    """The BLAS that other libraries now find, by its file's name; "" if there is none.

    Only unprefixed ``cblas_*`` symbols serve MLX: the OpenBLAS inside numpy has others.
    """
    if _has_cblas(""):
        return "preloaded"
    folders = ("", f"{Path(sys.prefix) / 'lib'}/")  # the system's, then conda's or pip's
    return next((n for n in _LIBRARIES for folder in folders if _has_cblas(folder + n)), "")


def _has_cblas(library: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(library or None, ctypes.RTLD_GLOBAL), "cblas_sgemm")
    except OSError:
        return False


# Symbols are looked up while mlx.core is imported: afterwards it is too late.
MLX_CAME_FIRST = "mlx.core" in sys.modules
BLAS = load_blas() if sys.platform == "linux" else ""


def is_slow() -> bool:
    """Whether MLX multiplies matrices with the reference BLAS of its wheel."""
    return sys.platform == "linux" and (not BLAS or (MLX_CAME_FIRST and BLAS != "preloaded"))


@functools.cache
def advise() -> None:
    """Say once, where a model is about to run, why it will be slow and what helps.

    Not where $ONDEVICE_NO_ADVICE is set.
    """
    if sys.platform != "linux" or BLAS == "preloaded" or os.environ.get(NO_ADVICE):
        return
    if not BLAS:
        problem = "no tuned BLAS on this machine: matrix products are up to 40 times slower"
        remedy = "apt install libopenblas0-pthread (or conda install openblas)"
    elif MLX_CAME_FIRST:
        problem = f"mlx was imported before ondevice, too early for {BLAS} to serve it"
        remedy = "import ondevice first"
    else:
        return
    logging.getLogger("ondevice").warning("%s; %s", problem, remedy)
