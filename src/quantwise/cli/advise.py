"""``quantwise advise``: what the field advises, as claims with their sources, and what to do when something fails."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantwise.advise.claims import HARDWARE, NEEDS, SIZES, STATUSES, Claim, chosen
from quantwise.advise.failures import Case, Failure, failures, matching, told
from quantwise.core.errors import InputError
from quantwise.plan.text_file import read_text_file

_WIDTH = 100


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "advise",
        help="what the field advises, with sources and what would overturn it",
        description="Claims of the field about precision, method and hardware; and its failures with their fixes.",
    )
    p.add_argument("--hardware", metavar="H", help=f"one of {', '.join(HARDWARE)}")
    p.add_argument("--size", metavar="S", help=f"of the model: {', '.join(SIZES)} (up to 4B, 34B, more)")
    p.add_argument("--need", metavar="N", help=f"one of {', '.join(NEEDS)}")
    p.add_argument("--status", metavar="S", help=f"one of {', '.join(STATUSES)}")
    p.add_argument("--failure", nargs="?", const="", metavar="NAME", help="failures and their fixes, all or one")
    p.add_argument("--log", type=Path, metavar="FILE", help="failures whose messages are in this log")
    p.add_argument("--json", action="store_true", help="print records as JSON")
    p.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for."""
    if arguments.log is not None or arguments.failure is not None:
        _refuse_both(arguments)
        found = _failures(arguments)
        if arguments.json:
            _print_json([asdict(told(failure, Case())) for failure in found])
        else:
            _print_failures(found)
        return 0
    picked = chosen(arguments.hardware, arguments.size, arguments.need, arguments.status)
    if arguments.json:
        _print_json([claim.to_json() for claim in picked])
    else:
        _print_claims(picked)
    return 0


def _refuse_both(arguments: argparse.Namespace) -> None:
    """Raise InputError where claims are asked for beside failures, or failures in two ways."""
    asked = "failure" if arguments.log is None else "log"
    for name in ("failure", "hardware", "size", "need", "status"):
        if name != asked and getattr(arguments, name) is not None:
            raise InputError(f"--{asked} and --{name} ask different questions; leave one of them away")


def _failures(arguments: argparse.Namespace) -> Sequence[Failure]:
    if arguments.log is not None:
        return matching(read_text_file(arguments.log, "a log"))
    named = [f for f in failures() if arguments.failure in ("", f.name)]
    if not named:
        allowed = ", ".join(f.name for f in failures())
        raise InputError(f"unknown failure {arguments.failure!r}; failures: {allowed}")
    return named


def _print_json(records: list[dict[str, Any]]) -> None:
    json.dump(records, sys.stdout, indent=1)
    print()


def _print_claims(picked: Sequence[Claim]) -> None:
    for claim in picked:
        print(_wrapped(f"{claim.status.upper()}: ", claim.claim))
        for name, text in (
            ("use", claim.use),
            ("found", f"{claim.finding} ({claim.shown})" if claim.shown else claim.finding),
            ("source", claim.source),
            ("overturned by", claim.overturned),
        ):
            if text:
                print(_wrapped(f"  {name}: ", text))
        print()
    counts = {status: sum(c.status == status for c in picked) for status in STATUSES}
    print(f"{len(picked)} claims: " + ", ".join(f"{n} {status}" for status, n in counts.items()))


def _print_failures(found: Sequence[Failure]) -> None:
    for failure in found:
        words = told(failure, Case())
        print(_wrapped(f"{words.name}: ", words.symptom))
        print(_wrapped("  because: ", words.cause))
        print(_wrapped("  look: ", words.case))
        for fix in words.fixes:
            print(_wrapped("  - ", fix))
        print(_wrapped("  source: ", words.source) + "\n")
    if not found:
        print("no message in it is one that we know")


def _wrapped(head: str, text: str) -> str:
    return textwrap.fill(head + text, _WIDTH, subsequent_indent="    ")
