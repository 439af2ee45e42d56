"""Energy of this machine while a runtime on it works, where the machine tells: processor packages and NVIDIA GPUs.

Packages: the counters of Linux's powercap interface (RAPL), which mostly only root may read; memory and the rest of the
machine are not in them. GPUs: the power that ``nvidia-smi`` says, summed over time. Whatever else runs is counted too.
https://docs.kernel.org/power/powercap/powercap.html
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

POWERCAP = Path("/sys/class/powercap")
_EVERY_MS = 200


class Joules:
    """What was used while the meter ran; None where it is not told."""

    def __init__(self) -> None:
        self.cpu: float | None = None
        self.gpu: float | None = None


def meter_of(url: str) -> AbstractContextManager[Joules]:
    """`meter` where a server is on this machine; of another one nothing is told."""
    return meter() if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1") else nullcontext(Joules())


@contextmanager
def meter(powercap: Path | None = None) -> Iterator[Joules]:
    """Measure while the body runs; the figures are there when it has ended. ``powercap`` is Linux's own folder."""
    powercap = POWERCAP if powercap is None else powercap
    used = Joules()
    before = _packages(powercap)
    smi = _GpuMeter() if shutil.which("nvidia-smi") else None
    try:
        yield used
    finally:
        used.gpu = smi.stop() if smi else None
        used.cpu = _spent(before, _packages(powercap), powercap)


def _packages(powercap: Path) -> dict[str, int]:
    """Microjoules by package zone. Zones below a package (``intel-rapl:0:1``) are part of it."""
    found: dict[str, int] = {}
    for zone in powercap.glob("intel-rapl:*"):
        if zone.name.count(":") == 1:
            try:
                found[zone.name] = int((zone / "energy_uj").read_text())
            except (OSError, ValueError):
                return {}
    return found


def _spent(before: dict[str, int], after: dict[str, int], powercap: Path) -> float | None:
    """Joules between two readings; a counter that went back has wrapped around once."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for name, first in before.items():
        gone_by = after[name] - first
        if gone_by < 0:
            try:
                gone_by += int((powercap / name / "max_energy_range_uj").read_text()) + 1
            except (OSError, ValueError):
                return None
        total += gone_by
    return total / 1e6


class _GpuMeter:
    """Watts of all GPUs over time, from one ``nvidia-smi`` that keeps printing."""

    def __init__(self) -> None:
        self._watts: dict[int, list[tuple[float, float]]] = {}
        command = ["nvidia-smi", "--query-gpu=index,power.draw", "--format=csv,noheader,nounits", f"-lms={_EVERY_MS}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            index, _, watts = line.partition(",")
            try:
                self._watts.setdefault(int(index), []).append((time.monotonic(), float(watts)))
            except ValueError:
                continue  # "[N/A]" of a GPU that does not tell

    def stop(self) -> float | None:
        """Joules by the trapezoidal rule, or None where fewer than two readings came."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        spans = [list(pairwise(told)) for told in self._watts.values()]
        if not any(spans):
            return None
        return sum((t2 - t1) * (w1 + w2) / 2 for span in spans for (t1, w1), (t2, w2) in span)
