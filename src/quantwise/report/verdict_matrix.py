"""Candidates by tasks with the verdict of each pair, for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from quantwise.report import notation
from quantwise.report.reading import Reading, Row, role

VERDICT_STYLE = {"PASS": "blue", "FAIL": "bold red", "UNKNOWN": "yellow"}
_ROLE = {"baseline": "base", "quality only": "quality", "dequantized": "dequant"}
_ROLE_WIDTH, _NAME_WIDTH, _BYTES_WIDTH, _SPEED_WIDTH = 8, 16, 6, 7
_MIN_MARK, _MAX_MARK = 4, 11
_COUNTS_WIDTH = 24


def matrix(reading: Reading, width: int) -> Iterator[Table | Text]:
    """Candidates by tasks, grouped by runtime; counts instead of marks where the tasks do not fit side by side."""
    tasks = reading.tasks
    fixed = _ROLE_WIDTH + _NAME_WIDTH + _BYTES_WIDTH + _SPEED_WIDTH + 2
    mark = (width - fixed) // max(len(tasks), 1) - 1
    wide = mark >= _MIN_MARK
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    spare = width - fixed - (len(tasks) * (min(mark, _MAX_MARK) + 1) if wide else _COUNTS_WIDTH)
    names = _NAME_WIDTH + max(min(spare, _longest(reading) - _NAME_WIDTH), 0)
    table.add_column(" " * _ROLE_WIDTH + "candidate", width=_ROLE_WIDTH + names, no_wrap=True)
    if wide:
        mark = min(mark, _MAX_MARK)
        for task in tasks:
            table.add_column(notation.plain(task["name"])[:mark], width=mark, no_wrap=True)
    else:
        table.add_column("verdicts", overflow="fold")
    table.add_column("bytes", width=_BYTES_WIDTH, justify="right", no_wrap=True)
    table.add_column("s/item", width=_SPEED_WIDTH, justify="right", no_wrap=True)
    runtime: object = None
    for candidate in reading.candidates:
        if candidate.get("runtime") != runtime:
            runtime = candidate.get("runtime")
            table.add_row(Text(notation.shorten(f"in {runtime}", _ROLE_WIDTH + names), style="dim"))
        cells = [_mark(reading, candidate, task, mark) for task in tasks] if wide else [_counts(reading, candidate)]
        table.add_row(*_ends(reading, candidate, cells, names))
    yield table
    legend = "bytes: share of the baseline's; base rows: accuracy in %; · not compared"
    if reading.by_floor:
        legend = f"shown only, the floors decide; {legend}"
    yield Text(legend if mark >= len("UNKNOWN") or not wide else legend + "; ? = UNKNOWN", style="dim")


def _longest(reading: Reading) -> int:
    """Characters of the longest name without its runtime."""
    return max(len(_short(row)) + _cache_width(row) for row in reading.candidates)


def _short(candidate: Row) -> str:
    """A name without its runtime and cache: the source, behind its model where there are several."""
    if not candidate.get("source"):
        return str(candidate["name"])
    return f"{candidate['model']}:{candidate['source']}" if candidate.get("model") else str(candidate["source"])


def _cache_width(candidate: Row) -> int:
    """Characters that a cache scheme adds to a name."""
    cache = candidate.get("cache") or "f16"
    return 0 if cache == "f16" else len(f",kv={cache}")


def _ends(reading: Reading, candidate: Row, cells: list[Text], width: int) -> list[Text]:
    """A row of the matrix: who it is, its marks, its bytes and its seconds."""
    name = str(candidate["name"])
    ships = name == reading.decision.get("ship")
    what = role(candidate)
    label = ("KEEP" if candidate.get("baseline") else "SHIP") if ships else _ROLE.get(what, what)
    cache = candidate.get("cache") or "f16"
    cache = "" if cache == "f16" else f",kv={cache}"
    short = notation.shorten(_short(candidate), max(width - len(cache), 6)) + notation.plain(cache)
    baseline = reading.baseline_of(name)
    own, whole = reading.artifact_bytes(name), reading.artifact_bytes(baseline)
    absolute = name == baseline or whole is None or own is None
    size = notation.brief_size(own) if absolute else notation.ratio(own, whole).replace(" ", "")
    speed = notation.finite(reading.cost(name).get("seconds_per_item"))
    timed = notation.UNKNOWN if speed is None else f"{speed:.3g}" if speed < 1000 else f"{speed:.0f}"
    style = "bold" if ships else ""
    named = Text.assemble((f"{label:<{_ROLE_WIDTH}}", style or "dim"), (short, style))
    return [named, *cells, Text(size), Text(timed)]


def _mark(reading: Reading, candidate: Row, task: Row, width: int) -> Text:
    """PASS, FAIL or UNKNOWN; for a baseline its accuracy, which is what the others are held against."""
    row = reading.cell(candidate["name"], task["name"])
    if row is not None:
        verdict = str(row["verdict"])
        return Text(verdict if len(verdict) <= width else "?", style=VERDICT_STYLE.get(verdict, ""))
    mean = notation.finite(((candidate.get("accuracy") or {}).get(task["name"]) or {}).get("mean"))
    if candidate.get("baseline") and mean is not None:
        return Text(f"{100 * mean:.0f}%", style="dim")
    return Text("·", style="dim")


def _counts(reading: Reading, candidate: Row) -> Text:
    """Verdicts counted, with the tasks of those that are no PASS."""
    rows = [row for task in reading.tasks if (row := reading.cell(candidate["name"], task["name"])) is not None]
    if not rows:
        return Text("·", style="dim")
    parts = []
    for verdict in ("PASS", "FAIL", "UNKNOWN"):
        named = [notation.plain(row["task"]) for row in rows if row["verdict"] == verdict]
        if named:
            parts.append(f"{verdict} {len(named)}" + ("" if verdict == "PASS" else f" ({', '.join(named)})"))
    return Text(", ".join(parts))
