"""``quantwise evidence export`` and ``import``: rows that were measured on one machine, brought to another."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "evidence",
        help="bring a baseline's rows from another machine",
        description="Where the 16-bit baseline has no room, measure it once where it has, and bring its rows along.",
    )
    ways = p.add_subparsers(metavar="WAY", required=True, parser_class=type(p))
    out = ways.add_parser("export", help="write a candidate's rows to a file")
    out.add_argument("folder", type=Path, metavar="RUN", help="a run folder that `quantwise decide` made")
    out.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the rows go")
    out.add_argument("--candidate", metavar="NAME", help="whose rows, as reports name it (default: the baseline)")
    out.add_argument("--json", action="store_true", help="print what was written as JSON")
    out.set_defaults(verb=export)
    into = ways.add_parser("import", help="take the rows of a file into a run")
    into.add_argument("folder", type=Path, metavar="RUN", help="the run folder that they are brought into")
    into.add_argument("file", type=Path, metavar="FILE", help="what `quantwise evidence export` wrote")
    into.add_argument(
        "--accept-build", action="store_true", help="take rows of another runtime build; recorded as a degradation"
    )
    into.add_argument("--json", action="store_true", help="print what was taken as JSON")
    into.set_defaults(verb=take_in)


def export(arguments: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    from quantwise import evidence_exchange

    done = evidence_exchange.export(arguments.folder, arguments.out, arguments.candidate)
    return _show(done, arguments.json, f"{done['file']}: {done['rows']} rows of {done['candidate']}, {_items(done)}")


def take_in(arguments: argparse.Namespace) -> int:
    """Take the rows in and say which."""
    from quantwise import evidence_exchange

    done = evidence_exchange.take_in(arguments.folder, arguments.file, accept_build=arguments.accept_build)
    lines = [f"{done['rows']} rows of {done['candidate']} from {done['machine']}, {_items(done)}"]
    if done["left_out"]:
        counts = ", ".join(f"{count} of {task}" for task, count in done["left_out"].items())
        lines.append(f"left out, because blocks are taken whole and from the first on: {counts} items")
    if done["degradation"]:
        lines.append(f"note: {done['degradation']}")
    lines.append(f"the same `quantwise decide ... --run {arguments.folder}` goes on with them")
    return _show(done, arguments.json, "\n".join(lines))


def _items(done: dict[str, Any]) -> str:
    return "certification items: " + (", ".join(f"{task} {count}" for task, count in done["items"].items()) or "none")


def _show(done: dict[str, Any], as_json: bool, text: str) -> int:
    if as_json:
        json.dump(done, sys.stdout, ensure_ascii=False, indent=1)
        print()
    else:
        print(text)
    return 0
