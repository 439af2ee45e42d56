"""Scorers: how an answer becomes a score in [0, 1]. The table `SCORERS` at the end lists all of them.

A scorer is a small pure function of the item and the raw output. Changing what any of them returns changes verdicts, so
`SCORERS_VERSION` is part of the question.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from functools import lru_cache
from typing import Any

from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.item import Item
from quantwise.tasks.json_answers import read_json, same_value, satisfies, schema_problem, unfenced
from quantwise.tasks.number_answers import read_number, target_number
from quantwise.tasks.program_answers import program_problem, program_readable, program_right
from quantwise.tasks.tool_answers import calls_right, read_calls, tools_problem

SCORERS_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Scorer:
    """``score`` and ``readable`` take (item, output); ``problem`` says what is wrong with an item, or None.

    ``options`` lists every option that an item may give it.
    """

    score: Callable[[Item, str], float]
    readable: Callable[[Item, str], bool]
    problem: Callable[[Item], str | None]
    options: frozenset[str]


def score(item: Item, output: str) -> float:
    """Score in [0, 1] of a generated output. Raises InputError for choice (`score_choice`)."""
    return _scorer(item).score(item, output)


def parsed(item: Item, output: str) -> bool:
    """Whether the output could be read at all as what the scorer wants (a number, JSON, a program); else True."""
    return _scorer(item).readable(item, output)


def score_choice(item: Item, logprobs: Sequence[float]) -> float:
    """1.0 where the right choice alone has the highest log-probability; a tie, or a NaN anywhere, counts as wrong.

    ``logprobs`` are sums over each choice's tokens, natural logarithms, in the order of the choices. With
    ``options.length_normalized`` each is divided by its choice's number of characters (``acc_norm`` of lm-eval).
    Raises RuntimeFailure when their number is not that of the choices: a runtime that cannot score must not look like a
    model that is always wrong.
    """
    if len(logprobs) != len(item.choices):
        raise RuntimeFailure(
            f"item {item.id}: {len(logprobs)} log-probabilities for {len(item.choices)} choices; "
            "this runtime cannot score choices: use tasks that generate text, or another runtime"
        )
    if any(math.isnan(value) for value in logprobs):
        return 0.0
    values = list(logprobs)
    if item.options.get("length_normalized", False):
        values = [value / len(choice) for value, choice in zip(values, item.choices, strict=True)]
    right = values[item.target]
    return float(all(right > value for index, value in enumerate(values) if index != item.target))


def check_item(item: Item) -> None:
    """Refuse an item that its scorer cannot score. Raises InputError naming scorer, fault and what is allowed."""
    scorer = _scorer(item)
    unknown = sorted(set(item.options) - scorer.options)
    if unknown:
        allowed = ", ".join(sorted(scorer.options)) or "none"
        raise InputError(f"scorer {item.scorer} has no option {unknown[0]!r}; its options: {allowed}")
    for name in ("case_sensitive", "length_normalized", "fenced"):
        if not isinstance(item.options.get(name, False), bool):
            raise InputError(f"scorer {item.scorer}: option {name} must be true or false")
    problem = scorer.problem(item)
    if problem:
        raise InputError(f"scorer {item.scorer}: {problem}")


def _scorer(item: Item) -> Scorer:
    try:
        return SCORERS[item.scorer]
    except (KeyError, TypeError):
        raise InputError(f"unknown scorer {item.scorer!r}; scorers: {', '.join(SCORERS)}") from None


def _always_readable(item: Item, output: str) -> bool:
    return True


def _folded(item: Item, text: str) -> str:
    return text.strip() if item.options.get("case_sensitive", True) else text.strip().casefold()


def _text_problem(item: Item) -> str | None:
    if not isinstance(item.target, str) or not item.target.strip():
        return "target must be a text that is not blank"
    return None


def _exact(item: Item, output: str) -> float:
    return float(_folded(item, output) == _folded(item, item.target))


def _contains(item: Item, output: str) -> float:
    return float(_folded(item, item.target) in _folded(item, output))


def _regex(item: Item, output: str) -> float:
    found = _pattern(item.options["pattern"], item.options.get("case_sensitive", True)).search(output)
    if found is None:
        return 0.0
    if item.target is None:
        return 1.0
    answer = found.group(1) if found.re.groups else found.group(0)
    return float(answer is not None and _folded(item, answer) == _folded(item, item.target))


@lru_cache(maxsize=256)
def _pattern(pattern: str, case_sensitive: bool) -> re.Pattern[str]:
    return re.compile(pattern, 0 if case_sensitive else re.IGNORECASE)


def _regex_problem(item: Item) -> str | None:
    pattern = item.options.get("pattern")
    if not isinstance(pattern, str) or not pattern:
        return "option pattern must be a regular expression"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"pattern {pattern!r} is not a regular expression: {error}"
    if item.target is not None and not isinstance(item.target, str):
        return "target, where given, must be the text of the pattern's first group"
    return None


def _numeric(item: Item, output: str) -> float:
    answer, target = read_number(output), target_number(item.target)
    if answer is None or target is None:
        return 0.0
    tolerance = item.options.get("tolerance", 0)
    if answer == target or not tolerance:
        return float(answer == target)
    try:
        return float(abs(answer - target) <= Decimal(repr(tolerance)))
    except DecimalException:
        return 0.0


def _numeric_readable(item: Item, output: str) -> bool:
    return read_number(output) is not None


def _numeric_problem(item: Item) -> str | None:
    if target_number(item.target) is None:
        return f"target must be a number, or a text with one, not {item.target!r:.60}"
    tolerance = item.options.get("tolerance", 0)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        return "option tolerance must be a number of at least 0 (absolute)"
    return None


def _bare(item: Item, output: str) -> str:
    """The output, out of its code block where the item allows one."""
    return unfenced(output) if item.options.get("fenced", False) else output


def _json(item: Item, output: str) -> Any:
    return read_json(_bare(item, output))


def _json_readable(item: Item, output: str) -> bool:
    try:
        _json(item, output)
    except ValueError:
        return False
    return True


def _json_schema(item: Item, output: str) -> float:
    try:
        value = _json(item, output)
    except ValueError:
        return 0.0
    return float(satisfies(value, item.options["schema"]) and (item.target is None or same_value(value, item.target)))


def _json_schema_problem(item: Item) -> str | None:
    if "schema" not in item.options:
        return "option schema (a JSON Schema) is missing"
    problem = schema_problem(item.options["schema"])
    if problem is None and item.target is not None and not satisfies(item.target, item.options["schema"]):
        return "the target itself is not valid under the schema, so no answer could score"
    return problem


def _json_equal(item: Item, output: str) -> float:
    try:
        return float(same_value(_json(item, output), item.target))
    except ValueError:
        return 0.0


def _json_equal_problem(item: Item) -> str | None:
    try:
        same = same_value(read_json(json.dumps(item.target)), item.target)
    except (TypeError, ValueError):
        same = False
    return None if same else f"target must be a JSON value, not {item.target!r:.60}"


def _choice(item: Item, output: str) -> float:
    raise InputError(f"item {item.id}: choice compares log-probabilities, not text; use score_choice")


def _choice_problem(item: Item) -> str | None:
    if len(item.choices) < 2 or len(set(item.choices)) < len(item.choices) or "" in item.choices:
        return "choices must be at least two different texts, none empty"
    if isinstance(item.target, bool) or not isinstance(item.target, int) or not 0 <= item.target < len(item.choices):
        return f"target must be the index of the right choice, 0 to {len(item.choices) - 1}, or its exact text"
    return None


def _code(item: Item, output: str) -> float:
    return float(program_right(_bare(item, output), item.options["inputs"], item.target))


def _code_readable(item: Item, output: str) -> bool:
    return program_readable(_bare(item, output))


def _code_problem(item: Item) -> str | None:
    return program_problem(item.options.get("inputs"), item.target)


def _tool_call(item: Item, output: str) -> float:
    return float(calls_right(output, item.options["tools"], item.target))


def _tool_call_readable(item: Item, output: str) -> bool:
    try:
        read_calls(output)
    except ValueError:
        return False
    return True


def _tool_call_problem(item: Item) -> str | None:
    if not item.messages:
        return "give messages, not a prompt: what the functions are is told by the model's own template"
    return tools_problem(item.options.get("tools"), item.target)


_CASE = frozenset({"case_sensitive"})
_FENCED = frozenset({"fenced"})

SCORERS: Mapping[str, Scorer] = {
    "exact": Scorer(_exact, _always_readable, _text_problem, _CASE),
    "contains": Scorer(_contains, _always_readable, _text_problem, _CASE),
    "regex": Scorer(_regex, _always_readable, _regex_problem, _CASE | {"pattern"}),
    "numeric": Scorer(_numeric, _numeric_readable, _numeric_problem, frozenset({"tolerance"})),
    "json_schema": Scorer(_json_schema, _json_readable, _json_schema_problem, _FENCED | {"schema"}),
    "json_equal": Scorer(_json_equal, _json_readable, _json_equal_problem, _FENCED),
    "choice": Scorer(_choice, _always_readable, _choice_problem, frozenset({"length_normalized"})),
    "code": Scorer(_code, _code_readable, _code_problem, _FENCED | {"inputs"}),
    "tool_call": Scorer(_tool_call, _tool_call_readable, _tool_call_problem, frozenset({"tools"})),
}
