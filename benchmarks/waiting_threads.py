"""What sleeping threads cost: tokens per second with and without ``OMP_WAIT_POLICY=PASSIVE``, idle and on shared cores.

    python benchmarks/waiting_threads.py [--rounds 3] [--gguf FILE] [--write]

The reference model, a Llama shape of random weights (325 million) and, with ``--gguf``, a file of yours, each in
processes of its own: llama.cpp (the wheel) and Transformers, with one thread and with as many as there are cores. One
request at a time, greedy. Ways take turns in every round; each is warmed up. Cores are shared with one loop of Python
for each of them, which never waits. A process reads the policy when it starts, so every reading is a new one.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Ask, Runtime, RuntimeOptions
from quantwise.models.config import folder_format
from quantwise.models.reference import path as reference_path
from quantwise.plan.measure_machine import cores
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.transformers import Transformers
from speed_model import FIRST_CHARACTER, SPECIAL, write_model
from this_machine import line

VARIABLE = "OMP_WAIT_POLICY"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "waiting-threads.md"
PROSE = "The baker opened the shop before sunrise and set the first loaves on the long table by the window."


@dataclass(frozen=True, slots=True)
class Case:
    """A model in a runtime. ``tokens`` are decoded in one answer, and as many answers as ``answers`` are timed."""

    name: str
    runtime: Runtime
    artifact: Artifact
    text: str
    tokens: int
    answers: int


def cases(place: Path, gguf: Path | None) -> list[Case]:
    """Built where they are missing."""
    large = place / "model"
    if not (large / "tokenizer_config.json").is_file():
        write_model(large, layers=24, hidden=1024, feed_forward=2816)
    characters = "".join(chr(FIRST_CHARACTER + SPECIAL + 37 * i) for i in range(16))
    found = []
    for name, model, kind, text, tokens, answers in (
        ("reference", reference_path(), "q8_0", PROSE, 48, 8),
        ("325M", large, "q4_0", characters, 24, 2),
    ):
        (made,) = build(model, [parse_recipe(kind)], [], place / name)
        served = Artifact(made.location, "gguf", "", None)
        folder = Artifact(str(model), folder_format(model), "", None)
        found.append(Case(f"{name}, {kind}", LlamaCpp(), served, text, tokens, answers))
        found.append(Case(f"{name}, 16 bit", Transformers(own_process=True), folder, text, tokens, answers))
    if gguf is not None:
        found.append(Case(gguf.name, LlamaCpp(), Artifact(str(gguf), "gguf", "", None), PROSE, 32, 3))
    return found


def speed(case: Case, threads: int, policy: str | None) -> float:
    """Tokens per second of decoding, from the first token on; the middle answer."""
    with policy_set(policy), case.runtime.open(case.artifact, RuntimeOptions(threads=threads, parallel=1)) as session:
        ask = Ask(text=case.text, max_tokens=case.tokens, temperature=0.0)
        session.ask([ask])
        found = []
        for _ in range(case.answers):
            (reply,) = session.ask([ask])
            if reply.error or not reply.output_tokens or reply.output_tokens < 2:
                raise SystemExit(f"{case.name} answered nothing that can be timed: {reply}")
            assert reply.seconds is not None
            assert reply.first_token_seconds is not None
            found.append((reply.output_tokens - 1) / (reply.seconds - reply.first_token_seconds))
    return statistics.median(found)


@contextmanager
def policy_set(policy: str | None) -> Iterator[None]:
    """The variable as given, for processes that are started meanwhile."""
    before = os.environ.pop(VARIABLE, None)
    if policy is not None:
        os.environ[VARIABLE] = policy
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


@contextmanager
def shared(busy: int) -> Iterator[None]:
    """As many loops beside us; they end with us."""
    loops = [multiprocessing.get_context("spawn").Process(target=_loop, daemon=True) for _ in range(busy)]
    for loop in loops:
        loop.start()
    try:
        yield
        assert all(loop.is_alive() for loop in loops), "the cores were not shared"
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def _loop() -> None:
    while True:
        pass


def main() -> int:
    """Measure, print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gguf", type=Path, help="a model of yours, too")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    flags = parser.parse_args()
    many = cores()
    if many < 2:
        parser.error("one core has no thread to wait for; run it where there are two or more")
    ways = [(1, None), (many, None), (many, "PASSIVE")]
    seen: dict[tuple[str, str, int, int, str | None], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="quantwise-") as folder:
        of = cases(Path(folder), flags.gguf)
        for busy in (0, many):
            for number in range(flags.rounds):
                for case in of:
                    for threads, policy in ways[:: 1 if number % 2 == 0 else -1]:
                        with shared(busy):
                            found = speed(case, threads, policy)
                        seen.setdefault((case.name, case.runtime.name, busy, threads, policy), []).append(found)
                        print(number + 1, busy, case.name, case.runtime.name, threads, policy, f"{found:.1f}",
                              file=sys.stderr)  # fmt: skip
    lines = _page(seen, of, ways, many)
    print("\n".join(lines))
    if flags.write:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def _page(
    seen: dict[tuple[str, str, int, int, str | None], list[float]],
    of: list[Case],
    ways: list[tuple[int, str | None]],
    many: int,
) -> list[str]:
    lines = [
        "# Threads that sleep while they wait",
        "",
        "Tokens per second of decoding, one request at a time, by how many threads compute and by whether waiting",
        f"ones sleep (`{VARIABLE}=PASSIVE`) or do as the library does by itself; made by",
        "`benchmarks/waiting_threads.py`. The middle round, with the least and the most in brackets; ratios are taken",
        "round by round.",
    ]
    for busy, title in ((0, "Idle cores"), (many, f"The same cores with {many} loops of other programs")):
        lines += [
            "",
            f"## {title}",
            "",
            f"| model | runtime | 1 thread | {many} threads | {many} threads, sleeping | sleeping / not |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
        ]
        for case in of:
            columns = [seen[case.name, case.runtime.name, busy, *way] for way in ways]
            ratios = [sleeping / not_ for not_, sleeping in zip(columns[1], columns[2], strict=True)]
            cells = [f"{_middle(column, 1)}" for column in columns]
            lines.append(f"| {case.name} | {case.runtime.name} | {' | '.join(cells)} | {_middle(ratios, 2)} |")
    rounds = len(next(iter(seen.values())))
    return [*lines, "", f"{rounds} rounds. {LlamaCpp().version()}; {line()}; {datetime.date.today()}."]


def _middle(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    raise SystemExit(main())
