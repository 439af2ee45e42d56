"""``quantwise build MODEL RECIPE...``: artifacts only, nothing is measured."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import add_calibration, calibration_set
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "build", help="write quantized artifacts", description="Walk the model once and write every recipe."
    )
    p.add_argument("model", type=Path, metavar="MODEL", help="folder with config.json and safetensors, or a hub id")
    p.add_argument(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help="for example rtn:int8-channel gptq:int4-g64 awq+rtn:int4-g128 q4_k_m",
    )
    add_calibration(p)
    p.add_argument(
        "--calibration-study", action="store_true",
        help="build RECIPE on many sample counts and domains, and print its held-out divergence for each",
    )  # fmt: skip
    p.add_argument("--out", type=Path, default=Path("build-out"), metavar="DIR", help="default build-out")
    p.add_argument("--seed", type=int, default=0, help="which calibration texts are taken (default 0)")
    p.add_argument("--json", action="store_true", help="print the artifacts as JSON")
    p.add_argument("--quiet", action="store_true", help="no progress, and nothing said beforehand")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Build and list the artifacts, or study the calibration of one recipe."""
    return _study(arguments) if arguments.calibration_study else _build(arguments)


def _build(arguments: argparse.Namespace) -> int:
    from quantwise import workbench
    from quantwise.plan.preflight import notes
    from quantwise.report.progress import progress_on
    from quantwise.report.tables import print_artifacts

    wanted = calibration_set(arguments)
    if not arguments.quiet:
        for line in notes(arguments.recipes):
            print(f"note: {line}", file=sys.stderr)
    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        artifacts = workbench.build_recipes(
            arguments.model,
            arguments.recipes,
            arguments.out,
            calibration=wanted,
            seed=arguments.seed,
            progress=bar,
            tell=_tell(arguments),
        )
    rows = [shown(artifact) for artifact in artifacts]
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        print_artifacts(rows, sys.stdout)
    return 0


def _tell(arguments: argparse.Namespace) -> Callable[[str], None] | None:
    return None if arguments.quiet else lambda line: print(line, file=sys.stderr, flush=True)


def _study(arguments: argparse.Namespace) -> int:
    from quantwise import calibration_study, prepare, workbench
    from quantwise.core.recipe import parse_recipe
    from quantwise.report.progress import progress_on

    if arguments.calibration or arguments.samples:
        raise InputError(
            "--calibration-study tries its own texts and sample counts; leave --calibration and --samples out"
        )
    model = workbench.source_of(
        arguments.model, [parse_recipe(text) for text in arguments.recipes], arguments.out, _tell(arguments)
    )
    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        found = calibration_study.run(model, arguments.recipes, as_json=arguments.json, report=prepare.WalkStages(bar))
    print(found if isinstance(found, str) else json.dumps(found, indent=1))
    return 0


def shown(artifact: Artifact) -> dict[str, Any]:
    """An artifact as ``--json`` names its parts."""
    return {
        "recipe": artifact.recipe,
        "path": artifact.location,
        "format": artifact.format,
        "bytes": artifact.bytes,
        "bits_per_weight": artifact.bits_per_weight,
        "hash": artifact.hash,
        "seconds": artifact.build_seconds,
        "degradations": [asdict(found) for found in artifact.degradations],
    }
