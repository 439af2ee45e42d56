"""What a measured process says of itself: one line of JSON, the last on its standard output.

Used by programs that run in the peers' environments: nothing but the standard library here.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path


def peak_bytes() -> int:
    """The largest resident set of this process since it started (on Linux since its exec, without its parent's)."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Spent:
    """Seconds from the beginning of a ``with`` block to its end: by the clock, and of all cores together."""

    seconds = processor = 0.0

    def __enter__(self) -> Spent:
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *failed: object) -> None:
        self.seconds, self.processor = time.perf_counter() - self._began[0], time.process_time() - self._began[1]


def tell(spent: Spent, packages: tuple[str, ...], **more: object) -> None:
    """Print what was ``spent``, the peak memory and the versions of ``packages``."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    seconds = {"seconds": spent.seconds, "processor": spent.processor}
    told = {**seconds, "peak_bytes": peak_bytes(), "versions": versions, **more}
    print("\n" + json.dumps(told), flush=True)
