"""A plan on a terminal: the answer first, then a bar and a line for each candidate, then what would make it fit.

Bars stand for the limit from end to end: weights, cache, compute, overhead. Readable without colour and in ASCII.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from quantwise.report import notation
from quantwise.report.encoded import write_encoded
from quantwise.report.plan_lines import cost, devices, failure, interval, layouts, offload
from quantwise.report.training_lines import training, training_head

_PARTS = (("weights", "█", "#"), ("cache", "▓", "="), ("compute", "▒", "-"), ("overhead", "░", ":"))
_WIDTH = 20
# Narrower, the table would be cut.
_LEAST = 110
_FITS = {"yes": "blue", "marginal": "yellow", "no": "bold red", "unknown": "yellow"}
_WORDS = {"yes": "fits", "marginal": "may fit", "no": "does not fit", "unknown": "unknown"}
_ASCII = str.maketrans({mark: plain for _, mark, plain in _PARTS} | {"·": ".", "–": "-", "…": "~", "−": "-"})


def print_plan(record: Mapping[str, Any], file: TextIO) -> None:
    """Print a record of ``quantwise plan``: of one model, of training, of a family, or of a refit."""
    terminal = file.isatty()
    drawn = io.StringIO()
    width = max(_LEAST, Console(file=file).width) if terminal else _LEAST
    console = Console(
        file=drawn, width=width, force_terminal=terminal, highlight=False, markup=False, emoji=False,
        legacy_windows=False,
    )  # fmt: skip
    draw = (
        _frontier if "frontier" in record else _training if "training" in record
        else _refit if "kept_in" in record else _plan
    )  # fmt: skip
    for part in draw(record):
        console.print(part)
    text = "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"
    write_encoded(text, file, _ASCII)


def _plan(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(
        f"{notation.shorten(record['model'], 40)} · {_parameters(record)} · {record['runtime']} at {record['site']} · "
        f"{_requests(record)}",
        style="dim",
    )
    yield Text(notation.plain(record["headline"]), style=_FITS[record["fits"]])
    yield Text()
    yield _candidates(record)
    yield Text(f"{'':2}{_legend()}   the bar's length is the limit", style="dim")
    for name, why in record["refused"].items():
        yield Text(f"  {name}: {notation.plain(why)}", style="yellow")
        if fixes := record["refused_fixes"][name]:
            yield Text(f"  {'':{len(name)}}  instead: {' or '.join(fix['what'] for fix in fixes)}", style="dim")
    yield from _fixes(record)
    for label, body in (*failure(record), *offload(record), *devices(record)):
        yield _line(label, body)
    if record["fits"] != "no":  # nobody serves a request, or waits for one, with what does not fit
        yield from _capacity(record)
        yield from _speed(record)
        if (fewer := record["fewer_bits"]) is not None and fewer["gains"]:
            yield _line("", f"with {fewer['candidate']} {'; '.join(fewer['gains'])}")
        yield from layouts(record)
        for label, body in cost(record):
            yield _line(label, body)
    yield from _what_if(record)
    for note in record["notes"]:
        yield _line("note", note)
    yield _line("quality", record["quality"])


def _candidates(record: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("precision", ">bits", ">weights", ">cache", ">compute", ">process", ">total", "", "", ">tokens/s"):
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    for row in record["candidates"]:
        compute = row["compute_bytes"]
        # What does not fit serves nobody, however fast.
        speed = None if row["fits"] == "no" else row["decode_tokens_per_s"]
        table.add_row(
            Text(notation.shorten(row["scheme"], 24), style="bold" if row["candidate"] == record["candidate"] else ""),
            notation.decimal(row["bits_per_weight"]),
            notation.size(row["weights_bytes"]),
            notation.size(row["kv_cache_bytes"]),
            notation.size(None if compute is None else compute[1]),
            notation.size(row["overhead_bytes"]),
            notation.size(row["total_bytes"]),
            _bar(row),
            Text(_WORDS[row["fits"]], style=_FITS[row["fits"]]),
            notation.UNKNOWN if speed is None else interval(speed),
        )
    return table


def _bar(row: Mapping[str, Any]) -> Text:
    """Cells in proportion to the limit; what is above it is cut, and marked."""
    least = row["total_bytes"] or row["total_bytes_at_least"]
    limit = row["limit_bytes"] or least or 1
    compute = (row["compute_bytes"] or (0, 0))[1]
    parts = (row["weights_bytes"], row["kv_cache_bytes"], compute, row["overhead_bytes"])
    drawn, reached = "", 0.0
    for (_, mark, _plain), amount in zip(_PARTS, parts, strict=True):
        reached += _WIDTH * amount / limit
        drawn += mark * max(0, min(_WIDTH, round(reached)) - len(drawn))
    over = least > limit
    return Text(drawn.ljust(_WIDTH, "·") + (">" if over else "|"), no_wrap=True)


def _legend() -> str:
    return "  ".join(f"{mark} {name}" for name, mark, _ in _PARTS)


def _fixes(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    shown = [row for row in record["candidates"] if row["fixes"]]
    for number, row in enumerate(shown):
        for place, fix in enumerate(row["fixes"]):
            label = "to fit" if number == 0 and place == 0 else ""
            name = row["scheme"] if place == 0 else ""
            yield _line(label, f"{name:12} {fix['what']}")


def _capacity(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    found, asked = record["concurrency"], record["requests_at_a_time"]
    if found is None:
        return
    room, promised = notation.count(found["theoretical"]), notation.count(found["promised"])
    told = (
        f"{room} of {notation.count(record['context'])} tokens surely have room beside "
        f"{record['candidate']}; promise {promised} at a time, so that random arrivals seldom wait"
    )
    if asked > found["theoretical"]:
        told += f"; the {asked} asked for have room only where buffers take their least"
    elif asked > found["promised"]:
        told += f"; the {asked} asked for have room, but if so many came on average, some would wait"
    yield _line("requests", told)


def _speed(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    decode, prefill = record["decode_tokens_per_s"], record["prefill_tokens_per_s"]
    told = [
        f"decode {'unknown' if decode is None else interval(decode) + ' tokens/s a request'}",
        f"prompt {'unknown' if prefill is None else interval(prefill) + ' tokens/s'}",
    ]
    if record["decode_bound_by"] != "unknown":
        told.append(f"{record['decode_bound_by']} bind")
    if record["operations_bind_from_requests"]:
        told.append(f"from {record['operations_bind_from_requests']} requests at a time operations do")
    yield _line("speed", "; ".join(told) + f" ({record['speed_source']})")


def _what_if(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    told = [f"{one['change']}: {notation.size(one['kv_cache_bytes'])}" for one in record["what_if"]]
    if told:
        yield _line("cache if", "; ".join(told))


def _frontier(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    limit = notation.size(record["limit_bytes"])
    yield Text(
        f"{', '.join(record['models'])} · {record['runtime']} at {record['site']}, {limit} · {_requests(record)}",
        style="dim",
    )
    if record["devices"] > 1:
        yield Text(f"{record['devices']} such devices; weights are of all, totals of the fullest one", style="dim")
    rows = [row for row in record["frontier"] if row["on_frontier"]]
    for name in record["models"]:
        if not any(row["model"] == name for row in rows):
            yield Text(notation.plain(f"{name}: {_absence(record, name)}"), style="yellow")
    if not rows:
        return
    beside = any(row["host_bytes"] for row in rows)
    table = Table(box=None, pad_edge=False, header_style="dim")
    host = (">with the host",) if beside else ()
    for name in ("model", "scheme", ">bits", "cache", ">weights", ">longest context", ">total", "", *host):
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            notation.shorten(row["model"], 24),
            row["scheme"],
            notation.decimal(row["bits_per_weight"]),
            row["cache"],
            notation.size(row["weights_bytes"]),
            notation.count(row["longest_context"]),
            notation.size(row["total_bytes"]),
            _share_bar(row["total_bytes"], record["limit_bytes"]),
            *([notation.size(row["host_bytes"] or 0)] if beside else []),
        )
    yield table
    yield Text("Shown are the combinations of which no other of the same model has all of: as many bits of weights and "
               "of cache, and as long a context.", style="dim")  # fmt: skip
    for note in record["notes"]:
        yield _line("note", note)
    yield _line("quality", record["quality"])


def _absence(record: Mapping[str, Any], name: str) -> str:
    """Why a family's table has no row of a model."""
    if name in record["refused"]:
        return str(record["refused"][name])
    mine = [row for row in record["frontier"] if row["model"] == name]
    unknown = next((row["why"] for row in mine if row["fits"] == "unknown"), None)
    if unknown is not None:
        return f"unknown ({unknown})"
    told = next((f" ({row['why']})" for row in mine if row["why"]), "")
    tokens = f"{notation.count(record['least_context'])} tokens"
    return f"nothing fits into {notation.size(record['limit_bytes'])} with {tokens}{told}"


