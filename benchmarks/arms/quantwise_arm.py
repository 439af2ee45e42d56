"""Build recipes with quantwise, as ``quantwise build`` does, and say how long the quantizing took.

    quantwise_arm.py MODEL CALIBRATION OUT RECIPE...

``quantize`` runs from "tokens in memory" to "everything quantized". The build streams: it reads each block's weights
and keeps what is finished on disk as it goes, and both count. Each run gets a new folder in OUT, or it would find the
artifacts of the run before.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from told import Spent, tell

from quantwise import workbench


class Clock:
    """A progress that notes when each stage begins."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, float, float]] = []

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """A stage begins."""
        self.begun.append((name, time.perf_counter(), time.process_time()))

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        """Nothing to note."""

    def spent(self, wanted: str) -> Spent:
        """From the beginning of a stage to that of the next one, or until now."""
        found = Spent()
        ends = [(at, processor) for _, at, processor in self.begun[1:]] + [(time.perf_counter(), time.process_time())]
        for (name, at, processor), (end, processor_end) in zip(self.begun, ends, strict=True):
            if name == wanted:
                found.seconds += end - at
                found.processor += processor_end - processor
        return found


def main() -> None:
    """Build, then tell."""
    model, calibration, out, *recipes = sys.argv[1:]
    clock = Clock()
    folder = Path(tempfile.mkdtemp(dir=out))
    made = workbench.build_recipes(Path(model), recipes, folder, calibration=Path(calibration), seed=0, progress=clock)
    retreats = [f"{a.recipe}: {d.where} {d.what}" for a in made for d in a.degradations]
    tell(clock.spent("build: quantize blocks"), ("quantwise", "torch"), degradations=retreats)


if __name__ == "__main__":
    main()
