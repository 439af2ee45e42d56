"""Where the marks of a figure go: record values to positions in per cent of a plot. Layout only, no statistics.

Positions run from 0 (left, top) to 100 (right, bottom), so that a figure keeps its line widths and letters at any size.
What lies outside a window is drawn at its edge with an arrow, and its number stands in the table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quantwise.report import notation
from quantwise.report.reading import Reading, Row, role

#: A forest plot shows at least this many margins left of zero, the scatter fewer; neither more than ``_MOST_MARGINS``.
_FOREST_MARGINS, _SCATTER_MARGINS, _MOST_MARGINS = 3.0, 1.4, 8.0
#: Points of the scatter nearer than this (in per cent of its width) are moved apart, each by ``_DODGE_PX`` pixels.
_NEAR, _DODGE_PX = 6.0, 22


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled position on an axis, in per cent."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One estimate with its interval, in per cent along the axis of differences; None where nothing is known."""

    name: str
    verdict: str
    at: float | None
    low: float | None
    high: float | None
    past_low: bool
    past_high: bool


@dataclass(frozen=True, slots=True)
class Axis:
    """A window of values. ``flipped`` runs from top to bottom with the largest value on top."""

    low: float
    high: float
    flipped: bool = False

    def at(self, value: float) -> float:
        """Position in per cent, held inside the window."""
        part = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return round(100 * (1 - part if self.flipped else part), 2)

    def mark(self, name: str, verdict: str, delta: object, bounds: Sequence[object] | None) -> Mark:
        """An estimate with its interval on this axis."""
        value = notation.finite(delta)
        ends = [notation.finite(end) for end in bounds] if bounds is not None and len(bounds) == 2 else [None, None]
        low, high = ends
        return Mark(
            name,
            verdict,
            None if value is None else self.at(value),
            None if low is None else self.at(low),
            None if high is None else self.at(high),
            any(end is not None and end < self.low for end in (value, low)),
            any(end is not None and end > self.high for end in (value, high)),
        )

    def ticks(self, step: float) -> list[Tick]:
        """Ticks at multiples of ``step``, in percentage points."""
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [Tick(self.at(k * step), _tick_label(k * step)) for k in range(first, last + 1)]


def _tick_label(value: float) -> str:
    """Percentage points without needless decimals; zero without a sign."""
    return f"{100 * value:+.4g}".replace("-", notation.MINUS) if value else "0"


@dataclass(frozen=True, slots=True)
class Forest:
    """One task's plot: an axis of differences, and a mark per candidate."""

    ticks: list[Tick]
    zero: float
    margin: float | None
    marks: dict[str, Mark]


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate in the scatter: ``x`` in per cent, moved sideways by ``shift`` pixels so that it can be seen."""

    letter: str
    name: str
    kind: str
    x: float
    shift: int
    mark: Mark


@dataclass(slots=True)
class Scatter:
    """Quality against bytes; candidates that lack one of the two are listed and not drawn."""

    points: list[Point] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    margins: list[Tick] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a memory bar, in per cent of the widest bar."""

    kind: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Memory of one candidate; parts that nobody knows are missing from ``segments``."""

    name: str
    segments: list[Segment]
    peak: float | None
    footprint: Row


def nice_step(span: float, about: int) -> float:
    """The 1, 2 or 5 times a power of ten that cuts ``span`` into about that many parts."""
    rough = (span if span > 0 else 1.0) / about
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * 1.0000001)


def letters(reading: Reading) -> dict[str, str]:
    """A short mark for every candidate: A to Z, then AA, AB and so on."""
    marks = {}
    for number, row in enumerate(reading.candidates):
        head = chr(64 + number // 26) if number >= 26 else ""
        marks[str(row["name"])] = head + chr(65 + number % 26)
    return marks


def forest(reading: Reading, task: Row) -> Forest:
    """The plot of one task. The window is counted in margins, so the margin line stands alike in most plots."""
    rows = [row for row in reading.verdicts if row["task"] == task["name"]]
    margin = notation.finite(task.get("margin"))
    axis = _window([row for row in rows if row["verdict"] != "FAIL"] or rows, margin, _FOREST_MARGINS)
    marks = {row["candidate"]: axis.mark(row["candidate"], row["verdict"], row.get("delta"), row.get("interval"))
             for row in rows}  # fmt: skip
    ticks = axis.ticks(nice_step(axis.high - axis.low, 6))
    return Forest(ticks, axis.at(0.0), None if margin is None else axis.at(-margin), marks)


def _window(rows: Sequence[Row], margin: float | None, least: float) -> Axis:
    """A window of differences that holds zero, the margin, and the intervals as far as the margin allows."""
    ends = [value for row in rows for value in _ends(row)]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if not margin:
        span = max(abs(low), abs(high), 0.01)
        return Axis(-1.1 * span, 1.1 * span)
    left = min(max(-low / margin, least), _MOST_MARGINS)
    right = min(max(high / margin, least / 2), _MOST_MARGINS)
    return Axis(-1.08 * left * margin, 1.08 * right * margin)


def _ends(row: Row) -> list[float]:
    """The finite numbers among a row's difference and interval."""
    values = [row.get("delta"), *(row.get("interval") or ())]
    return [number for value in values if (number := notation.finite(value)) is not None]


