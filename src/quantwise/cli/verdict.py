"""``quantwise verdict``: PASS, FAIL or UNKNOWN from flips that were counted, or from per-item results of two runs."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantwise.cli.arguments import positive, share
from quantwise.core.errors import InputError
from quantwise.core.verdict import Verdict
from quantwise.stats.compare import Rule, Supply, compare_differences, verdict_from_comparison
from quantwise.stats.differences import Differences
from quantwise.stats.wording import evidence_text, percent, rounded_up
from quantwise.tasks.samples import PairedSamples, read_pairs

_EPILOG = """examples:
  quantwise verdict --regressions 12 --improvements 8 --items 1000 --margin 1%
  quantwise verdict --samples fp16.jsonl q4.jsonl --metric acc --margin 2%

PASS: non-inferior at the margin. FAIL: worse by more than the margin. UNKNOWN:
neither is shown yet; the answer says about how many more items would settle it.
May be asked again after every item, unless --fixed-n was chosen beforehand.
"""
# Beyond that a count is a slip of the hand, and no float tells it from its neighbours much further on.
_MOST = 10**12
_LONGEST_S = 1e9


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What was given: differences with the names of both arms."""

    differences: Differences
    baseline: str
    candidate: str
    task: str
    missing: int
    notes: tuple[str, ...]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to the command line."""
    parser = subparsers.add_parser(
        "verdict",
        help="PASS, FAIL or UNKNOWN from results you already have",
        description="Is the candidate worse than its baseline by more than a margin?",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    given = parser.add_argument_group("evidence (counts, or --samples)")
    given.add_argument("--regressions", type=int, metavar="A", help="items right before, wrong now")
    given.add_argument("--improvements", type=int, metavar="B", help="items wrong before, right now")
    given.add_argument("--items", type=int, metavar="N", help="all items that both answered")
    given.add_argument(
        "--samples",
        nargs=2,
        metavar=("BASE", "CAND"),
        help="JSON Lines per item: lm-eval --log_samples, quantwise rows, or id and score",
    )
    given.add_argument("--metric", help="which metric of the samples, such as acc or exact_match,strict-match")
    rule = parser.add_argument_group("rule")
    rule.add_argument(
        "--margin", type=share, required=True, metavar="M", help="largest acceptable drop, as 1%% or 0.01"
    )
    rule.add_argument("--alpha", type=share, default=0.05, help="error rate of a PASS and of a FAIL (default 0.05)")
    rule.add_argument(
        "--candidates-shippable",
        type=positive,
        default=1,
        metavar="m",
        help="how many candidates are in the race; a PASS then needs m times the evidence (default 1)",
    )
    rule.add_argument(
        "--fixed-n", action="store_true", help="the number of items was fixed beforehand: Tango's score test"
    )
    outlook = parser.add_argument_group("outlook")
    outlook.add_argument("--items-left", type=int, metavar="N", help="further items that exist")
    outlook.add_argument("--seconds-per-item", type=float, metavar="S", help="to say how long further items would take")
    parser.add_argument("--strict", action="store_true", help="exit with 3 for FAIL and 4 for UNKNOWN")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(verb=run)


def run(args: argparse.Namespace) -> int:
    """Print the verdict; exit code 0, or with --strict 3 for FAIL and 4 for UNKNOWN. Raises InputError."""
    mode = "fixed" if args.fixed_n else "sequential"
    rule = Rule(args.alpha, args.candidates_shippable, mode)  # type: ignore[arg-type]
    supply = _supply(args)
    evidence = _evidence(args)
    comparison = compare_differences(evidence.differences, args.margin, rule.alpha, evidence.missing)
    verdict = verdict_from_comparison(
        comparison,
        candidate=evidence.candidate,
        baseline=evidence.baseline,
        task=evidence.task,
        rule=rule,
        supply=supply,
        differences=evidence.differences,
    )
    for note in evidence.notes:
        print(f"note: {note}", file=sys.stderr)
    print(json.dumps(as_json(verdict, rule, evidence.notes), indent=2) if args.json else as_text(verdict, rule))
    return {"PASS": 0, "FAIL": 3, "UNKNOWN": 4}[verdict.verdict] if args.strict else 0


def as_json(verdict: Verdict, rule: Rule, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The verdict as one flat object; ``n_more`` is [low, middle, high] or null."""
    comparison = verdict.comparison
    return {
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "explanation": verdict.explanation,
        "baseline": verdict.baseline,
        "candidate": verdict.candidate,
        "task": verdict.task,
        "n": comparison.n,
        "regressions": comparison.regressions,
        "improvements": comparison.improvements,
        "missing": comparison.missing,
        "margin": comparison.margin,
        "delta": comparison.delta,
        "interval": list(comparison.interval) if comparison.interval else None,
        "max_drop": verdict.max_drop,
        "z": comparison.z if comparison.z is not None and abs(comparison.z) < float("inf") else None,
        "e_pass": comparison.e_pass,
        "e_fail": comparison.e_fail,
        "pass_threshold": rule.pass_threshold,
        "fail_threshold": rule.fail_threshold,
        "alpha": rule.alpha,
        "mode": rule.mode,
        "n_more": list(verdict.n_more) if verdict.n_more else None,
        "minutes_more": verdict.minutes_more,
        "smallest_margin": verdict.smallest_margin,
        "notes": list(notes),
    }


