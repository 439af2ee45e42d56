"""Reading a tool call out of an answer, and holding it against the functions that the item offers.

A call is a JSON object with ``name`` and ``arguments``, in whichever wrapping models were taught: ``<tool_call>`` tags
(Hermes, Qwen), ``parameters`` instead of ``arguments`` (Llama 3.1), ``[TOOL_CALLS]`` and a list (Mistral), a Markdown
code block, or nothing; servers give the arguments as a JSON text. What is called is checked by the function's own JSON
Schema. Functions are written as OpenAI's interface has them:
https://platform.openai.com/docs/guides/function-calling
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from quantwise.tasks.json_answers import read_json, same_value, satisfies, schema_problem, unfenced

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_LEADS = ("[TOOL_CALLS]", "<|python_tag|>")
_ARGUMENTS = ("arguments", "parameters")
_ANY: dict[str, Any] = {"type": "object"}

Call = tuple[str, dict[str, Any]]


def read_calls(output: str) -> list[Call]:
    """Name and arguments of every call, in order.

    What is said beside tags is let pass, as it is where a server parts the calls from the text; without tags the answer
    must be calls alone. Raises ValueError where there is no call, or one that cannot be read.
    """
    text = output.strip()
    for lead in _LEADS:
        text = text.removeprefix(lead).lstrip()
    tagged = _TAGGED.findall(text)
    parts = tagged or _values(unfenced(text))
    found: list[Call] = []
    for part in parts:
        value = read_json(part)
        found += [_call(entry) for entry in (value if isinstance(value, list) else [value])]
    if not found:
        raise ValueError("no call")
    return found


def _values(text: str) -> list[str]:
    """The whole text where it is one JSON value, else its lines: several calls are written one a line."""
    try:
        read_json(text)
    except ValueError:
        return [line for line in text.splitlines() if line.strip()]
    return [text]


def _call(value: Any) -> Call:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError("a call is an object with a name")
    given: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    given = read_json(given) if isinstance(given, str) else given
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ValueError("arguments are an object")
    return value["name"], given


def calls_right(output: str, tools: Sequence[Mapping[str, Any]], target: Any) -> bool:
    """Whether the answer is exactly the call that ``target`` asks for, or, for a list, those calls in any order.

    Every call must name a function of ``tools`` and give arguments that are valid under its schema, and the target's
    arguments where it states them.
    """
    try:
        calls = read_calls(output)
    except ValueError:
        return False
    schemas = {function["name"]: function.get("parameters", _ANY) for function in map(_function, tools)}
    if not all(name in schemas and satisfies(given, schemas[name]) for name, given in calls):
        return False
    wanted = target if isinstance(target, list) else [target]
    left = list(calls)
    # What states its arguments chooses first, so that it never finds its call taken by one that would take any.
    for call in sorted(wanted, key=lambda c: "arguments" not in c):
        match = next((c for c in left if _fits(c, call)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _fits(call: Call, wanted: Mapping[str, Any]) -> bool:
    return call[0] == wanted["name"] and ("arguments" not in wanted or same_value(call[1], wanted["arguments"]))


def tools_problem(tools: Any, target: Any) -> str | None:
    """What is wrong with an item's functions, or with what it wants called; None where nothing is."""
    if not isinstance(tools, list | tuple) or not tools:
        return 'tools must be a list such as [{"type": "function", "function": {"name": ..., "parameters": {...}}}]'
    schemas: dict[str, Any] = {}
    for tool in tools:
        function = _function(tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            return "every tool must be an object with a function, which has a name"
        if function["name"] in schemas:
            return f"two tools are named {function['name']!r}"
        schemas[function["name"]] = function.get("parameters", _ANY)
        if (problem := schema_problem(schemas[function["name"]])) is not None:
            return f"parameters of {function['name']}: {problem}"
    return _target_problem(schemas, target)


def _target_problem(schemas: Mapping[str, Any], target: Any) -> str | None:
    wanted = target if isinstance(target, list) else [target]
    if not wanted:
        return "target must name at least one call"
    for call in wanted:
        if not isinstance(call, Mapping) or set(call) not in ({"name"}, {"name", "arguments"}):
            return 'target must be {"name": ..., "arguments": {...}}, or a list of these; arguments may be left out'
        if not isinstance(call["name"], str):
            return f"the name of a call must be a text, not {call['name']!r:.60}"
        if call["name"] not in schemas:
            return f"target calls {call['name']!r:.60}, which is not among the tools"
        if "arguments" in call and not satisfies(call["arguments"], schemas[call["name"]]):
            return f"the target's own arguments of {call['name']} are not valid under its schema"
    return None


def _function(tool: Mapping[str, Any]) -> Any:
    return tool.get("function", tool)
