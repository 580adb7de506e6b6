"""Whether the library that this back end is built on is here, and which one it has to be."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from ondevice.errors import ConfigError

LIBRARY, VERSION = "coreai-core", "1.0.0b3"
PLATFORMS = {
    ("Linux", "x86_64"): "x86-64 Linux",
    ("Darwin", "arm64"): "Macs with Apple silicon",
}


def require() -> None:
    """Raises ConfigError that says what to install, if the library is missing or another one.

    The version is exact because the library is a beta whose calls change between releases.
    """
    machine = (platform.system(), platform.machine())
    if machine not in PLATFORMS:
        known = " and ".join(PLATFORMS.values())
        raise ConfigError(
            f"Core AI models need {LIBRARY}, which exists for {known} only; "
            f"this is {' '.join(machine)}"
        )
    try:
        found = version(LIBRARY)
    except PackageNotFoundError as error:
        raise ConfigError(
            f"Core AI models need {LIBRARY} {VERSION}: pip install 'ondevice[coreai]'"
        ) from error
    if found != VERSION:
        raise ConfigError(
            f"Core AI models need {LIBRARY} {VERSION}, {found} is installed: "
            "pip install 'ondevice[coreai]'"
        )
