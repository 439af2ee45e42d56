"""``quantwise measure RUN --more N``: extend the evidence of a run; its verdicts stay valid."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import add_retry, duration, positive
from quantwise.cli.decide import show


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser("measure", help="ask more items of a run", description="Extend the evidence of a run folder.")
    p.add_argument("folder", type=Path, metavar="RUN", help="a run folder that `quantwise decide` made")
    p.add_argument(
        "--more",
        type=positive,
        default=128,
        metavar="N",
        help="further items per task that is still open (default 128)",
    )
    p.add_argument("--budget", type=duration, metavar="TIME", help="stop measuring after 30m (or 90s, 2h)")
    add_retry(p)
    p.add_argument("--json", action="store_true", help="print the record as JSON")
    p.add_argument("--strict", action="store_true", help="exit 3 when the best candidate FAILs, 4 when it is UNKNOWN")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, decide again, print."""
    from quantwise import workbench
    from quantwise.report.progress import progress_on

    with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
        record = workbench.extend(arguments.folder, arguments.more, arguments.budget, bar, arguments.retry)
    return show(record, arguments)