def as_text(verdict: Verdict, rule: Rule) -> str:
    """A block of a few lines: the answer, the sentence, the numbers it rests on."""
    comparison = verdict.comparison
    lines = [f"{verdict.verdict}  {verdict.candidate} against {verdict.baseline}"]
    lines += textwrap.wrap(verdict.explanation, 96, initial_indent="  ", subsequent_indent="  ")
    if comparison.n == 0 or comparison.delta is None or comparison.interval is None:
        return "\n".join(lines)
    flips = comparison.regressions + comparison.improvements
    low, high = comparison.interval
    moved = f"{comparison.regressions} got worse and {comparison.improvements} got better"
    level = percent(1.0 - rule.alpha)
    rows = [
        ("items", f"{comparison.n}, of which {moved} ({percent(flips / comparison.n)} flips)"),
        ("change", f"{percent(comparison.delta, 2)}, {level} interval {percent(low, 2)} to {percent(high, 2)}"),
        ("margin", _margin_row(verdict)),
        ("evidence", _evidence_row(verdict, rule)),
    ]
    if comparison.missing:
        rows.insert(1, ("missing", f"{comparison.missing}, counted against the candidate"))
    return "\n".join([*lines, "", *(f"  {name:<9} {text}" for name, text in rows)])


def _margin_row(verdict: Verdict) -> str:
    asked = percent(verdict.comparison.margin, 2)
    if verdict.smallest_margin is None:
        return asked
    which = "the items left could certify" if verdict.reason in ("items_exhausted", "budget") else "these items certify"
    return f"{asked}; the smallest that {which} is {percent(rounded_up(verdict.smallest_margin, 2), 2)}"


def _evidence_row(verdict: Verdict, rule: Rule) -> str:
    comparison = verdict.comparison
    if rule.mode == "fixed":
        return f"Tango z {comparison.z:.2f} for one look at a number of items fixed beforehand"
    return (
        f"{evidence_text(comparison.e_pass)} of {rule.pass_threshold:g} needed for PASS, "
        f"{evidence_text(comparison.e_fail)} of {rule.fail_threshold:g} for FAIL; may be looked at any time"
    )


def _supply(args: argparse.Namespace) -> Supply:
    if args.items_left is not None and args.items_left < 0:
        raise InputError(
            f"--items-left {args.items_left} is negative: give the number of further items, or leave it out"
        )
    if args.seconds_per_item is not None and not 0.0 < args.seconds_per_item < _LONGEST_S:
        raise InputError(
            f"--seconds-per-item {args.seconds_per_item:g} is no number of seconds above 0: give it, or leave it out"
        )
    return Supply(items_left=args.items_left, seconds_per_item=args.seconds_per_item)


def _evidence(args: argparse.Namespace) -> _Evidence:
    """Differences from counts or from two files; exactly one of them must be given."""
    counts = (args.regressions, args.improvements, args.items)
    if args.samples:
        if any(c is not None for c in counts):
            raise InputError("counts and --samples exclude each other: give one of them")
        base, cand = (Path(p) for p in args.samples)
        paired: PairedSamples = read_pairs(base, cand, args.metric)
        names = (base.name, cand.name) if base.name != cand.name else (str(base), str(cand))
        return _Evidence(
            Differences.of_pairs(paired.pairs), names[0], names[1], paired.metric, paired.missing, paired.notes
        )
    if args.metric is not None:
        raise InputError("--metric belongs to --samples: leave it out for counts")
    if any(c is None for c in counts):
        raise InputError(
            "the evidence is missing: give --regressions, --improvements and --items, or --samples BASE CAND"
        )
    if max(counts) > _MOST:
        raise InputError(f"counts above {_MOST:,} are no counts of items: give those of the items that both answered")
    return _Evidence(Differences.of_counts(*counts), "the baseline", "the candidate", "items", 0, ())
