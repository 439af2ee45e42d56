"""Evaluates a model's short program without running it: parsed with ``ast``, then walked by a strict whitelist.

A program is one expression (``x * 2 + 1``), one ``def``, or the body of one (``y = x * 2`` and ``return y``).
It may use numbers, strings, flat lists and tuples of them, names, arithmetic, comparisons, ``and``/``or``/``not``,
the conditional expression, indexing and slicing, ``if``/``else``, plain assignment, and min, max, abs, len. There is
no loop and no other call, so evaluation ends; sizes, powers and nesting are bounded, so it ends soon.
"""

from __future__ import annotations

import ast
import operator
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAX_CHARACTERS = 2_000
MAX_NODES = 600
MAX_DEPTH = 40
MAX_BITS = 256
MAX_LENGTH = 1_000


class ProgramError(ValueError):
    """The program is unreadable, uses something that is not allowed, or fails on an input."""


Program = tuple[tuple[str, ...] | None, tuple[ast.stmt, ...]]


def read_program(source: str) -> Program:
    """Parameter names (None when the program is no ``def``) and statements. Raises ProgramError."""
    if len(source) > MAX_CHARACTERS:
        raise ProgramError(f"longer than {MAX_CHARACTERS} characters")
    body = textwrap.dedent(source.expandtabs(4)).strip("\n ")
    # The last reading is of a body whose first line lost its indentation, because the prompt had ended with it.
    for text in (body, "def body():\n    " + body):
        statements = _parse(text)
        if statements is not None:
            break
    else:
        raise ProgramError("not Python")
    parameters: tuple[str, ...] | None = None
    first = statements[0] if statements else None
    if isinstance(first, ast.FunctionDef):
        if len(statements) != 1:
            raise ProgramError("more than one definition")
        parameters = None if text is not body else _parameters(first)
        statements = first.body
    if not statements:
        raise ProgramError("empty")
    _check_size(statements)
    only = statements[0]
    if len(statements) == 1 and parameters is None and isinstance(only, ast.Expr):
        statements = [ast.Return(value=only.value)]
    for statement in statements:
        _check_statement(statement)
    return parameters, tuple(statements)


def run_program(program: Program, inputs: Mapping[str, Any]) -> Any:
    """Result for one set of named inputs; a ``def`` takes their values in order, under its own names.

    Raises ProgramError when a name is missing, a type does not fit, a bound is passed, or nothing is returned.
    """
    parameters, statements = program
    names = dict(inputs)
    if parameters is not None:
        if len(parameters) != len(inputs):
            raise ProgramError(f"takes {len(parameters)} values, given {len(inputs)}")
        names = dict(zip(parameters, inputs.values(), strict=True))
    try:
        returned, value = _run(statements, names)
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        raise ProgramError(str(error)) from error
    if not returned:
        raise ProgramError("returns nothing")
    return value


def _parse(text: str) -> list[ast.stmt] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in a model's strings are its own affair
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parameters(function: ast.FunctionDef) -> tuple[str, ...]:
    spec = function.args
    if spec.posonlyargs or spec.kwonlyargs or spec.vararg or spec.kwarg or spec.defaults or function.decorator_list:
        raise ProgramError("only plain parameters are allowed")
    return tuple(argument.arg for argument in spec.args)


def _check_size(statements: Sequence[ast.stmt]) -> None:
    nodes = 0
    level: list[ast.AST] = list(statements)
    for _ in range(MAX_DEPTH):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise ProgramError(f"more than {MAX_NODES} parts")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ProgramError(f"nested deeper than {MAX_DEPTH}")


def _check_statement(statement: ast.stmt) -> None:
    match statement:
        case ast.Return(value=ast.expr() as value):
            _check_expression(value)
        case ast.Assign(targets=[ast.Name()], value=value):
            _check_expression(value)
        case ast.If(test=test, body=body, orelse=otherwise):
            _check_expression(test)
            for inner in (*body, *otherwise):
                _check_statement(inner)
        case ast.Expr(value=ast.Constant(value=str())):
            pass  # a docstring
        case _:
            raise ProgramError(f"{type(statement).__name__} is not allowed")


def _check_expression(expression: ast.expr) -> None:
    for node in ast.walk(expression):
        allowed = isinstance(node, _ALLOWED)
        if isinstance(node, ast.Call):
            allowed = isinstance(node.func, ast.Name) and node.func.id in _CALLS and not node.keywords
        elif isinstance(node, ast.Constant):
            allowed = node.value is None or isinstance(node.value, bool | int | float | str)
        if not allowed:
            raise ProgramError(f"{type(node).__name__} is not allowed")


