"""The Core AI side: programs and ``.aimodel`` packages, written, read and run.

Needs ``coreai-core`` (the extra ``coreai``); importing this package without it raises
ConfigError that says what to install.
"""

from .required import require

require()
