"""Deployment targets: the names users give, and what coremltools calls them."""

from __future__ import annotations

from typing import Any

from ondevice.errors import ConfigError

TARGETS = ("iOS16", "iOS17", "iOS18")


def opset(target: str) -> Any:
    """coremltools' target. Raises ConfigError for an unknown one."""
    import coremltools as ct

    if target not in TARGETS:
        raise ConfigError(f"no target {target!r}; there are {', '.join(TARGETS)}")
    return ct.target[target]
