"""Live progress on standard error: what, how many of how many, and the time left.

Rooms below this one are given a `core.progress.Progress` and never import these classes. Use them in a ``with``, which
ends the last stage and gives the terminal back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.progress_bar import ProgressBar
from rich.text import Text

from quantwise.core.progress import Silent
from quantwise.report import notation

_NAME_WIDTH, _BAR_WIDTH = 24, 10
# What stands before the note: spinner, name, bar, amount, time, time left.
_BEFORE_NOTE = _NAME_WIDTH + _BAR_WIDTH + 28
_SHORTEST_NOTE = 10
_WARM_UP_S = 2.0


class _Closing:
    """Closes itself at the end of a ``with``."""

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abandon()
        self.close()

    def abandon(self) -> None:
        """An error ends the stage; it is no news how long that took."""


class SilentProgress(_Closing, Silent):
    """Says nothing."""


def seconds_left(
    done: int, total: int | None, fresh: int, elapsed: float, at_most_s: float | None = None
) -> float | None:
    """Time left at the average pace of the ``fresh`` units of this run, ``at_most_s`` where that is known; None while
    nobody can know."""
    if total is None or fresh <= 0 or elapsed < _WARM_UP_S:
        return at_most_s
    left = max(total - done, 0) * elapsed / fresh
    return left if at_most_s is None else min(left, at_most_s)


class PlainProgress(_Closing):
    """Lines for logs and pipes: one when a stage begins, at most one every ``every_s`` seconds, one when it ends."""

    def __init__(self, file: TextIO, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._every_s, self._clock = file, every_s, clock
        self._name: str | None = None
        self._remark = ""
        self._total: int | None = None
        self._done = self._fresh = 0
        self._began = self._said = 0.0

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """Ends the stage before and announces this one."""
        self._end()
        self._name, self._total, self._done, self._fresh, self._remark = name, total, done, 0, ""
        self._began = self._said = self._clock()
        self._say(f"{name}: {self._amount()}" if total is not None else f"{name} ...")

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        """Counts, and speaks when it is time again. A note on no progress is repeated where the stage ends with it."""
        self._remark = "" if n else note
        self._done += n
        self._fresh += n
        now = self._clock()
        if self._name is None or now - self._said < self._every_s:
            return
        self._said = now
        left = seconds_left(self._done, self._total, self._fresh, now - self._began, at_most_s)
        parts = [f"{self._name}: {self._amount()}", note, "" if left is None else f"{notation.countdown(left)} left"]
        self._say(", ".join(part for part in parts if part))

    def abandon(self) -> None:
        """Nothing is said of the stage that an error ended."""
        self._name = None

    def close(self) -> None:
        """Ends the last stage."""
        self._end()

    def _end(self) -> None:
        if self._name is not None:
            amount = self._amount() if self._total is not None or self._done else ""
            remark = self._remark if self._total is not None and self._done < self._total else ""
            took = f"took {notation.seconds(self._clock() - self._began)}"
            self._say(f"{self._name}: {', '.join(part for part in (amount, remark, took) if part)}")
        self._name = None

    def _amount(self) -> str:
        return notation.count(self._done) + ("" if self._total is None else f" of {notation.count(self._total)}")

    def _say(self, text: str) -> None:
        line = " ".join(notation.plain(text).split())
        encoding = getattr(self._file, "encoding", None) or "utf-8"
        self._file.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        self._file.flush()


class _TimeLeft(TextColumn):
    """Time left by the same rule as in plain lines, so that both say the same."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Bar) -> Text:
        """One cell: nothing once the stage has ended."""
        if task.finished or task.stop_time is not None:
            return Text("")
        done = int(task.completed)
        total = None if task.total is None else int(task.total)
        fresh, most = done - int(task.fields["before"]), task.fields["at_most_s"]
        left = seconds_left(done, total, fresh, task.elapsed or 0.0, most)
        return Text("" if left is None else f"{notation.countdown(left)} left", style="cyan")


class _Spinner(SpinnerColumn):
    """It turns while the stage lasts, counted or not."""

    def render(self, task: Bar) -> RenderableType:
        """One cell."""
        return Text("·") if task.stop_time is not None else super().render(task)


class _Bar(BarColumn):
    """Nothing where nobody counted and the stage has ended."""

    def render(self, task: Bar) -> ProgressBar | Text:  # type: ignore[override]
        """One cell."""
        return Text("") if task.total is None and task.stop_time is not None else super().render(task)


class _Amount(MofNCompleteColumn):
    """Nothing where nobody counts."""

    def render(self, task: Bar) -> Text:
        """One cell."""
        return Text("") if task.total is None else super().render(task)


class LiveProgress(_Closing):
    """One bar per stage on a terminal; the bars of earlier stages stay."""

    def __init__(self, console: Console) -> None:
        self._note_width = min(60, console.width - _BEFORE_NOTE)
        self._remark = ""
        self._bars = Bars(
            _Spinner(finished_text="·"),
            TextColumn("{task.description}", markup=False),
            _Bar(bar_width=_BAR_WIDTH),
            _Amount(),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
            console=console,
        )
        self._bar: TaskID | None = None
        self._bars.start()

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """Stops the clock of the stage before and opens a bar."""
        self._end()
        label = notation.shorten(name, _NAME_WIDTH)
        self._bar = self._bars.add_task(label, total=total, completed=done, note="", before=done, at_most_s=None)

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        """Moves the bar of the present stage."""
        if self._bar is not None:
            self._remark = "" if n else note
            self._bars.update(self._bar, advance=n, note=self._fitting(note), at_most_s=at_most_s)

    def close(self) -> None:
        """Gives the terminal back as it was."""
        self._end()
        self._bars.stop()

    def _fitting(self, note: str) -> str:
        return notation.shorten(note, self._note_width) if self._note_width >= _SHORTEST_NOTE else ""

    def _end(self) -> None:
        if self._bar is not None:
            self._bars.update(self._bar, note=self._fitting(self._remark))
            self._bars.stop_task(self._bar)
        self._bar, self._remark = None, ""


def progress_on(
    file: TextIO, mode: Literal["auto", "live", "plain", "silent"] = "auto"
) -> SilentProgress | PlainProgress | LiveProgress:
    """Progress that suits the stream: bars on a terminal, lines elsewhere, or nothing. Use it in a ``with``."""
    if mode == "silent":
        return SilentProgress()
    if mode == "plain" or (mode == "auto" and not file.isatty()):
        return PlainProgress(file)
    return LiveProgress(Console(file=file, force_terminal=True if mode == "live" else None))
