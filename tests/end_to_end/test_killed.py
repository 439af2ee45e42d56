"""Killed with SIGKILL at varied moments of every stage, a run ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

RECIPES = ("q8_0", "gptq:int4-g64")
ARMS, TASKS = 4, 2  # with a baseline in each of two runtimes
ARTIFACTS = 3  # the 16-bit model is its own artifact for Transformers
# Where in standard error a stage shows, and within how many seconds after it the blow falls.
MOMENTS = {
    "build": ("build: quantize", 0.4),
    "screen": ("screen: ", 0.5),
    "aa": ("A/A noise floor: ", 0.3),
    "certify": ("certify: ", 0.3),
    "conclude": ("certify: ", 0.0),
}


class Killed:
    """One question asked of a run folder again and again, and killed each time."""

    def __init__(self, command: Sequence[str], place: Path, environment: dict[str, str]) -> None:
        self.command, self.place, self.environment = command, place, environment
        self.random = random.Random(0)
        self.orphans: list[psutil.Process] = []
        self.last_lines: list[str] = []

    def kill_in(self, stage: str) -> None:
        """Start, wait for a moment of the stage, kill."""
        mark, within = MOMENTS[stage] if (self.place / "killed").exists() else ("build: hash", 0.05)
        wait = self.random.uniform(0.0, within)
        process = subprocess.Popen(
            self.command, cwd=self.place, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stderr is not None
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_pass_on, args=(process.stderr, lines), daemon=True)
        reader.start()
        self.last_lines.append("")
        while (line := lines.get(timeout=120)) is not None:
            self.last_lines[-1] = line
            ended = stage == "conclude" and ", took" in line
            if line.startswith(mark) and (ended or stage != "conclude"):
                break
        time.sleep(wait)
        with process:
            servers = psutil.Process(process.pid).children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
            reader.join(30)  # before its stream is closed
        end = time.monotonic() + 15
        while time.monotonic() < end and any(map(_runs, servers)):
            time.sleep(0.02)
        self.orphans += filter(_runs, servers)


def _runs(process: psutil.Process) -> bool:
    """Whether it still does something; a dead one may wait for long until init takes notice of it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _pass_on(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def opened(folder: Path) -> contextlib.closing[sqlite3.Connection]:
    return contextlib.closing(sqlite3.connect(f"file:{folder / 'evidence.sqlite'}?mode=ro", uri=True))


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Everything that was measured, but for its times."""
    with opened(folder) as db:
        columns = "candidate, stage, task, item, repeat, block, score, finish, output, cluster, prompt_tokens"
        return db.execute(f"SELECT {columns} FROM measurements ORDER BY 1, 2, 3, 4, 5").fetchall()


def without_logprobs(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row if row[2] != "preferred" else (*row[:8], *row[9:])


def reached(folder: Path, undisturbed: Path, complete: Callable[[Path], int]) -> str:
    """In which stage a killed run stands, told from what it left."""
    if not (folder / "question.json").exists():
        return "question"
    if complete(folder) < ARTIFACTS:
        return "build"
    with opened(folder) as db:
        blocks = Counter(stage for (stage,) in db.execute("SELECT stage FROM blocks"))
        timed = {name for (name,) in db.execute("SELECT name FROM records WHERE kind='timing'")}
    if blocks["screen"] < ARMS * TASKS or (not blocks["aa"] and "screen" not in timed):
        return "screen"
    if blocks["aa"] < 2 * TASKS:
        return "aa"
    if len(rows(folder)) < len(rows(undisturbed)):
        return "certify"
    return "done" if (folder / "report.html").exists() else "conclude"


def told(record: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same: the question, every verdict to the last digit, the decision, the artifacts' bytes."""
    times = ("minutes_more", "explanation")
    decision = {k: record["decision"][k] for k in ("ship", "status", "fallback", "rollback", "best_supported")}
    return {
        "question": record["question_hash"],
        "decision": decision,
        "verdicts": [{k: v for k, v in verdict.items() if k not in times} for verdict in record["verdicts"]],
        "artifacts": {c["name"]: c["artifact"]["hash"] for c in record["candidates"]},
        "screen": [{k: line[k] for k in ("candidate", "n", "accuracy")} for line in record["screen"]],
        "noise": record["noise"],
    }


@pytest.fixture
def question(model: Path, own_words: Path, own_choices: Path, tmp_path: Path) -> list[object]:
    texts = tmp_path / "calibration.txt"
    # The same words, but no prompt of an item: those are refused.
    prompts = [json.loads(line)["prompt"] for line in own_words.read_text(encoding="utf-8").splitlines()]
    texts.write_text("\n".join(" ".join(reversed(p.split())) for p in prompts), encoding="utf-8")
    made = [part for recipe in RECIPES for part in ("--candidate", recipe)]
    margins = ["--margin", "words=20%", "--margin", "preferred=20%"]
    return [
        "decide",
        model,
        *made,
        "--tasks",
        own_words,
        own_choices,
        "--items",
        96,
        "--context",
        64,
        *margins,
        "--calibration",
        texts,
        "--json",
    ]


@pytest.mark.parametrize(
    "each",
    [
        {"build": 1, "screen": 1, "aa": 1, "certify": 1, "conclude": 1},
        pytest.param(
            {"build": 7, "screen": 7, "aa": 7, "certify": 7, "conclude": 2},
            marks=[pytest.mark.long, pytest.mark.timeout(1800)],
        ),
    ],
    ids=["5 kills", "30 kills"],
)
def test_killed_in_every_stage_it_ends_as_undisturbed(
    quantwise: Callable[..., Any],
    complete: Callable[[Path], int],
    question: list[object],
    tmp_path: Path,
    each: dict[str, int],
) -> None:
    calm = quantwise(tmp_path, *question, "--run", "calm")
    assert calm.code == 0, calm.err
    command = [sys.executable, "-m", "quantwise", *map(str, question), "--run", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = Killed(command, tmp_path, environment)
    hits: Counter[str] = Counter()
    for stage, count in each.items():
        for _ in range(count):
            killed.kill_in(stage)
            hits[reached(tmp_path / "killed", tmp_path / "calm", complete)] += 1
    assert not killed.orphans
    assert sum(hits.values()) == sum(each.values())
    # A kill may fall when the stage has just ended; five of seven must have hit.
    least = {stage: 5 if count > 5 else count for stage, count in each.items() if stage != "conclude"}
    assert all(hits[stage] >= count for stage, count in least.items()), (hits, killed.last_lines)
    ended = quantwise(tmp_path, *question, "--run", "killed")
    assert ended.code == 0, ended.err
    assert told(ended.record) == told(calm.record)
    assert json.loads((tmp_path / "killed" / "decision.json").read_text())["verdicts"] == ended.record["verdicts"]
    measured, expected = rows(tmp_path / "killed"), rows(tmp_path / "calm")
    assert [without_logprobs(row) for row in measured] == [without_logprobs(row) for row in expected]
    for row, other in zip(measured, expected, strict=True):
        if row[2] == "preferred":
            # What a server remembers of earlier prompts shows in the fourth decimal.
            assert list(map(float, row[8].split())) == pytest.approx(list(map(float, other[8].split())), abs=0.01)
    assert len({row[:5] for row in measured}) == len(measured)
    assert complete(tmp_path / "killed") == ARTIFACTS
    assert not list((tmp_path / "killed" / "artifacts").glob(".*"))
