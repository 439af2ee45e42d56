"""Tokens per second and memory of packed weights in the Transformers runtime, against 16 bit.

    python benchmarks/packed_kernels.py [--layers 8] [--hidden 2048] [--rounds 3] [--threads 2] [--write]

Random weights in Llama's shape (0.44 B by default), so that reading them takes time. Each arm is opened in a process of
its own, one arm after the other, and all of them again in every round; the median round is told, and of ratios the
median of the rounds' own ratios with their range. Rows are requests decoded together. A prompt has 64 tokens, so one
request's prefill multiplies 64 rows. Needs 2 GB of disk for a while and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import datetime
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Ask, Reply, RuntimeOptions
from quantwise.models.config import folder_format
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.question.propose import parse
from quantwise.runtimes.transformers import Transformers
from speed_model import FIRST_CHARACTER, SPECIAL, VOCABULARY, write_model
from this_machine import line

ARMS = ("16bit", "rtn:int8-channel", "rtn:int4-g128", "w8a8")
ROWS = (1, 8, 32)
PROMPT = 64
PAGE = Path(__file__).resolve().parents[1] / "docs" / "packed-kernels.md"


@dataclass(frozen=True, slots=True)
class Seen:
    """One arm in one round: tokens per second by rows, bytes of weights as held, and the process's peak."""

    decode: Mapping[int, float]
    prefill: Mapping[int, float]
    weights: int
    peak: int
    executes: str


def measure(folder: Path, tokens: int, threads: int) -> Seen:
    """Open the folder in a process of its own, warm it up, and time one batch of each number of rows."""
    artifact = Artifact(str(folder), folder_format(folder), "", None)
    options = RuntimeOptions(context=512, threads=threads, parallel=max(ROWS), timeout_s=300)
    decode, prefill = {}, {}
    with Transformers(own_process=True).open(artifact, options) as session:
        for rows in ROWS:
            session.ask(_asks(rows, 2, seed=99))
            replies = session.ask(_asks(rows, tokens, seed=rows))
            first, whole = _times(replies)
            made = sum(reply.output_tokens or 0 for reply in replies) - rows
            decode[rows], prefill[rows] = made / (whole - first), rows * PROMPT / first
        found = session.footprint()
    assert found.weights_bytes is not None
    assert found.peak_process_bytes is not None
    assert found.executes is not None
    return Seen(decode, prefill, found.weights_bytes, found.peak_process_bytes, found.executes)


def _asks(rows: int, tokens: int, seed: int) -> list[Ask]:
    draw = random.Random(seed)
    texts = [[chr(FIRST_CHARACTER + draw.randrange(SPECIAL, VOCABULARY)) for _ in range(PROMPT)] for _ in range(rows)]
    return [Ask(text="".join(text), max_tokens=tokens) for text in texts]


def _times(replies: Sequence[Reply]) -> tuple[float, float]:
    """Seconds to the first token, and in all, of one batch."""
    (one, *others) = replies
    if any(reply.finish not in ("stop", "length") or reply.prompt_tokens != PROMPT for reply in replies):
        raise SystemExit(f"a request failed: {[reply.error for reply in replies]}")
    assert one.first_token_seconds is not None
    assert one.seconds is not None
    assert all(reply.seconds == one.seconds for reply in others), "one batch"
    return one.first_token_seconds, one.seconds


def table(seen: Mapping[str, Sequence[Seen]], planned: Mapping[str, int], command: str) -> list[str]:
    """The page's lines."""
    base = seen[ARMS[0]]
    lines = [
        "# Packed weights in Transformers, measured",
        "",
        f"`{command}`. Random weights in Llama's shape. Times are a batch's in the runtime, from text to text.",
        "",
        "| arm | executes | weights, MB | planned | process at its peak, MB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for arm in ARMS:
        weights, peak = seen[arm][0].weights, statistics.median(s.peak for s in seen[arm])
        lines.append(
            f"| {arm} | {seen[arm][0].executes} | {weights / 1e6:.1f} | {planned[arm] / 1e6:.1f} | {peak / 1e6:.0f} |"
        )
    for title, part in (("Decoding", "decode"), ("Prefill of 64 tokens each", "prefill")):
        lines += ["", f"{title}, tokens per second in all; in brackets times 16 bit, least and most of the rounds."]
        lines += [
            "",
            f"| arm | {' | '.join(f'{rows} at a time' for rows in ROWS)} |",
            f"| --- |{' ---: |' * len(ROWS)}",
        ]
        for arm in ARMS:
            cells = []
            for rows in ROWS:
                mine, theirs = ([getattr(s, part)[rows] for s in of] for of in (seen[arm], base))
                ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
                against = (
                    ""
                    if arm == ARMS[0]
                    else f" ({statistics.median(ratios):.2f}: {min(ratios):.2f} .. {max(ratios):.2f})"
                )
                cells.append(f"{statistics.median(mine):.1f}{against}")
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return [*lines, "", f"{len(base)} rounds, arms in turn. {line()}; {datetime.date.today()}."]


def main() -> None:
    """Build, measure in rounds, print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the model and its artifacts there, and use them if they are")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = asked.folder or Path(made)
        model = place / "model"
        if not (model / "tokenizer_config.json").is_file():
            write_model(model, asked.layers, asked.hidden, 11 * asked.hidden // 4)
        artifacts = build(model, [parse_recipe(arm) for arm in ARMS[1:]], [], place / "artifacts")
        folders = {ARMS[0]: model, **{a: Path(x.location) for a, x in zip(ARMS[1:], artifacts, strict=True)}}
        use = Workload(512, max(ROWS))
        planned = {arm: plan_candidate(parse(f"{arm}@transformers"), model, use).weights_bytes or 0 for arm in ARMS}
        seen: dict[str, list[Seen]] = {arm: [] for arm in ARMS}
        for number in range(asked.rounds):
            for arm in ARMS if number % 2 == 0 else ARMS[::-1]:
                seen[arm].append(measure(folders[arm], asked.tokens, asked.threads))
                print(f"{number + 1} {arm}: {seen[arm][-1]}", file=sys.stderr)
    shown = " ".join(a for a in sys.argv[1:] if not a.startswith("--folder"))
    lines = table(seen, planned, f"python benchmarks/packed_kernels.py {shown}".strip())
    print("\n".join(lines))
    if asked.write:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
