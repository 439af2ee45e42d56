"""A frozen question with the live things that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.item import Item
from quantwise.core.question import Question
from quantwise.core.runtime import Runtime
from quantwise.tasks.task import Task


@dataclass(frozen=True, slots=True)
class Posed:
    """A frozen question with the live things that answer it. ``brought`` are artifacts that exist already, by name.

    A build reads all of ``calibration`` where the user gave the number of samples (``counted``), else as many texts as
    it takes by itself.
    With several models ``parts`` holds, by the name of each, what concerns its candidates alone.
    """

    question: Question
    tasks: Mapping[str, Task]
    model: Path | None
    calibration: Sequence[str]
    runtimes: Mapping[str, Runtime]
    brought: Mapping[str, Artifact]
    template: ChatTemplate | None
    counted: bool = False
    parts: Mapping[str, Posed] = field(default_factory=dict)

    def of(self, candidate: Candidate) -> Posed:
        """What concerns a candidate: its model, calibration texts and template."""
        return self.parts.get(candidate.model, self)

    def certify_items(self, task: str, count: int) -> Sequence[Item]:
        """The first certification items of a task, in the frozen order."""
        return self.tasks[task].supply("certify", count, self.question.seed)

    def screen_items(self, task: str, count: int) -> Sequence[Item]:
        """The screening items of a task; none of them is ever used to certify."""
        return self.tasks[task].supply("screen", count, self.question.seed)
