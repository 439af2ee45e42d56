"""What a build will take, said before it begins; one that the disk cannot hold is refused there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantwise.build.calibration import Calibration
from quantwise.build.pace import measured_pace
from quantwise.build.storage import Storage
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.recipe import Recipe
from quantwise.formats.safetensors_folder import ModelFolder, side_files
from quantwise.models.config import read_config
from quantwise.plan.build_job import Texts, plan_build
from quantwise.plan.fit import size
from quantwise.plan.memory import available_bytes


def announce(
    source: ModelFolder,
    out: Path,
    recipes: Sequence[Recipe],
    storages: Mapping[Recipe, Storage],
    data: Calibration | None,
    tell: Callable[[str], None] | None,
    behind: int = 0,
) -> None:
    """Tell memory, disk and time of building ``recipes``; ``storages`` are those whose pace can be measured.

    ``behind`` are the bytes that a killed walk left in ``out`` for this one, which count as free. Without ``tell`` only
    the disk is looked at.

    Raises InputError where ``out`` is a file, EnvironmentFailure where it may not be written into or has not enough
    room.
    """
    texts = Texts(data.tokens, max(map(len, data.sequences))) if data else Texts()
    pace = measured_pace(storages) if tell else None
    shape = None
    with contextlib.suppress(InputError):  # a decoder that nobody described to the planner
        shape = read_config(source.path)
    job = plan_build(
        source.entries, recipes, texts, pace, shape, sum(f.stat().st_size for f in side_files(source.path))
    )
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file where a folder should be; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise EnvironmentFailure(f"{there} may not be written into; choose another --out, or change its permissions")
    free = shutil.disk_usage(there).free + behind
    if tell:
        tell(job.sentence(available_bytes(), free))
    if job.disk > free:
        raise EnvironmentFailure(
            f"the build needs {size(job.disk)} of disk and {there} has {size(free)} free; "
            "free some space, choose another --out, or build fewer recipes at a time"
        )
