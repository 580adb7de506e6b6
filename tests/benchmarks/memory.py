"""What a process has taken."""

from __future__ import annotations

import sys
from pathlib import Path


def most_memory() -> int:
    """Bytes of this process at its peak: Linux' ru_maxrss begins with that of its parent."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
