"""Questions, items and arms around the fake runtime, for the tests of the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantwise.certify import Certification, Limits
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.errors import RuntimeFailure
from quantwise.core.item import Item
from quantwise.core.progress import Progress, Silent
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions, Session
from quantwise.core.verdict import Verdict
from quantwise.measure import Arm, Bench
from quantwise.settle.pair import settle
from quantwise.store import Store
from quantwise.testing.fake_runtime import FakeRuntime

BASE = Candidate("base", "fake", baseline=True)


def right(ask: Ask) -> str:
    """Every prompt ends in its answer; of choices the first is right."""
    if ask.choices:
        return ask.choices[0]
    return (ask.text or ask.messages[-1].content).split()[-1]


def fake(seed: int = 0, **settings: Any) -> FakeRuntime:
    return FakeRuntime(right, seed=seed, **settings)


def task(name: str = "copy", margin: float = 0.05, items: int = 320, screen: int = 32) -> TaskQuestion:
    return TaskQuestion(name, name, "0", "other", margin, items, screen)


def question(*sources: str, tasks: Sequence[TaskQuestion] = (), **changes: Any) -> Question:
    plain = Question(
        model="m",
        model_hash="0",
        scenario={"name": "laptop", "objective": ["bytes"], "max_p95_seconds": None},
        tasks=tuple(tasks) or (task(),),
        candidates=(BASE, *(Candidate(s, "fake") for s in sources or ("small",))),
        calibration={},
        runtimes={"fake": "fake 1"},
        brought={},
        template_hash=None,
        scorers="1",
    )
    return replace(plain, **changes)


def items(name: str, count: int) -> list[Item]:
    return [
        Item(id=f"{i:05d}", task=name, target=f"w{i}", scorer="exact", prompt=f"In {name} say w{i}")
        for i in range(count)
    ]


def arms(asked: Question, runtime: Any) -> dict[str, Arm]:
    """Every candidate as an arm whose location is its source."""
    return {
        c.name: Arm(c, Artifact(c.source, "server", c.source, 1000), runtime, RuntimeOptions(), None)
        for c in asked.candidates
    }


def certify(
    folder: Path,
    asked: Question,
    runtime: Any,
    *,
    upto: int | None = None,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> dict[tuple[str, str], Verdict]:
    """Run the loop in a folder (going on where it was) and return the verdicts by source and task."""
    with Store(folder, create=True) as store, Bench() as bench:
        store.freeze(asked)
        limits = Limits({t.name: upto or t.items for t in asked.tasks}, deadline)
        Certification(store, asked, arms(asked, runtime), items, limits, bench, progress or Silent()).run()
        return settled(store, asked)


def settled(store: Store, asked: Question) -> dict[tuple[str, str], Verdict]:
    """Verdicts without their minutes, which depend on the machine."""
    return {
        (c.source, t.name): replace(settle(store, asked, c, t), minutes_more=None, explanation="")
        for c in asked.candidates
        if not c.baseline
        for t in asked.tasks
    }


@dataclass
class Watched:
    """A runtime that notes what is opened, closed and asked; a closed session that is asked again fails the test."""

    inner: FakeRuntime
    log: list[tuple[str, str]] = field(default_factory=list)
    opens: Mapping[str, int] = field(default_factory=dict)
    """Location to how often it can be opened; the others always can."""
    name: str = "fake"

    def version(self) -> str:
        return self.inner.version()

    def refuses(self, artifact: Artifact) -> str | None:
        return self.inner.refuses(artifact)

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[Session]:
        where = artifact.location
        if where in self.opens and self.log.count(("open", where)) >= self.opens[where]:
            raise RuntimeFailure(f"{where} is gone")
        with self.inner.open(artifact, options) as session:
            self.log.append(("open", where))
            watched = WatchedSession(session, self.log, where)
            try:
                yield watched
            finally:
                watched.closed = True
                self.log.append(("close", where))


class WatchedSession:
    def __init__(self, inner: Any, log: list[tuple[str, str]], where: str) -> None:
        self._inner, self._log, self._where = inner, log, where
        self.closed = False

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        assert not self.closed
        self._log.append(("ask", self._where))
        replies: list[Reply] = self._inner.ask(asks)
        return replies

    def footprint(self) -> Footprint:
        found: Footprint = self._inner.footprint()
        return found

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        assert not self.closed
        told: list[dict[int, float]] = self._inner.next_token_logprobs(text, top)
        return told


def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves a second whenever the loop or the workbench reads it."""
    ticks = iter(range(10**6))
    for room in ("certify", "workbench"):
        clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))
        monkeypatch.setattr(f"quantwise.{room}.time", clock)


class Killed(Exception):
    """What stands for kill -9."""


class KilledAt:
    """Progress that ends the process at its nth word."""

    def __init__(self, words: int) -> None:
        self._left = words

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        pass

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Killed
