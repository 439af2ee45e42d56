"""Measured runs, each in a fresh process: all see the same cores, in an order that rotates from round to round."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ARMS = Path(__file__).resolve().parent / "arms"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing to measure: ``python`` runs ``program`` (a file of arms/) with ``arguments``."""

    name: str
    python: Path
    program: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """What one run took: ``inner`` seconds as the program itself told (see arms/told.py), ``processor`` seconds of all
    cores together in that time, ``whole`` for the process.
    """

    inner: float
    processor: float
    whole: float
    peak_bytes: int
    versions: dict[str, str]
    told: dict[str, Any]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(arm: Arm, limit: float = 3600.0) -> Finished:
    """Run an arm to its end. Stops the program with the arm's last lines where it fails."""
    threads = str(cores())
    environment = {
        **os.environ,
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads),
        # GPTQModel refuses to start with less than two.
        "GPTQMODEL_CPU_WORKERS": str(max(2, cores())),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not arm.python.exists():
        raise SystemExit(f"{arm.python} is not there; make it with `make peers`")
    began = time.monotonic()
    # Some peers leave logs where they are run.
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [str(arm.python), str(ARMS / arm.program), *arm.arguments],
            env=environment,
            cwd=elsewhere,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            text=True,
            errors="replace",
        )
        whole = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{arm.name} ended with exit code {done.returncode}:\n" + done.stdout[-3000:])
    told = json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"seconds"')))
    return Finished(told["seconds"], told["processor"], whole, told["peak_bytes"], told["versions"], told)


def alternate(arms: Sequence[Arm], rounds: int) -> dict[str, list[Finished]]:
    """Every arm once a round; each round begins with another one."""
    found: dict[str, list[Finished]] = {arm.name: [] for arm in arms}
    for i in range(rounds):
        for arm in (*arms[i % len(arms) :], *arms[: i % len(arms)]):
            found[arm.name].append(run(arm))
            last = found[arm.name][-1]
            print(f"- round {i + 1}, {arm.name}: {spent(last)}", flush=True)
    return found


def spent(run: Finished) -> str:
    """Of one run, in words."""
    return f"{run.inner:.1f} s ({run.processor:.1f} s of processor; {run.whole:.1f} s the process)"


def table(found: Mapping[str, Sequence[Finished]], ours: str) -> str:
    """Medians, and our time as a share of each peer's, as Markdown."""
    lines = [
        "| tool | quantize s | processor s | whole process s | peak MiB | ours / theirs | ours / theirs, processor |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, runs in found.items():
        peak = max(r.peak_bytes for r in runs) / MIB
        cells = [f"{inner(runs):.1f}", f"{processor(runs):.1f}", f"{whole(runs):.1f}", f"{peak:.0f}"]
        ratios = ("", "")
        if name != ours:
            ratios = f"{inner(found[ours]) / inner(runs):.2f}", f"{processor(found[ours]) / processor(runs):.2f}"
        lines.append(f"| {name} | {' | '.join((*cells, *ratios))} |")
    return "\n".join(lines)


def inner(runs: Sequence[Finished]) -> float:
    """The median of what the programs told."""
    return median(r.inner for r in runs)


def processor(runs: Sequence[Finished]) -> float:
    """The median of the processor seconds in that time."""
    return median(r.processor for r in runs)


def whole(runs: Sequence[Finished]) -> float:
    """The median of the processes' seconds."""
    return median(r.whole for r in runs)


def setting(found: Mapping[str, Sequence[Finished]]) -> str:
    """Machine and versions, as Markdown."""
    busy = f"; load of the last 15 minutes {os.getloadavg()[2]:.1f}" if hasattr(os, "getloadavg") else ""
    lines = [f"- machine: {_processor()}, {cores()} cores, {platform.system()} {platform.release()}{busy}"]
    for name, runs in found.items():
        lines.append(f"- {name}: " + ", ".join(f"{what} {version}" for what, version in runs[0].versions.items()))
    return "\n".join(lines)


def goal(what: str, reached: float, allowed: float) -> str:
    """One line: whether a ratio is within its goal."""
    return f"{what}: {reached:.3f}, goal at most {allowed:.3f}: {'reached' if reached <= allowed else 'MISSED'}"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
