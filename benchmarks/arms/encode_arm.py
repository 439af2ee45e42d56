"""Encode a model to one GGUF type with quantwise: ``encode_arm.py MODEL OUT RECIPE``.

``encode`` is what the artifact itself records: reading the safetensors, encoding and writing the GGUF file. Hashing the
model and the artifact and syncing the disk come on top, and count in the whole process and the processor seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from told import Spent, tell

from quantwise import workbench
from quantwise.core.progress import Silent


def main() -> None:
    """Build, then tell."""
    model, out, recipe = sys.argv[1:]
    with Spent() as spent:
        made = workbench.build_recipes(Path(model), [recipe], Path(out), calibration=None, seed=0, progress=Silent())[0]
    spent.seconds = made.build_seconds or 0.0
    tell(spent, ("quantwise", "torch", "gguf"), location=made.location)


if __name__ == "__main__":
    main()
