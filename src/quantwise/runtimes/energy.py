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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

POWERCAP = Path("/sys/class/powercap")
_EVERY_MS = 200
# Without a reading for longer than this, what was drawn meanwhile would be made up.
_LONGEST_GAP_S = 5.0
_END_S = 2.0


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
        used.cpu = _spent(before, _packages(powercap), powercap)
        used.gpu = smi.stop() if smi else None


def _packages(powercap: Path) -> dict[str, int]:
    """Microjoules by package zone. Zones below a package (``intel-rapl:0:1``) are part of it, and packages are part of
    the zone ``psys``, which is the whole board's.
    """
    found: dict[str, int] = {}
    try:
        for zone in powercap.glob("intel-rapl:*"):
            if zone.name.count(":") == 1 and (zone / "name").read_text().startswith("package"):
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
        self._began = time.monotonic()
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
        """Joules by the trapezoidal rule; the first and the last reading stand for what was before and after them.

        None where no reading came, or none for too long.
        """
        ended = time.monotonic()
        self._end()
        joules = None
        for told in list(self._watts.values()):
            inside = [(at, watts) for at, watts in list(told) if at <= ended]
            if not inside:
                continue
            spans = list(pairwise([(self._began, inside[0][1]), *inside, (ended, inside[-1][1])]))
            if any(t2 - t1 > _LONGEST_GAP_S for (t1, _), (t2, _) in spans):
                return None
            joules = (joules or 0.0) + sum((t2 - t1) * (w1 + w2) / 2 for (t1, w1), (t2, w2) in spans)
        return joules

    def _end(self) -> None:
        """A program that hangs with its driver holds up nothing."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self._reader.join(_END_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()  # would wait for a reader that is still at it
