"""Deployment targets as coremltools has them."""

from __future__ import annotations

from typing import Any

from ondevice.errors import ConfigError

from .targets import TARGETS as TARGETS


def opset(target: str) -> Any:
    """coremltools' target. Raises ConfigError for an unknown one."""
    import coremltools as ct

    if target not in TARGETS:
        raise ConfigError(f"no target {target!r}; there are {', '.join(TARGETS)}")
    return ct.target[target]
