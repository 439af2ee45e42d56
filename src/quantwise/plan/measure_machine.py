"""Measure this machine in a few seconds: bandwidth, matrix rates, and llama.cpp's kernels where it is installed.

Each part runs in a process of its own, so that the planner loads neither torch nor ggml, and a crash costs a part.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from quantwise.core.errors import EnvironmentFailure
from quantwise.plan.machine_rates import AttentionKernel, Kernel, MachineRates, waiting_now
from quantwise.scenarios.cpu_name import cpu_name

# Shares of the time; importing torch is not counted.
_PARTS = {"memory": 0.1, "matrix": 0.15, "kernels": 0.6, "attention": 0.15}
_LONGEST_S = 120.0


def measure_machine(
    seconds: float = 5.0, threads: int | None = None, tell: Callable[[str], None] = lambda line: None
) -> MachineRates:
    """Measure for about ``seconds``; ``threads`` None takes those that llama.cpp takes. ``tell`` hears what is missing.

    Raises EnvironmentFailure where not even memory can be measured.
    """
    wanted = threads or cores()
    found = {part: _probe(part, share * seconds, wanted) for part, share in _PARTS.items()}
    if "bandwidth" not in found["memory"]:
        raise EnvironmentFailure(f"memory could not be measured ({found['memory'].get('why')}); try again")
    for part, result in found.items():
        if "why" in result:
            tell(f"{part} not measured: {result['why']}")
    heads = {name: AttentionKernel(**cost) for name, cost in found["attention"].get("attention", {}).items()}
    kernels = {name: Kernel(**rates) for name, rates in found["kernels"].get("kernels", {}).items()}
    return MachineRates(
        cpu=cpu_name(),
        threads=wanted,
        measured=date.today().isoformat(),
        bandwidth=found["memory"]["bandwidth"],
        rates=found["matrix"].get("rates", {}),
        kernels=kernels,
        cached=tuple((size, share) for size, share in found["kernels"].get("cached", ())),
        attention=heads,
        node_seconds=found["kernels"].get("node_seconds"),
        library=f"xllamacpp {importlib.metadata.version('xllamacpp')}" if kernels else None,
        waiting=waiting_now(),
    )


def cores() -> int:
    """Physical cores that this process may use: the threads that llama.cpp takes by default."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def keep_rates(rates: MachineRates, path: Path) -> None:
    """Write a measurement. Raises EnvironmentFailure where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rates.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"{path}: {error.strerror}; the measurement is not kept") from error


def _probe(part: str, seconds: float, threads: int) -> dict[str, Any]:
    """What one part says, or ``why`` it says nothing."""
    blas = "1" if part == "memory" else str(threads)
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), blas)
    environment = {**os.environ, **counts}
    if part in ("kernels", "attention"):
        environment.pop("OMP_NUM_THREADS", None)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "quantwise.plan.probe", part, str(seconds), str(threads)],
            capture_output=True,
            text=True,
            timeout=seconds + _LONGEST_S,
            env=environment,
            check=False,
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"why": "it took too long"}
    except (OSError, ValueError, IndexError):
        return {"why": "the process that measures it failed"}
    return found if isinstance(found, dict) else {"why": "the process that measures it said nothing"}
