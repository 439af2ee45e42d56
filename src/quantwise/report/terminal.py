"""The one screen at the end of ``quantwise decide``: the answer, the numbers it rests on, what was ruled out and why.

Everything is readable without colour, at 80 columns, and in a stream that knows only ASCII.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from quantwise.report import notation
from quantwise.report.counter_lines import cache_lines, energy_of
from quantwise.report.encoded import write_encoded
from quantwise.report.endpoint_table import endpoint_table
from quantwise.report.floor_table import floor_table
from quantwise.report.next_step import next_step
from quantwise.report.reading import Reading, Row, settles
from quantwise.report.server_lines import server_lines
from quantwise.report.verdict_matrix import VERDICT_STYLE, matrix

_STATUS = {"ship": "SHIP", "keep": "KEEP THE BASELINE", "unknown": "UNKNOWN"}
_STYLE = {"ship": "bold blue", "keep": "bold", "unknown": "bold yellow"}
_RULED_OUT, _UNSETTLED = 6, 4
ASCII = str.maketrans(
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
            yield from matrix(reading, width)
        if reading.floors:
            yield Text()
            yield from _floors(reading, width)
        if reading.focus is not None:
            yield Text()
            yield from _focus(reading, width)
        if reading.solved.get("items"):
            yield Text()
            yield from _solved(reading, _name_width(width))
        if (reading.record.get("endpoints") or {}).get("pairs"):
            yield Text()
            yield from _endpoints(reading, _name_width(width))
        yield Text()
        yield from _rests_on(reading)
        yield from _faults(reading)
        yield from _servers(reading)
        yield from _counted(reading)
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
    write_encoded(text, file, ASCII)


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
    version = reading.record.get("quantwise") or ""
    yield Text(
        f"quantwise {notation.plain(version)} · {notation.shorten(reading.model or 'model unknown', 50)}"
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
            Text(verdict, style=VERDICT_STYLE.get(verdict, "")),
            notation.points(row.get("delta"), unit=row.get("delta") is None),
            notation.interval(row.get("interval")),
            notation.margin(row.get("margin")),
            notation.count(row.get("regressions")),
            notation.count(row.get("improvements")),
            notation.count(row.get("n")),
        )
    yield table


def _floors(reading: Reading, width: int) -> Iterator[Table | Text]:
    """Each arm by itself, and what decides."""
    decides = "these alone decide" if reading.by_floor else "beside the verdicts above"
    yield Text(f"floors: each arm's mean score by itself; {decides}; bounds hold at every look", style="dim")
    yield floor_table(reading, width)


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


def _servers(reading: Reading) -> Iterator[Table | Text]:
    """What servers do not give, and where prompts could not be compared token by token."""
    for number, (names, said) in enumerate(server_lines(reading.record)):
        named = ", ".join(map(notation.plain, names))
        yield _line("" if number else "servers", Text.assemble((named, "bold"), "  ", notation.plain(said)))


def _counted(reading: Reading) -> Iterator[Table | Text]:
    """Whose energy was metered, and what servers counted of their paged caches."""
    if (whose := energy_of(reading.record)) is not None:
        yield _line("energy", f"joules are those of {whose}")
    for number, (name, said) in enumerate(cache_lines(reading.record)):
        yield _line("" if number else "cache", Text.assemble((notation.plain(name), "bold"), f"  {said}"))


def _name_width(width: int) -> int:
    """Columns for a candidate's name beside figures that fill the rest of 80; a wider screen is given to the names."""
    return 22 + min(max(width - 80, 0), 20)


def _solved(reading: Reading, name_width: int) -> Iterator[Table | Text]:
    """What a solved item costs with each candidate, beside its baseline on the same items."""
    currency = notation.shorten((reading.solved.get("prices") or {}).get("currency") or "", 12)
    yield Text("cost of a solved item: answers, reruns and review, over the items that end solved", style="dim")
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("candidate", no_wrap=True, width=name_width)
    for title in (currency, "baseline", "ratio", f"{reading.solved_level} interval", "invalid", "unsolved"):
        table.add_column(title, justify="right", no_wrap=True)
    for item in reading.solved["items"]:
        ours, theirs = item["ours"], item["theirs"]
        table.add_row(
            Text(notation.shorten(item["candidate"], name_width)),
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


def _endpoints(reading: Reading, name_width: int) -> Iterator[Table | Text]:
    """What was not scored, each beside the baseline's; then what is clearly worse, in words."""
    found = reading.record["endpoints"]
    said = "not scored: change against the baseline, and the candidate's share; only a margin makes one decide"
    yield Text(said, style="dim")
    yield endpoint_table(found["pairs"], reading.focus, name_width)
    for said in found["worse"]:
        yield _line("worse", str(said), style="bold red")


def _rest(reading: Reading) -> Iterator[Table | Text]:
    """Ruled out (candidates with one reason together), fallback, rollback, and what nobody has measured."""
    decision = reading.decision
    yield from _grouped("ruled out", reading.ruled_out)
    yield from _grouped("still open", reading.still_open)
    back = Text(notation.plain(decision.get("fallback") or "none"))
    back.append(f"  rollback {notation.plain(decision.get('rollback') or 'none')}")
    yield _line("fallback", back)
    unmeasured = decision.get("unmeasured") or ()
    yield _line("unmeasured", "; ".join(map(str, unmeasured)) if unmeasured else "nothing was listed")


def _grouped(label: str, rows: Sequence[Row]) -> Iterator[Table | Text]:
    """Candidates with their reasons; those of one reason stand together."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        reasons.setdefault(notation.plain(row["why"]), []).append(notation.plain(row["candidate"]))
    for number, (why, names) in enumerate(list(reasons.items())[:_RULED_OUT]):
        yield _line("" if number else label, Text.assemble((", ".join(names), "bold"), "  ", why))
    if len(reasons) > _RULED_OUT:
        yield _line("", f"and {len(reasons) - _RULED_OUT} other reasons, in the report")


def _provenance(reading: Reading, report_path: str | None) -> Iterator[Table | Text]:
    """What identifies this answer, and where the rest of it is."""
    record = reading.record
    effort = f"{notation.count(record.get('generations'))} generations"
    if notation.finite(record.get("generations_per_s")) is not None:
        effort += f" at {notation.decimal(record['generations_per_s'], 1)} per second"
    yield _line("question", f"{record.get('question_hash') or notation.UNKNOWN} · {effort}")
    if report_path is not None:
        yield _line("report", report_path)
    if (then := next_step(reading)) is not None:
        yield _line("next", then)
