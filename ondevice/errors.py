"""Every error a caller may want to catch.

OnDeviceError
├── UnknownModelError      the name is not registered
├── ConfigError            a config.json or an option says something impossible
├── WeightsError           a checkpoint is unreadable or does not fit the model
├── HubError               weights are neither cached nor reachable
├── ImageError             a file is not an image that can be used
├── OutputError            an output exists already, or cannot be written
├── UnsupportedOpError     the traced graph has an MLX primitive without a lowering
├── PackageError           an .mlpackage is unreadable or uses something unknown
├── TrainingError          a training cannot go on
└── GateError              a check ran and its figures are outside the limits
"""


def printable(text: str, limit: int = 200) -> str:
    """``text`` from a stranger's file, on one line of bounded length, control codes escaped."""
    if len(text) > limit:
        text = f"{text[:limit]}…"
    return text if text.isprintable() else repr(text)


class OnDeviceError(Exception):
    """Base class of all errors raised by ondevice and converters."""


class UnknownModelError(OnDeviceError):
    """The model name is not registered."""


class ConfigError(OnDeviceError):
    """A configuration says something impossible."""


class WeightsError(OnDeviceError):
    """A checkpoint is unreadable or does not fit the model."""


class HubError(OnDeviceError):
    """Weights are neither in the local cache nor reachable."""


class ImageError(OnDeviceError):
    """A file is not an image that can be used."""


class OutputError(OnDeviceError):
    """An output exists already, or cannot be written."""


class UnsupportedOpError(OnDeviceError):
    """The traced graph has an MLX primitive without a lowering."""


class PackageError(OnDeviceError):
    """An ``.mlpackage`` is unreadable or uses something unknown."""


class TrainingError(OnDeviceError):
    """A training cannot go on."""


class GateError(OnDeviceError):
    """A check ran and its figures are outside the limits."""
