"""``quantwise report RUN``: recompute the verdicts offline from the run folder, and write its page."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import Any

from quantwise.cli.decide import show


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "report", help="show a run again", description="Recompute a run's verdicts from its folder, and its page."
    )
    p.add_argument("folder", type=Path, metavar="RUN", help="a run folder that `quantwise decide` made")
    p.add_argument("--open", action="store_true", help="open the page in a browser")
    p.add_argument("--json", action="store_true", help="print the record as JSON")
    p.add_argument("--strict", action="store_true", help="exit 3 when the best candidate FAILs, 4 when it is UNKNOWN")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Recompute and print; nothing is measured and no model is loaded."""
    from quantwise import workbench

    record = workbench.reread(arguments.folder)
    if arguments.open:
        webbrowser.open((arguments.folder / "report.html").resolve().as_uri())
    return show(record, arguments)
