"""What the processor of this machine is called."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The vendor's name, where Linux says it in the file ``info``; else what the platform says."""
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
