"""Memory of this process, for benchmarks."""

from __future__ import annotations

import os
from pathlib import Path


def resident() -> float:
    """Resident memory now, in MiB; 0 where the system does not say."""
    found = Path("/proc/self/statm")
    return int(found.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20 if found.exists() else 0.0
