"""Replay of real models: what would `quantwise verdict` have said about int8 and int4?

Reads per-item answers of Qwen2.5-1.5B, Qwen2.5-3B and Llama-3.2-3B (16 bit, bitsandbytes int8 and int4) on
ARC-Challenge, CommonsenseQA and MMLU subsets (ab-ch90/quantization-flips-small-llms, MIT), found through
QUANTWISE_DATA (by default ../shared/data from the root of the repository), and prints a Markdown table.

    python benchmarks/real_model_replay.py                       # the table
    python benchmarks/real_model_replay.py --write               # also docs/real-models.md
    python benchmarks/real_model_replay.py --samples FOLDER      # JSON Lines of id and score, for `quantwise verdict`
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from quantwise.core.errors import InputError, QuantwiseError
from quantwise.core.evidence import Pair
from quantwise.core.verdict import Verdict
from quantwise.stats.compare import Rule, compare, verdict_from_comparison
from quantwise.stats.wording import about, percent

ROOT = Path(__file__).resolve().parent.parent
MODELS = {
    "Qwen/Qwen2.5-1.5B-Instruct": "Qwen2.5-1.5B",
    "Qwen/Qwen2.5-3B-Instruct": "Qwen2.5-3B",
    "meta-llama/Llama-3.2-3B-Instruct": "Llama-3.2-3B",
}
BENCHMARKS = {"arc": "ARC-Challenge", "csqa": "CommonsenseQA", "mmlu": "MMLU"}
PRECISIONS = ("int8", "int4")
MARGINS = (0.01, 0.02)
PAGE = ROOT / "docs" / "real-models.md"

INTRODUCTION = """# Real models, replayed