def _run(statements: Sequence[ast.stmt], names: dict[str, Any]) -> tuple[bool, Any]:
    """(True, value) as soon as a value is returned, else (False, None)."""
    for statement in statements:
        match statement:
            case ast.Return(value=ast.expr() as value):
                return True, _value(value, names)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names)
            case ast.If(test=test, body=body, orelse=otherwise):
                returned, result = _run(body if _value(test, names) else otherwise, names)
                if returned:
                    return True, result
    return False, None


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    evaluate = _EVALUATORS.get(type(node))
    if evaluate is None:
        raise ProgramError(f"{type(node).__name__} is not allowed")
    return _bounded(evaluate(node, names))


def _bounded(value: Any) -> Any:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise ProgramError(f"a number of more than {MAX_BITS} bits")
        return value
    if isinstance(value, str | list):
        if len(value) > MAX_LENGTH:
            raise ProgramError(f"a sequence longer than {MAX_LENGTH}")
        # Flat lists only: nested ones can share parts and grow exponentially on paper while small in memory.
        if isinstance(value, list) and any(isinstance(part, list) for part in value):
            raise ProgramError("a list inside a list")
        return value
    raise ProgramError(f"a value of type {type(value).__name__}")


def _name(node: Any, names: Mapping[str, Any]) -> Any:
    if node.id not in names:
        raise ProgramError(f"unknown name {node.id}")
    return names[node.id]


def _list(node: Any, names: Mapping[str, Any]) -> Any:
    return [_value(part, names) for part in node.elts]


def _binary(node: Any, names: Mapping[str, Any]) -> Any:
    left, right = _value(node.left, names), _value(node.right, names)
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if isinstance(node.op, ast.Pow):
        if not numbers:
            raise ProgramError("a power needs numbers")
        return _power(left, right)
    if isinstance(node.op, ast.Mult) and not numbers:
        count, sequence = (left, right) if isinstance(left, int) else (right, left)
        if isinstance(sequence, str | list) and isinstance(count, int) and len(sequence) * count > MAX_LENGTH:
            raise ProgramError(f"a sequence longer than {MAX_LENGTH}")
    elif isinstance(node.op, ast.Mod) and not numbers:
        raise ProgramError("% needs numbers")  # string formatting can ask for any width
    return _BINARY[type(node.op)](left, right)


def _power(base: int | float, exponent: int | float) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > MAX_BITS:
        raise ProgramError(f"a number of more than {MAX_BITS} bits")
    return base**exponent


def _unary(node: Any, names: Mapping[str, Any]) -> Any:
    value = _value(node.operand, names)
    return (not value) if isinstance(node.op, ast.Not) else (-value if isinstance(node.op, ast.USub) else +value)


def _boolean(node: Any, names: Mapping[str, Any]) -> Any:
    wants = isinstance(node.op, ast.And)
    value: Any = None
    for part in node.values:
        value = _value(part, names)
        if bool(value) is not wants:
            break
    return value


def _comparison(node: Any, names: Mapping[str, Any]) -> Any:
    left = _value(node.left, names)
    for op, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, names)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _conditional(node: Any, names: Mapping[str, Any]) -> Any:
    return _value(node.body if _value(node.test, names) else node.orelse, names)


def _subscript(node: Any, names: Mapping[str, Any]) -> Any:
    value = _value(node.value, names)
    if isinstance(node.slice, ast.Slice):
        parts = (node.slice.lower, node.slice.upper, node.slice.step)
        return value[slice(*(None if part is None else _value(part, names) for part in parts))]
    return value[_value(node.slice, names)]


def _call(node: Any, names: Mapping[str, Any]) -> Any:
    return _CALLS[node.func.id](*(_value(part, names) for part in node.args))


_CALLS: Mapping[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs, "len": len}
_BINARY: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda part, whole: part in whole,
    ast.NotIn: lambda part, whole: part not in whole,
}
_EVALUATORS: Mapping[type, Callable[[Any, Mapping[str, Any]], Any]] = {
    ast.Constant: lambda node, names: node.value,
    ast.Name: _name,
    ast.List: _list,
    ast.Tuple: _list,
    ast.BinOp: _binary,
    ast.UnaryOp: _unary,
    ast.BoolOp: _boolean,
    ast.Compare: _comparison,
    ast.IfExp: _conditional,
    ast.Subscript: _subscript,
    ast.Call: _call,
}
_ALLOWED = (
    *(kind for kind in _EVALUATORS if kind not in (ast.Call, ast.Constant)),
    *_BINARY,
    *_COMPARE,
    *(ast.Pow, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.Slice, ast.Load),
)
