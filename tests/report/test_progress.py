"""Progress: few lines in a log, the time left once it can be known, a terminal left as it was."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from rich.console import Console

from quantwise.report.progress import LiveProgress, PlainProgress, SilentProgress, progress_on, seconds_left


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_come_at_most_every_five_seconds() -> None:
    out, clock = io.StringIO(), Clock()
    with PlainProgress(out, clock=clock) as progress:
        progress.stage("certify", 120)
        for _ in range(60):
            clock.now += 0.5
            progress.advance(1, "q4_0@llamacpp")
        progress.stage("decide", None)
    lines = out.getvalue().splitlines()
    assert lines[0] == "certify: 0 of 120"
    assert lines[1] == "certify: 10 of 120, q4_0@llamacpp, 55 s left"
    assert len(lines) == 1 + 6 + 1 + 2
    assert lines[-3] == "certify: 60 of 120, took 30.0 s"


def test_why_a_stage_ends_early_is_told() -> None:
    out, clock = io.StringIO(), Clock()
    with PlainProgress(out, clock=clock) as progress:
        progress.stage("certify", 94, done=11)
        progress.advance(1, "3 verdicts open")
        clock.now += 1
        progress.advance(0, "every verdict is reached")
        progress.stage("read", 2)
        progress.advance(0, "the first")
        progress.advance(2, "the last")
    assert out.getvalue().splitlines() == [
        "certify: 11 of 94",
        "certify: 12 of 94, every verdict is reached, took 1.00 s",
        "read: 0 of 2",
        "read: 2 of 2, took 0.0 ms",
    ]


def test_a_stage_that_ends_by_the_clock_is_not_said_to_last_longer() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, clock=clock)
    progress.stage("load", 300)
    clock.now += 6
    progress.advance(0, "0 failed", 54)
    clock.now += 6
    progress.advance(12, "2 failed", 48)
    clock.now += 44
    progress.advance(280, "3 failed", 4)
    assert out.getvalue().splitlines()[1:] == [
        "load: 0 of 300, 0 failed, 54 s left",
        "load: 12 of 300, 2 failed, 48 s left",
        "load: 292 of 300, 3 failed, 2 s left",
    ]
    assert "\r" not in out.getvalue()


def test_units_of_an_earlier_run_do_not_flatter_the_pace() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, clock=clock)
    progress.stage("certify", 100, done=90)
    clock.now += 10
    progress.advance(5)
    progress.close()
    progress.close()
    assert out.getvalue().splitlines()[1:] == ["certify: 95 of 100, 10 s left", "certify: 95 of 100, took 10.0 s"]


@pytest.mark.parametrize(("done", "total", "fresh", "elapsed"), [(0, 10, 0, 9.0), (3, None, 3, 9.0), (3, 10, 3, 0.5)])
def test_time_left_is_unknown_until_something_is_known(
    done: int, total: int | None, fresh: int, elapsed: float
) -> None:
    assert seconds_left(done, total, fresh, elapsed) is None


def test_notes_cannot_break_a_line() -> None:
    out, clock = io.StringIO(), Clock()
    progress = PlainProgress(out, every_s=0, clock=clock)
    progress.stage("s", 2)
    progress.advance(1, "two\nlines\x1b[2J")
    assert len(out.getvalue().splitlines()) == 2
    assert "\x1b" not in out.getvalue()


def test_live_bars_show_the_stage_and_close() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with LiveProgress(console) as progress:
        progress.stage("build [red]", 3)
        progress.advance(2, "layers.1")
        progress.stage("screen", None)
        progress.advance()
    text = out.getvalue()
    assert "build [red]" in text
    assert "2/3" in text
    assert text.rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_live_lines_fit_and_a_stage_that_nobody_counts_has_no_amount(width: int) -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=width)) as progress:
        progress.stage("read the question", None)
        progress.stage("build: write artifacts", 12)
        progress.advance(1, "distil+gptq+propagate:q4_k_m")
        progress.stage("certify", 94, done=3)
        progress.advance(0, "every verdict is reached")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()[-3:]
    assert [len(line) <= width for line in shown] == [True] * 3
    assert re.fullmatch(r"· read the question +0:00:00 *", shown[0])
    assert re.match(r"· build: write artifacts +[╸╺━]+ +1/12 +0:00:00", shown[1])
    assert ("every verdict is reached" in shown[2]) == (width == 120)


def test_the_stream_decides() -> None:
    assert isinstance(progress_on(io.StringIO()), PlainProgress)
    assert isinstance(progress_on(io.StringIO(), "silent"), SilentProgress)
    with progress_on(io.StringIO(), "live") as progress:
        assert isinstance(progress, LiveProgress)


def test_reports_need_no_torch() -> None:
    code = (
        "import sys, quantwise.report.page, quantwise.report.terminal, quantwise.report.progress;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