What `quantwise verdict` says about answers that real models gave: Qwen2.5-1.5B, Qwen2.5-3B and Llama-3.2-3B
(instruction tuned), bitsandbytes int8 and int4 against 16 bit, about 1,000 items of each benchmark. The answers are
from [ab-ch90/quantization-flips-small-llms](https://github.com/ab-ch90/quantization-flips-small-llms) (MIT); the
statistics are ours. Made by `python benchmarks/real_model_replay.py --write`.

Each row is one comparison taken by itself (alpha 0.05, one candidate). *Change* is candidate minus baseline. The
interval is a 95 % confidence sequence, which holds however often one looks and is therefore wider than an interval
for one look. *Flips* are items that got worse / got better. *More* forecasts the further items until PASS or FAIL
at that margin: the middle, with an 80 % range. *One look* in the first table is `--fixed-n`, for those who had fixed
the number of items before looking; all else is the default, which may be looked at any time.
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """One candidate on one benchmark: its verdicts at MARGINS, and what one planned look would have answered."""

    model: str
    benchmark: str
    precision: str
    baseline_accuracy: float
    verdicts: tuple[Verdict, ...]
    one_look: tuple[Verdict, ...]


def data_folder() -> Path:
    """Where the answers are. Raises InputError when they are not there."""
    folder = Path(os.environ.get("QUANTWISE_DATA") or ROOT.parent / "shared" / "data") / "real-model-flips"
    if not folder.is_dir():
        raise InputError(f"{folder} is not there: set QUANTWISE_DATA to the folder that holds real-model-flips")
    return folder


def scores(folder: Path, model: str, precision: str, benchmark: str) -> dict[str, float]:
    """Item id to 1.0 (right) or 0.0 (wrong), in the order of the benchmark."""
    items = json.loads((folder / "_bench_items.json").read_text(encoding="utf-8"))[benchmark]
    path = folder / f"{model.replace('/', '__')}__{precision}__{benchmark}.json"
    answers = json.loads(path.read_text(encoding="utf-8"))["preds"]
    if len(answers) != len(items):
        raise InputError(f"{path} has {len(answers)} answers for {len(items)} items: the data is damaged, get it again")
    return {item["id"]: float(item["answer"] == answer) for item, answer in zip(items, answers, strict=True)}


def replay(folder: Path) -> list[Replay]:
    """Every model, benchmark and precision, each compared with its 16-bit baseline."""
    rows = []
    for model, name in MODELS.items():
        for benchmark, title in BENCHMARKS.items():
            base = scores(folder, model, "fp16", benchmark)
            for precision in PRECISIONS:
                cand = scores(folder, model, precision, benchmark)
                pairs = [Pair(item, base[item], cand[item]) for item in base]
                by_rule = [
                    tuple(
                        verdict_from_comparison(
                            compare(pairs, margin),
                            candidate=f"{name} {precision}",
                            baseline=f"{name} fp16",
                            task=title,
                            rule=rule,
                        )
                        for margin in MARGINS
                    )
                    for rule in (Rule(), Rule(mode="fixed"))
                ]
                rows.append(Replay(name, title, precision, sum(base.values()) / len(base), *by_rule))
    return rows


def write_samples(folder: Path, target: Path) -> list[Path]:
    """JSON Lines of ``id`` and ``score`` for every model, precision and benchmark: ``Qwen2.5-3B-int4-arc.jsonl``."""
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for model, name in MODELS.items():
        for benchmark in BENCHMARKS:
            for precision in ("fp16", *PRECISIONS):
                path = target / f"{name}-{precision}-{benchmark}.jsonl"
                lines = (
                    json.dumps({"id": i, "score": s}) for i, s in scores(folder, model, precision, benchmark).items()
                )
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                written.append(path)
    return written


def table(rows: list[Replay]) -> str:
    """One Markdown row per comparison."""
    heads = [f"{what} {percent(m)}" for m in MARGINS for what in ("at", "more")]
    lines = [
        f"| model | benchmark | bits | n | 16 bit | flips | change | 95 % interval | {' | '.join(heads)} |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |" + " --- | --- |" * len(MARGINS),
    ]
    for row in rows:
        comparison = row.verdicts[0].comparison
        assert comparison.delta is not None
        assert comparison.interval is not None
        low, high = comparison.interval
        cells = [
            row.model,
            row.benchmark,
            row.precision,
            str(comparison.n),
            f"{100 * row.baseline_accuracy:.1f} %",
            f"{comparison.regressions} / {comparison.improvements}",
            f"{100 * comparison.delta:+.1f} %",
            f"{100 * low:+.1f} to {100 * high:+.1f} %",
        ]
        for verdict in row.verdicts:
            cells += [f"**{verdict.verdict}**" if verdict.verdict != "UNKNOWN" else "UNKNOWN", _more(verdict)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _more(verdict: Verdict) -> str:
    if verdict.n_more is None:
        return ""
    low, middle, high = (about(n) for n in verdict.n_more)
    return f"{middle} ({low}–{high})"


def summary(rows: list[Replay]) -> str:
    """How many of each verdict, per precision, margin and rule."""
    lines = ["| bits | margin | rule | PASS | FAIL | UNKNOWN |", "| --- | --- | --- | ---: | ---: | ---: |"]
    for precision in PRECISIONS:
        for position, margin in enumerate(MARGINS):
            for rule in ("any time", "one look"):
                chosen = [
                    row.verdicts if rule == "any time" else row.one_look for row in rows if row.precision == precision
                ]
                found = [verdicts[position].verdict for verdicts in chosen]
                counts = " | ".join(str(found.count(answer)) for answer in ("PASS", "FAIL", "UNKNOWN"))
                lines.append(f"| {precision} | {percent(margin)} | {rule} | {counts} |")
    return "\n".join(lines)


def page(rows: list[Replay]) -> str:
    """The whole document."""
    return (
        f"{INTRODUCTION}\n{summary(rows)}\n\n{table(rows)}\n\n"
        "UNKNOWN is the common honest answer at a thousand items. It is not a PASS: an int8 row that lost nothing may\n"
        "still be compatible with a drop of more than 1 %. A verdict holds for these items, this artifact and this\n"
        "runtime; it says nothing about other tasks.\n"
    )


def main() -> int:
    """Print the table; write the page or the samples when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/real-models.md")
    parser.add_argument("--samples", type=Path, metavar="FOLDER", help="write JSON Lines of id and score into FOLDER")
    args = parser.parse_args()
    try:
        folder = data_folder()
        if args.samples:
            for path in write_samples(folder, args.samples):
                print(path)
            return 0
        rows = replay(folder)
    except QuantwiseError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(summary(rows) + "\n\n" + table(rows))
    if args.write:
        PAGE.write_text(page(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
