"""Reading a JSON answer strictly, comparing JSON values, and validating them against a JSON Schema.

JSON is RFC 8259: no NaN or Infinity, and a repeated key makes the answer unreadable, because readers would disagree
about its value. Schemas are JSON Schema (2020-12 unless ``$schema`` names another known draft); ``format`` is an
annotation and is not checked; nothing is ever fetched from a network.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import jsonschema
import referencing
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing.jsonschema import DRAFT202012

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


def unfenced(output: str) -> str:
    """Inside of the first Markdown code block, or the whole output where there is none.

    A block may lack its closing fence: a stop sequence often swallows it.
    """
    found = _FENCE.search(output)
    return found.group(1) if found else output


def read_json(text: str) -> Any:
    """The JSON value that ``text`` is, white space around it aside. Raises ValueError when it is anything else."""
    try:
        return json.loads(
            text.strip(), object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite_float
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def same_value(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, key order aside: true, 1 and "1" differ, 1 and 1.0 are one number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool) and left == right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same_value(a, b) for a, b in zip(left, right, strict=True))
    return type(left) is type(right) and bool(left == right)


def schema_problem(schema: Any) -> str | None:
    """Why ``schema`` cannot be used, in a few words, or None when it can."""
    if not isinstance(schema, dict):
        return "the schema must be a JSON object"
    kind: Any = validator_for(schema, default=cast(Any, None))
    if "$schema" in schema and kind is None:
        return f"$schema {schema['$schema']!r} is not a draft that jsonschema knows; leave it out for 2020-12"
    try:
        (kind or Draft202012Validator).check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"not a JSON Schema at {error.json_path}: {error.message[:120]}"
    except (re.error, RecursionError) as error:
        return f"not a JSON Schema: {error}"
    return _reference_problem(schema, kind or Draft202012Validator)


def _reference_problem(schema: dict[str, Any], kind: Any) -> str | None:
    """What would fail once an answer is validated: a reference to nothing, or to what is no schema."""
    references = list(_references(schema))
    inner = next((n["$id"] for n in _objects(schema) if n is not schema and isinstance(n.get("$id"), str)), None)
    if references and inner is not None:
        return f"$id {inner!r:.60} inside of a schema with references, which would count from it; leave it out"
    resource = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = referencing.Registry().resolver_with_root(resource)
    for reference in references:
        if not reference.startswith("#"):
            return f"$ref {reference!r} points outside the schema; nothing is fetched, so put it under $defs"
        try:
            kind.check_schema(resolver.lookup(reference).contents)
        except (referencing.exceptions.Unresolvable, ValueError, TypeError):
            return f"$ref {reference!r} is not in the schema"
        except (jsonschema.SchemaError, re.error, RecursionError):
            return f"$ref {reference!r} names no schema"
    return None


def _references(schema: Any) -> Iterator[str]:
    for node in _objects(schema):
        for key in ("$ref", "$dynamicRef"):
            if isinstance(node.get(key), str):
                yield node[key]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def satisfies(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a JSON value is valid under a schema that `schema_problem` found nothing wrong with."""
    try:
        return _validator(json.dumps(schema)).is_valid(value)
    except (OverflowError, RecursionError):
        return False  # numbers of hundreds of digits under multipleOf, or nesting beyond any real answer


@lru_cache(maxsize=256)
def _validator(schema_text: str) -> Validator:
    schema = json.loads(schema_text)
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(schema, registry=referencing.Registry())
