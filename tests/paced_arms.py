"""The fake runtime with made-up seconds, for the tests of what a solved item costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions
from quantwise.testing.fake_runtime import FakeRuntime


@dataclass(frozen=True)
class Paced:
    """The fake runtime with made-up seconds per answer, by address: 1 s with a tenth of jitter for the baseline."""

    inner: FakeRuntime
    seconds: dict[str, float]
    name: str = "openai"

    def version(self) -> str:
        return self.inner.version()

    def refuses(self, artifact: Artifact) -> str | None:
        return self.inner.refuses(artifact)

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[PacedSession]:
        with self.inner.open(artifact, options) as session:
            yield PacedSession(session, self.seconds[artifact.location])


class PacedSession:
    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def ask(self, asks: list[Ask]) -> list[Reply]:
        jitter = [0.9 + 0.02 * (len(a.text or "") * (i + 1) % 11) for i, a in enumerate(asks)]
        replies = self._inner.ask(asks)
        return [replace(r, seconds=self._seconds * j) for r, j in zip(replies, jitter, strict=True)]

    def footprint(self) -> Footprint:
        found: Footprint = self._inner.footprint()
        return found