def scatter(reading: Reading) -> Scatter:
    """Overall difference from the own baseline against bytes on disk, one point per candidate."""
    chart, marks = Scatter(), letters(reading)
    drawn: list[tuple[Row, int, Row]] = []
    for candidate in reading.candidates:
        name, size = str(candidate["name"]), reading.artifact_bytes(str(candidate["name"]))
        overall: dict[str, Any] = dict(candidate.get("overall") or {})
        if candidate.get("baseline"):
            overall = {"delta": 0.0, "interval": None, "verdict": "BASELINE"}
        lacking = [what for what, value in (("bytes", size), ("difference", overall.get("delta"))) if value is None]
        if size is None or lacking:
            chart.left_out.append((name, " and ".join(lacking) + " unknown"))
        else:
            drawn.append((candidate, size, overall))
    if not drawn:
        return chart
    margins = sorted({m for task in reading.tasks if (m := notation.finite(task.get("margin")))})
    calm: list[Row] = [
        overall for row, _, overall in drawn if overall.get("verdict") != "FAIL" and not row.get("control")
    ]
    near = _window(calm, margins[-1] if margins else None, _SCATTER_MARGINS)
    y_axis = Axis(near.low, near.high, flipped=True)
    x_axis = Axis(0.0, 1.06 * max(size for _, size, _ in drawn) or 1.0)
    for candidate, size, seen in drawn:
        name, verdict = str(candidate["name"]), str(seen.get("verdict") or "UNKNOWN")
        mark = y_axis.mark(name, verdict, seen.get("delta"), seen.get("interval"))
        chart.points.append(Point(marks[name], name, role(candidate), x_axis.at(size), 0, mark))
    chart.points = _apart(chart.points)
    chart.y_ticks = y_axis.ticks(nice_step(y_axis.high - y_axis.low, 7))
    chart.x_ticks = _byte_ticks(x_axis)
    named = {margins[0]: "tightest margin", margins[-1]: "widest margin"} if len(margins) > 1 else {}
    for value in sorted({margins[0], margins[-1]}) if margins else []:
        chart.margins.append(Tick(y_axis.at(-value), f"{named.get(value, 'margin')} {notation.margin(value)}"))
    return chart


def _apart(points: list[Point]) -> list[Point]:
    """Neighbours with nearly equal bytes, moved apart by a fixed number of pixels around their middle."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda p: p.x):
        if groups and point.x - groups[-1][-1].x < _NEAR:
            groups[-1].append(point)
        else:
            groups.append([point])
    moved = {
        point.name: Point(
            point.letter, point.name, point.kind, point.x, round((k - (len(group) - 1) / 2) * _DODGE_PX), point.mark
        )
        for group in groups
        for k, point in enumerate(group)
    }
    return [moved[point.name] for point in points]


def _byte_ticks(axis: Axis) -> list[Tick]:
    """Ticks at round numbers of the binary unit that suits the axis."""
    power = max(min(math.floor(math.log(max(axis.high, 1.0), 1024)), 4), 0)
    step, unit = nice_step(axis.high / 1024.0**power, 5), ("B", "KiB", "MiB", "GiB", "TiB")[power]
    last = math.floor(axis.high / 1024.0**power / step)
    return [Tick(axis.at(k * step * 1024.0**power), f"{k * step:.4g} {unit}" if k else "0") for k in range(last + 1)]


def memory(reading: Reading) -> list[Bar]:
    """Measured memory per candidate: weights, cache and compute buffers end to end, and the process peak as a line."""
    parts = ("weights", "cache", "compute")
    rows = [(str(row["name"]), row.get("footprint") or {}) for row in reading.candidates]
    known = {
        name: {part: value for part in parts if (value := notation.finite(row.get(f"{part}_bytes"))) is not None}
        for name, row in rows
    }
    peaks = {name: notation.finite(row.get("peak_process_bytes")) for name, row in rows}
    widest = max(
        [sum(found.values()) for found in known.values()] + [peak or 0.0 for peak in peaks.values()], default=0
    )
    axis = Axis(0.0, 1.02 * widest or 1.0)
    bars = []
    for name, row in rows:
        segments, start = [], 0.0
        for part, value in known[name].items():
            segments.append(Segment(part, axis.at(start), round(axis.at(start + value) - axis.at(start), 2)))
            start += value
        peak = peaks[name]
        bars.append(Bar(name, segments, None if peak is None else axis.at(peak), row))
    return bars
