"""The one screen at the end of ``quantwise decide``: the answer, the numbers it rests on, what was ruled out and why.

Everything is readable without colour, at 80 columns, and in a stream that knows only ASCII.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from quantwise.report import notation
from quantwise.report.reading import Reading, Row, role, settles

_STATUS = {"ship": "SHIP", "keep": "KEEP THE BASELINE", "unknown": "UNKNOWN"}
_STYLE = {
    "PASS": "blue",
    "FAIL": "bold red",
    "UNKNOWN": "yellow",
    "ship": "bold blue",
    "keep": "bold",
    "unknown": "bold yellow",
}
_ROLE = {"baseline": "base", "quality only": "quality", "dequantized": "dequant"}
_ROLE_WIDTH, _NAME_WIDTH, _BYTES_WIDTH, _SPEED_WIDTH = 8, 16, 6, 7
_MIN_MARK, _MAX_MARK = 4, 11
_COUNTS_WIDTH = 24
_RULED_OUT, _UNSETTLED = 6, 4
_ASCII = str.maketrans(
    {"−": "-", "·": "|", "…": "~", "→": ">", "×": "x", "≥": ">=", "∞": "inf", "—": "-", "–": "-", "─": "-"}
    | {"⁻": "-", **{raised: str(digit) for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}}
)


class Screen:
    """A record as a rich renderable; it lays itself out for the width it is given."""

    def __init__(self, record: Mapping[str, Any], report_path: str | None = None) -> None:
        self._reading = Reading(record)
        self._report_path = report_path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        reading, width = self._reading, options.max_width
        yield from _answer(reading)
        if reading.candidates:
            yield Text()
            yield from _matrix(reading, width)
        if reading.focus is not None:
            yield Text()
            yield from _focus(reading, width)
        if reading.solved.get("items"):
            yield Text()
            yield from _solved(reading)
        yield Text()
        yield from _rests_on(reading)
        yield from _faults(reading)
        yield from _rest(reading)
        yield from _provenance(reading, self._report_path)


def screen(record: Mapping[str, Any], report_path: str | None = None) -> Screen:
    """The screen of a decision record. ``report_path`` is where the web page was written, if it was."""
    return Screen(record, report_path)


def print_screen(
    record: Mapping[str, Any], file: TextIO, report_path: str | None = None, width: int | None = None
) -> None:
    """Print the screen to ``file``; in colour on a terminal, and in ASCII where the stream's encoding has no more."""
    terminal = file.isatty()
    measured = width or (Console(file=file).width if terminal else 100)
    drawn = io.StringIO()
    Console(
        file=drawn,
        width=measured,
        force_terminal=terminal,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    ).print(screen(record, report_path))
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"
    encoding = getattr(file, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    file.write(text)


def _line(label: str, body: Text | str, style: str = "bold") -> Table:
    """A label of fixed width and text that wraps beside it."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=11, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(label, style=style), body if isinstance(body, Text) else Text(notation.plain(body)))
    return grid


def _answer(reading: Reading) -> Iterator[Table | Text]:
    """The decision first, then why, then what would settle what is open."""
    decision = reading.decision
    status = str(decision.get("status") or "unknown")
    scenario = (reading.question.get("scenario") or {}).get("name")
    model = (reading.question.get("model") or {}).get("name")
    version = reading.record.get("quantwise") or ""
    yield Text(
        f"quantwise {notation.plain(version)} · {notation.shorten(model or 'model unknown', 50)}"
        f" · scenario {notation.shorten(scenario or 'unknown', 20)}",
        style="dim",
    )
    name = decision.get("ship") if status == "ship" else None
    head = _STATUS.get(status, status.upper()) + (f"  {notation.plain(name)}" if name else "")
    yield Text(head, style=_STYLE.get(status, "bold"))
    yield Text(notation.plain(decision.get("headline") or "No decision was recorded."))
    for number, reason in enumerate(decision.get("because") or ()):
        yield _line("" if number else "  because", str(reason), style="dim")
    if status != "ship":
        if decision.get("best_supported"):
            yield _line("  so far", f"best supported: {decision['best_supported']}", style="dim")
        open_rows = reading.unsettled()
        for number, row in enumerate(open_rows[:_UNSETTLED]):
            yield _line("" if number else "  to settle", f"{_pair(row, reading)}: {settles(row)}", style="dim")
        if len(open_rows) > _UNSETTLED:
            yield _line("", f"and {len(open_rows) - _UNSETTLED} more, in the report")


def _pair(row: Row, reading: Reading) -> str:
    """What a verdict is about; the candidate is left out where only one is meant."""
    return str(row["task"]) if reading.focus else f"{row['candidate']} on {row['task']}"


def _matrix(reading: Reading, width: int) -> Iterator[Table | Text]:
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
    yield Text(legend if mark >= len("UNKNOWN") or not wide else legend + "; ? = UNKNOWN", style="dim")


def _longest(reading: Reading) -> int:
    """Characters of the longest name without its runtime."""
    return max(len(str(row.get("source") or row["name"])) + _cache_width(row) for row in reading.candidates)


def _cache_width(candidate: Row) -> int:
    """Characters that a cache scheme adds to a name."""
    cache = candidate.get("cache") or "f16"
    return 0 if cache == "f16" else len(f",kv={cache}")


def _ends(reading: Reading, candidate: Row, cells: list[Text], width: int) -> list[Text]:
    """A row of the matrix: who it is, its marks, its bytes and its seconds."""
    name = str(candidate["name"])
    ships = name == reading.decision.get("ship")
    what = role(candidate)
    label = "SHIP" if ships else _ROLE.get(what, what)
    cache = candidate.get("cache") or "f16"
    cache = "" if cache == "f16" else f",kv={cache}"
    short = notation.shorten(candidate.get("source") or name, max(width - len(cache), 6)) + notation.plain(cache)
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
        return Text(verdict if len(verdict) <= width else "?", style=_STYLE.get(verdict, ""))
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


def _focus(reading: Reading, width: int) -> Iterator[Table | Text]:
    """The numbers behind one candidate: difference, interval and flips per task."""
    focus = reading.focus or ""
    baseline = reading.baseline_of(focus)
    yield Text(f"{notation.plain(focus)} minus {notation.plain(baseline or 'baseline')}", style="dim")
    table = Table(box=None, padding=(0, 2 if width >= 90 else 1, 0, 0), pad_edge=False, header_style="dim")
    for title, side in (
        ("task", "left"),
        ("verdict", "left"),
        ("delta", "right"),
        (f"{reading.level} interval", "right"),
    ):
        table.add_column(title, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for title in ("margin", "worse", "better", "items"):
        table.add_column(title, justify="right", no_wrap=True)
    for task in reading.tasks:
        row = reading.cell(focus, task["name"])
        if row is None:
            continue
        verdict = str(row["verdict"])
        table.add_row(
            Text(notation.shorten(task["name"], 16)),
            Text(verdict, style=_STYLE.get(verdict, "")),
            notation.points(row.get("delta"), unit=row.get("delta") is None),
            notation.interval(row.get("interval")),
            notation.margin(row.get("margin")),
            notation.count(row.get("regressions")),
            notation.count(row.get("improvements")),
            notation.count(row.get("n")),
        )
    yield table


def _rests_on(reading: Reading) -> Iterator[Table | Text]:
    """What verdicts rest on beside what was measured here, each with the candidates whose verdicts do."""
    for number, row in enumerate(reading.record.get("caveats") or ()):
        said = Text.assemble(
            (", ".join(map(notation.plain, row["candidates"])), "bold"), "  ", notation.plain(row["says"])
        )
        yield _line("" if number else "rests on", said)


def _faults(reading: Reading) -> Iterator[Table | Text]:
    """What servers lost, refused or answered only when asked again, where any did."""
    failing = [row for row in reading.record.get("faults") or () if row["lost"] or row["refused"] or row["retried"]]
    for number, row in enumerate(failing):
        counts = ", ".join(
            f"{row[key]} {words}"
            for key, words in (("lost", "lost"), ("refused", "refused"), ("retried", "answered after further tries"))
            if row[key]
        )
        said = f"  of {row['asked']} requests {counts}; for example: {row['example']}"
        yield _line(
            "" if number else "faults", Text.assemble((notation.plain(row["candidate"]), "bold"), notation.plain(said))
        )


def _solved(reading: Reading) -> Iterator[Table | Text]:
    """What a solved item costs with each candidate, beside its baseline on the same items."""
    currency = notation.shorten((reading.solved.get("prices") or {}).get("currency") or "", 12)
    yield Text("cost of a solved item: answers, reruns and review, over the items that end solved", style="dim")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("candidate", no_wrap=True, width=22)
    for title in (currency, "baseline", "ratio", f"{reading.level} interval", "invalid", "unsolved"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in reading.solved["items"]:
        ours, theirs = item["ours"], item["theirs"]
        table.add_row(
            Text(notation.shorten(item["candidate"], 22)),
            notation.amount(ours.get("money")),
            notation.amount(theirs.get("money")),
            notation.amount(item.get("ratio")),
            notation.amounts(item.get("interval")),
            notation.share(ours.get("failing"), 0),
            notation.share(ours.get("unsolved"), 0),
        )
    yield table
    for note in reading.solved_notes:
        yield Text(notation.plain(note), style="dim")


def _rest(reading: Reading) -> Iterator[Table | Text]:
    """Ruled out (candidates with one reason together), fallback, rollback, and what nobody has measured."""
    decision = reading.decision
    ruled_out: dict[str, list[str]] = {}
    for row in decision.get("ruled_out") or ():
        ruled_out.setdefault(notation.plain(row["why"]), []).append(notation.plain(row["candidate"]))
    for number, (why, names) in enumerate(list(ruled_out.items())[:_RULED_OUT]):
        yield _line("" if number else "ruled out", Text.assemble((", ".join(names), "bold"), "  ", why))
    if len(ruled_out) > _RULED_OUT:
        yield _line("", f"and {len(ruled_out) - _RULED_OUT} other reasons, in the report")
    back = Text(notation.plain(decision.get("fallback") or "none"))
    back.append(f"  rollback {notation.plain(decision.get('rollback') or 'none')}")
    yield _line("fallback", back)
    unmeasured = decision.get("unmeasured") or ()
    yield _line("unmeasured", "; ".join(map(str, unmeasured)) if unmeasured else "nothing was listed")


def _provenance(reading: Reading, report_path: str | None) -> Iterator[Table | Text]:
    """What identifies this answer, and where the rest of it is."""
    record = reading.record
    effort = f"{notation.count(record.get('generations'))} generations"
    if notation.finite(record.get("generations_per_s")) is not None:
        effort += f" at {notation.decimal(record['generations_per_s'], 1)} per second"
    yield _line("question", f"{record.get('question_hash') or notation.UNKNOWN} · {effort}")
    if report_path is not None:
        yield _line("report", report_path)
