"""``quantwise plan MODEL``: what each default candidate needs here, from headers alone."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import positive


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser("plan", help="what fits, from headers alone", description="Bytes of each candidate at a site.")
    p.add_argument(
        "model", nargs="?", type=Path, metavar="MODEL", help="folder or .gguf file (default: the reference model)"
    )
    p.add_argument("--scenario", default=None, metavar="S", help="laptop, nas, lab-server, demo, or a TOML file")
    p.add_argument("--context", type=positive, metavar="N", help="tokens per request")
    p.add_argument("--concurrency", type=positive, metavar="N", help="requests at a time")
    p.add_argument("--json", action="store_true", help="print the fits as JSON")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan and print one line per candidate."""
    from quantwise import workbench
    from quantwise.report.tables import print_fits

    fits = workbench.plan(arguments.model, arguments.scenario, arguments.context, arguments.concurrency)
    rows = [asdict(f) | {"total_bytes": f.total_bytes} for f in fits]
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    else:
        print_fits(rows, sys.stdout)
    return 0
