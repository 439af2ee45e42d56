"""The web page of a decision: one HTML file that needs nothing else, works offline, and computes nothing.

Everything from a model or a user goes through the template's escaping. The page's content security policy allows
exactly the one style sheet and the one script that ship with it, by their hashes, and no request of any kind.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from quantwise.report import charts, notation
from quantwise.report.counter_lines import cache_lines, energy_of
from quantwise.report.flips import choose
from quantwise.report.next_step import next_step
from quantwise.report.reading import MARKS, REASONS, Reading, role, settles
from quantwise.report.server_lines import compared_by_ids, server_lines

_STATUS = {"ship": "Ship", "keep": "Keep the baseline", "unknown": "Unknown"}
_FILTERS = {
    "plain": notation.plain,
    "points": notation.points,
    "interval": notation.interval,
    "margin": notation.margin,
    "at_most": notation.at_most,
    "share": notation.share,
    "size": notation.size,
    "seconds": notation.seconds,
    "count": notation.count,
    "decimal": notation.decimal,
    "evidence": notation.evidence,
    "forecast": notation.forecast,
    "amount": notation.amount,
    "amounts": notation.amounts,
    "shares": notation.shares,
    "sentence": lambda text: text[:1].upper() + text[1:],
}


def _source(name: str) -> str:
    """The text of a file that ships beside this one."""
    return files("quantwise.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """A hash as a content security policy writes it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _finalize(value: Any) -> Any:
    """What is absent reads as unknown; text is made harmless before it is escaped."""
    if value is None:
        return notation.UNKNOWN
    return notation.plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(_FILTERS)
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False, default=str)
    environment.globals.update(server_lines=server_lines, compared_by_ids=compared_by_ids)
    environment.globals.update(cache_lines=cache_lines, energy_of=energy_of)
    environment.globals.update(ratio=notation.ratio, marks=MARKS, reasons=REASONS, role=role, settles=settles)
    return environment


def render(record: Mapping[str, Any], flips: Iterable[Mapping[str, Any]] = ()) -> str:
    """The page of a decision record, as one HTML document to be written in UTF-8.

    ``flips`` are mappings of ``task, item, candidate, baseline, prompt, target, baseline_output, candidate_output,
    baseline_score, candidate_score``; the page carries a few hundred of them and says how many it left out.
    """
    reading = Reading(record)
    shown, all_flips = choose(flips)
    style, script = _source("page.css"), _source("page.js")
    page = _environment().get_template("page.html.jinja")
    return page.render(
        record=record,
        reading=reading,
        then=next_step(reading),
        status=_STATUS.get(str(reading.decision.get("status")), "Unknown"),
        scatter=charts.scatter(reading),
        forests={task["name"]: charts.forest(reading, task) for task in reading.tasks},
        bars=charts.memory(reading),
        letters=charts.letters(reading),
        flips=shown,
        flips_in_all=all_flips,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