def _share_bar(part: int, whole: int) -> Text:
    return Text(("█" * round(_WIDTH * min(part / whole, 1))).ljust(_WIDTH, "·") + "|")


def _training(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(training_head(record), style="dim")
    total, limit = notation.size(record["total_bytes"]), notation.size(record["limit_bytes"])
    yield Text(
        f"{_WORDS[record['fits']]}: {notation.size(record['total_bytes_at_least'])} to {total} of {limit}",
        style=_FITS[record["fits"]],
    )
    for label, text in (*training(record), *failure(record)):
        yield _line(label, text)


def _refit(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    yield Text(f"{record['runtime']} {record['version']}: refitted from {record['source']}")
    yield _line("predicted", f"over logged: {record['before']:.3f} before, {record['after']:.3f} now")
    for name, value in record["numbers"].items():
        yield _line(name, str(value))
    yield _line("kept in", record["kept_in"])


def _line(label: str, body: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=9, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(label, style="bold"), Text(notation.plain(body)))
    return grid


def _parameters(record: Mapping[str, Any]) -> str:
    total, active = record["parameters"], record["active_parameters"]
    told = f"{_short(total)} parameters"
    return told if active > 0.6 * total else f"{told}, {_short(active)} active"


def _short(amount: int) -> str:
    for unit, length in (("B", 10**9), ("M", 10**6)):
        if amount >= length:
            return f"{amount / length:.2f}{unit}"
    return notation.count(amount)


def _requests(record: Mapping[str, Any]) -> str:
    count = record["requests_at_a_time"]
    many = f"{count} request{'' if count == 1 else 's'} at a time"
    return f"{many} of {notation.count(record['context'])} tokens" if "context" in record else many
