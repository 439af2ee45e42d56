"""Tool calls in the wrappings that models use, against the functions' own schemas."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.tasks.scorers import parsed, score
from quantwise.tasks.tool_answers import read_calls
from quantwise.tasks.user_items import user_item

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
ASKED: dict[str, Any] = {
    "id": "1",
    "messages": [{"role": "user", "content": "How is the weather in Oslo?"}],
    "scorer": "tool_call",
    "tools": [WEATHER, TIME],
    "target": {"name": "weather", "arguments": {"place": "Oslo"}},
}
INNER = {"$ref": "#/$defs/b", "$defs": {"b": {"$id": "http://b/", "items": {"$ref": "#/$defs/c"}}, "c": {}}}
OSLO = {"name": "weather", "arguments": {"place": "Oslo"}}


@pytest.mark.parametrize(
    "output",
    [
        json.dumps(OSLO),
        f"<tool_call>\n{json.dumps(OSLO)}\n</tool_call>",
        f"<tool_call>\n{json.dumps(OSLO)}",
        f"I look it up. <tool_call>{json.dumps(OSLO)}</tool_call> One moment.",
        '{"name": "weather", "parameters": {"place": "Oslo"}}',
        f"[TOOL_CALLS] [{json.dumps(OSLO)}]",
        f"```json\n{json.dumps(OSLO)}\n```",
        json.dumps({"name": "weather", "arguments": json.dumps({"place": "Oslo"})}),
        json.dumps({"type": "function", "function": OSLO}),
    ],
)
def test_every_wrapping_is_the_same_call(output: str) -> None:
    assert read_calls(output) == [("weather", {"place": "Oslo"})]
    assert score(user_item(ASKED, "t"), output) == 1.0


@pytest.mark.parametrize(
    ("output", "readable"),
    [
        ("It is sunny in Oslo.", False),
        ("", False),
        (f"I call {json.dumps(OSLO)}", False),
        ('{"name": "weather", "arguments": {"place": "Bergen"}}', True),
        ('{"name": "weather", "arguments": {"place": 3}}', True),
        ('{"name": "weather", "arguments": {"place": "Oslo", "days": 0}}', True),
        ('{"name": "weather", "arguments": {"place": "Oslo", "unit": "C"}}', True),
        ('{"name": "weather"}', True),
        ('{"name": "time", "arguments": {}}', True),
        ('{"name": "climate", "arguments": {"place": "Oslo"}}', True),
        (f"{json.dumps(OSLO)}\n{json.dumps(OSLO)}", True),
        ('{"name": "weather", "arguments": "Oslo"}', False),
        ('{"name": "weather", "arguments": [1]}', False),
    ],
)
def test_anything_else_is_wrong(output: str, readable: bool) -> None:
    item = user_item(ASKED, "t")
    assert score(item, output) == 0.0
    assert parsed(item, output) is readable


def test_reading_takes_time_in_proportion_to_the_answer() -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match="Expecting value"):
        read_calls("<tool_call>x y" + " " * 40_000 + "z")
    assert time.process_time() - begin < 1.0


def test_arguments_that_are_left_open_need_only_be_valid() -> None:
    item = user_item(ASKED | {"target": {"name": "weather"}}, "t")
    assert score(item, '{"name": "weather", "arguments": {"place": "Rome", "days": 2}}') == 1.0
    assert score(item, '{"name": "weather", "arguments": {"days": 2}}') == 0.0


def test_several_calls_come_in_any_order() -> None:
    item = user_item(ASKED | {"target": [{"name": "weather"}, OSLO, {"name": "time"}]}, "t")
    rome = {"name": "weather", "arguments": {"place": "Rome"}}
    time = {"name": "time", "arguments": {}}
    assert score(item, "\n".join(map(json.dumps, (OSLO, rome, time)))) == 1.0
    assert score(item, json.dumps([time, rome, OSLO])) == 1.0
    assert score(item, json.dumps([rome, OSLO])) == 0.0


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"tools": []}, "tools must be a list"),
        ({"tools": [{"type": "function"}]}, "has a name"),
        ({"tools": [WEATHER, WEATHER]}, "two tools"),
        ({"tools": [{"function": {"name": "a", "parameters": {"type": "nothing"}}}]}, "parameters of a"),
        ({"tools": [{"function": {"name": "a", "parameters": {"$ref": "#/$defs/b"}}}]}, "is not in the schema"),
        ({"tools": [{"function": {"name": "a", "parameters": INNER}}]}, "would count from it"),
        ({"tools": [{"function": {"name": "a", "parameters": {"$ref": "#/allOf/b", "allOf": [{}]}}}]}, "is not in the"),
        ({"tools": [{"function": {"name": "a", "parameters": {"$ref": "#/a/b", "a": 3}}}]}, "is not in the schema"),
        ({"tools": [{"function": {"name": "a", "parameters": {"$ref": "#/a", "a": "text"}}}]}, "names no schema"),
        ({"target": "weather"}, "target must be"),
        ({"target": {"name": ["weather"]}}, "must be a text"),
        ({"target": {"name": "climate"}}, "not among the tools"),
        ({"target": {"name": "weather", "arguments": {"days": 1}}}, "not valid under its schema"),
        ({"target": []}, "at least one call"),
    ],
)
def test_items_that_nobody_could_solve_are_refused(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        user_item(ASKED | changed, "t")


def test_tools_need_a_conversation() -> None:
    record = {k: v for k, v in ASKED.items() if k != "messages"} | {"prompt": "How is the weather?"}
    with pytest.raises(InputError, match="messages"):
        user_item(record, "t")
