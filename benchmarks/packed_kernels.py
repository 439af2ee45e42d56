"""Tokens per second and memory of packed weights in the Transformers runtime, against 16 bit.

    python benchmarks/packed_kernels.py [--layers 8] [--hidden 2048] [--rounds 3] [--threads 2] [--write]

Random weights in Llama's shape (0.44 B by default), so that reading them takes time. Each arm is opened in a process of
its own, one arm after the other, and all of them again in every round; the median round is told, and of ratios the
median of the rounds' own ratios with their range. Rows are requests decoded together. A prompt has 64 tokens, so one
request's prefill multiplies 64 rows. One layer by itself is timed too (``--layer``: nothing else), by rows of inputs:
torch's kernel beside widening the weights first, which is what sets the limits in ``core/packing.py``. Needs 2 GB of
disk for a while and 2 GB of memory.
"""

from __future__ import annotations

import argparse
import datetime
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.packing import NARROW_ROWS
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Ask, Reply, RuntimeOptions
from quantwise.models.config import folder_format
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.question.propose import parse
from quantwise.runtimes.packed_linear import PackedInt4, PackedInt8
from quantwise.runtimes.stored_layer import StoredLayer
from quantwise.runtimes.transformers import Transformers
from speed_model import FIRST_CHARACTER, SPECIAL, VOCABULARY, write_model
from this_machine import line

ARMS = ("16bit", "rtn:int8-channel", "rtn:int4-g128", "rtn:int4-g128-asym", "w8a8")
ROWS = (1, 8, 32)
PROMPT = 64
LAYER_ROWS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)
LAYER_TURNS = 7
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


def layer_times(width: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds of one square layer at each of ``LAYER_ROWS``: 16 bit, and the kernel and widening of 8 and 4 bits.

    Layers are as many as exceed a processor's cache, so weights come from memory, as a model's do. Ways take turns, and
    the middle turn counts.
    """
    torch.set_num_threads(threads)
    draw = torch.Generator().manual_seed(0)
    copies = range(max(2, (256 << 20) // (2 * width * width)))

    def stored(bits: int, groups: int) -> StoredLayer:
        codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (width, width), generator=draw, dtype=torch.int8)
        return StoredLayer(codes, torch.rand(width, groups, generator=draw).bfloat16().float(), None, bits=bits)

    sixteen = [torch.randn(width, width, generator=draw).bfloat16() for _ in copies]
    eight = [PackedInt8(stored(8, 1), None, torch.bfloat16) for _ in copies]
    four = [PackedInt4(stored(4, width // 128), None, torch.bfloat16) for _ in copies]
    ways = {
        "16 bit": [lambda rows, w=w: torch.nn.functional.linear(rows, w) for w in sixteen],
        "8 bits, kernel": [layer._narrow for layer in eight],
        "8 bits, widened": [layer._wide for layer in eight],
        "4 bits, kernel": [layer._narrow for layer in four],
        "4 bits, widened": [layer._wide for layer in four],
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    for count in LAYER_ROWS:
        rows = torch.randn(count, width, generator=draw).bfloat16()
        turns: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(LAYER_TURNS):
            for way, layers in ways.items():
                start = time.perf_counter()
                for layer in layers:
                    layer(rows)
                turns[way].append(1e3 * (time.perf_counter() - start) / len(layers))
        for way, seconds in turns.items():
            found[way].append(statistics.median(seconds))
    return found


def layer_table(times: Mapping[str, Sequence[float]], width: int) -> list[str]:
    """As Markdown."""
    heads = " | ".join(map(str, LAYER_ROWS))
    limits = ", ".join(f"{rows} ({bits} bits)" for bits, rows in NARROW_ROWS.items())
    return [
        "",
        f"One layer of {width} x {width}, milliseconds by rows of inputs (4 bits in groups of 128; from memory,",
        f"the middle of {LAYER_TURNS} turns). Up to how many rows the runtime takes the kernel: {limits};",
        "that is where one thread breaks even (`--layer --threads 1`).",
        "",
        f"| way | {heads} |",
        f"| --- |{' ---: |' * len(LAYER_ROWS)}",
        *(f"| {way} | {' | '.join(f'{ms:.2f}' for ms in row)} |" for way, row in times.items()),
    ]  # fmt: skip


def main() -> None:
    """Build, measure in rounds, print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=17)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the model and its artifacts there, and use them if they are")
    parser.add_argument("--layer", action="store_true", help="only one layer by itself")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args()
    if asked.layer:
        print("\n".join(layer_table(layer_times(asked.hidden, asked.threads), asked.hidden)))
        return
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
    told = ("layers", "hidden", "tokens", "rounds", "threads")
    given = [f"--{name} {v}" for name in told if (v := getattr(asked, name)) != parser.get_default(name)]
    lines = table(seen, planned, " ".join(["python benchmarks/packed_kernels.py", *given]))
    lines[-2:-2] = layer_table(layer_times(asked.hidden, asked.threads), asked.hidden)
    print("\n".join(lines))
    if asked.write:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
