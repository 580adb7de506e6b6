"""What a machine has to have for a test."""

from __future__ import annotations

import pytest

from ondevice.cpu import blas

tuned_blas = pytest.mark.skipif(
    blas.is_slow(), reason="sums one term after the other, as without a tuned BLAS, err more"
)
