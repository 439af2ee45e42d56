"""Holding a program that was answered against the results that it should have.

A program is right where it gives every expected result; floating-point numbers may differ in their last digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quantwise.tasks.expression import ProgramError, read_program, run_program
from quantwise.tasks.json_answers import same_value


def program_right(text: str, inputs: Sequence[Mapping[str, Any]], expected: Sequence[Any]) -> bool:
    """Whether the program gives ``expected[i]`` for ``inputs[i]``; one that is unreadable or fails does not."""
    try:
        program = read_program(text)
        return all(
            _same_result(run_program(program, given), wanted) for given, wanted in zip(inputs, expected, strict=True)
        )
    except ProgramError:
        return False


def program_readable(text: str) -> bool:
    """Whether it is a program at all."""
    try:
        read_program(text)
    except ProgramError:
        return False
    return True


def program_problem(inputs: Any, expected: Any) -> str | None:
    """What is wrong with an item's inputs and expected results, or None."""
    if not isinstance(inputs, list | tuple) or not inputs:
        return 'option inputs must be a list of objects, such as [{"x": 2}, {"x": 3}]'
    if not isinstance(expected, list | tuple) or len(expected) != len(inputs):
        return f"target must be the list of the {len(inputs)} expected results, one for each of option inputs"
    for given in inputs:
        if not isinstance(given, Mapping) or not all(isinstance(n, str) and n.isidentifier() for n in given):
            return 'every one of option inputs must be an object of named values, such as {"x": 2}'
        if not all(_flat(value) for value in given.values()):
            return "inputs may be numbers, texts, true, false, null, and flat lists of these"
    return None


def _same_result(result: Any, expected: Any) -> bool:
    if isinstance(result, float) and isinstance(expected, int | float) and not isinstance(expected, bool):
        return math.isclose(result, expected, rel_tol=1e-9, abs_tol=1e-12)
    return same_value(result, expected)


def _flat(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return all(part is None or isinstance(part, bool | int | float | str) for part in parts)
