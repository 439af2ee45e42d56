"""``quantwise build MODEL RECIPE...``: artifacts only, nothing is measured."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "build", help="write quantized artifacts", description="Walk the model once and write every recipe."
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="folder with config.json and safetensors")
    p.add_argument("recipes", nargs="+", metavar="RECIPE", help="for example rtn:int8-channel gptq:int4-g64 q8_0")
    p.add_argument(
        "--calibration", type=Path, metavar="FILE", help="texts for GPTQ; default: text that the suites generate"
    )
    p.add_argument("--out", type=Path, default=Path("build-out"), metavar="DIR", help="default build-out")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json", action="store_true", help="print the artifacts as JSON")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Build and list the artifacts."""
    from quantwise import workbench
    from quantwise.plan.preflight import notes
    from quantwise.report.progress import progress_on
    from quantwise.report.tables import print_artifacts

    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        artifacts = workbench.build_recipes(
            arguments.model,
            arguments.recipes,
            arguments.out,
            calibration=arguments.calibration,
            seed=arguments.seed,
            progress=bar,
        )
    if not arguments.quiet:
        for line in notes(arguments.recipes):
            print(f"note: {line}", file=sys.stderr)
    if arguments.json:
        json.dump([asdict(a) for a in artifacts], sys.stdout, indent=1)
        print()
    else:
        print_artifacts([asdict(a) for a in artifacts], sys.stdout)
    return 0
