"""The options of a cache study as one table: for the terminal, and as cells for a page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from quantwise.core.verdict import two_digits
from quantwise.report import notation
from quantwise.report.encoded import write_encoded
from quantwise.report.terminal import ASCII

HEADS = (
    ("cache", "left"), ("attention", "left"), ("cache bytes", "right"), ("compute", "right"),
    ("recall", "right"), ("change", "right"),
    ("verdict", "left"), ("KL at least", "right"), ("p99", "right"), ("same top", "right"), ("reads t/s", "right"),
    ("of the first", "right"), ("writes t/s", "right"), ("of the first", "right"),
)  # fmt: skip
_NAMED_BY = (0, 1)
# Columns that are read beside each other.
_TOGETHER = ((2, 3), (4, 5, 6), (7, 8, 9), (10, 11), (12, 13))


def cells(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row for each option, in the order of HEADS; what is not known reads so, and the first is compared with."""
    return [_cells(option, option["name"] == record["baseline"]) for option in record["options"]]


def _cells(option: Mapping[str, Any], first: bool) -> tuple[str, ...]:
    far, verdict = option["divergence"], option["verdict"]
    log = {None: "?", True: "", False: " *"}[option["as_planned"]]
    return (
        option["cache"],
        "flash" if option["flash_attention"] else "plain",
        f"{notation.size(option['cache_bytes'])} ({option['cache_share']:.2f}){log}",
        notation.size(option["compute_bytes"]),
        notation.share(option["recall"]),
        "" if first else notation.points(verdict["comparison"]["delta"] if verdict else None),
        "" if first else (verdict["verdict"] if verdict else notation.UNKNOWN),
        "" if first else (f"{far['mean_kl']:.1e}" if far else notation.UNKNOWN),
        "" if first else (f"{far['p99_kl']:.1e}" if far else notation.UNKNOWN),
        "" if first else notation.share(far["same_top"] if far else None),
        notation.decimal(option["read_tokens_per_s"], 1),
        "" if first else ratio(option["read_ratio"]),
        notation.decimal(option["written_tokens_per_s"], 1),
        "" if first else ratio(option["written_ratio"]),
    )


def ratio(found: Mapping[str, Any] | None) -> str:
    """``0.81 [0.78, 0.84]``; without its interval where there are too few repeats."""
    if found is None:
        return notation.UNKNOWN
    if found["low"] is None:
        return f"{found['value']:.2f} [{notation.UNKNOWN}]"
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def print_options(record: Mapping[str, Any], file: TextIO, width: int | None = None) -> None:
    """The table, in as many parts as the width asks for, and below it what each verdict rests on."""
    measured = width or (Console(file=file).width if file.isatty() else 100)
    drawn = io.StringIO()
    console = Console(
        file=drawn, width=measured, force_terminal=file.isatty(), highlight=False, markup=False, emoji=False
    )
    rows = [tuple(map(notation.plain, row)) for row in cells(record)]
    console.print(f"{notation.plain(record['model'])}, {record['context']} tokens, {record['runtime']}", soft_wrap=True)
    for columns in _parts(rows, console.width):
        table = Table(box=None, pad_edge=False)
        for column in columns:
            head, side = HEADS[column]
            table.add_column(head, justify="right" if side == "right" else "left", overflow="fold")
        for row in rows:
            table.add_row(*(row[column] for column in columns))
        console.print(table)
    for line in (*lines(record), *_next(record)):
        console.print(line, soft_wrap=True)
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"
    write_encoded(text, file, ASCII)


def _next(record: Mapping[str, Any]) -> Iterator[str]:
    """How many texts would settle what is open, counted from the first."""
    wanted = [
        option["texts"] + two_digits(option["verdict"]["n_more"][1])
        for option in record["options"] if option["verdict"] and option["verdict"].get("n_more")
    ]  # fmt: skip
    if wanted:
        yield f"next: the same command with --documents {max(wanted)} goes on from here"


def _parts(rows: Sequence[tuple[str, ...]], width: int) -> list[list[int]]:
    """Columns of each part: all where they fit, else as many as do behind the two that name an option."""
    wide = [max(len(text) for text in (head, *(row[i] for row in rows))) + 2 for i, (head, _) in enumerate(HEADS)]
    parts: list[list[int]] = []
    for group in _TOGETHER:
        if parts and sum(wide[i] for i in (*parts[-1], *group)) - 2 <= width:
            parts[-1] += group
        else:
            parts.append([*_NAMED_BY, *group])
    return parts


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """What stands below the table."""
    options = record["options"]
    texts = min(option["texts"] for option in options)
    tokens = notation.count(round(record["text_tokens"])) if record["text_tokens"] else notation.UNKNOWN
    yield (
        f"{texts} text{'s' * (texts != 1)} of {tokens} tokens, {record['questions']} questions each; "
        f"the unit of a verdict is a text; margin {notation.margin(record['margin'])}"
    )
    for option in options:
        if option["verdict"]:
            yield f"{option['name']}: {notation.plain(option['verdict']['explanation'])}"
        if option.get("lost"):
            yield f"{option['name']}: {option['lost']} questions got no answer and are not in its recall"
    if any(option["as_planned"] is False for option in options):
        yield "* llama.cpp's log states other bytes; see cache_bytes_logged in --json"
