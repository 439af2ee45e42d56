"""What a build will take, said before it begins; one that the disk cannot hold is refused there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantwise.build.calibration import Calibration
from quantwise.build.pace import measured_pace
from quantwise.build.storage import Storage
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.recipe import Recipe
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.plan.build_job import Texts, plan_build
from quantwise.plan.fit import size
from quantwise.plan.memory import available_bytes


def announce(
    source: ModelFolder,
    out: Path,
    storages: Mapping[Recipe, Storage],
    direct: Sequence[Recipe],
    data: Calibration | None,
    tell: Callable[[str], None] | None,
) -> None:
    """Tell memory, disk and time of walking with ``storages`` and writing ``direct``. Without ``tell`` only the disk is
    looked at.

    Raises EnvironmentFailure where ``out`` has not enough room; what a killed build left there counts as free.
    """
    texts = Texts(data.tokens, max(map(len, data.sequences))) if data else Texts()
    pace = measured_pace(storages) if tell else None
    job = plan_build(source.entries, [*storages, *direct], texts, pace)
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free + _left_behind(out)
    if tell:
        tell(job.sentence(available_bytes(), free))
    if job.disk > free:
        raise EnvironmentFailure(
            f"the build needs {size(job.disk)} of disk and {there} has {size(free)} free; "
            "free some space, choose another --out, or build fewer recipes at a time"
        )


def _left_behind(out: Path) -> int:
    """Bytes of finished blocks, which the walk goes on from."""
    return sum(file.stat().st_size for file in out.glob(".walk-*/**/*") if file.is_file())
