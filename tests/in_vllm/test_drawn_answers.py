"""Sampled answers, repeats, thinking and its cap, JSON and tool calls through the runtime ``vllm``, with vLLM itself.

The model is one whose every next token is known, so what comes back can only be right or wrong.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from chain_model import CALL, LESS_LIKELY, LIKELIER, RECORD, write_chain_model

from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.decoding import Decoding
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item, Message
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.measure import Arm, Bench
from quantwise.runtimes.vllm import Vllm

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]

COINS = [Item(f"{n}", "coins", "heads", "exact", prompt="coin", max_tokens=4) for n in range(40)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Arm]]:
    """One server for all tests."""
    folder = write_chain_model(tmp_path_factory.mktemp("chain") / "model")
    artifact = Artifact(str(folder), "safetensors", "", None)
    options = RuntimeOptions(context=1024, parallel=8, timeout_s=120.0)
    arm = Arm(Candidate("chain", "vllm"), artifact, Vllm(), options, ChatTemplate.from_folder(folder))
    with Bench() as bench:
        yield bench, arm


def rows(opened: tuple[Bench, Arm], items: list[Item], decoding: Decoding, seed: int = 3) -> list[Measurement]:
    bench, arm = opened
    asked = replace(arm, decoding=decoding, seed=seed)
    return bench.block(asked, items, stage="certify", task="coins", block=0)


def heads(found: list[Measurement]) -> float:
    assert {row.output for row in found} <= {"heads", "tails"}
    assert {(row.finish, row.output_tokens, row.error) for row in found} == {("stop", 2, None)}
    assert [row.score for row in found] == [float(row.output == "heads") for row in found]
    return sum(row.output == "heads" for row in found) / len(found)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_repeats_are_drawn_at_the_temperature_and_by_seeds_that_draw_the_same_again(
    opened: tuple[Bench, Arm], temperature: float
) -> None:
    drawing = Decoding(temperature=temperature, repeats=8)
    first = rows(opened, COINS, drawing)
    assert [(row.item, row.repeat) for row in first] == [(item.id, k) for item in COINS for k in range(8)]
    expected = 1 / (1 + math.exp((LESS_LIKELY - LIKELIER) / temperature))
    assert heads(first) == pytest.approx(expected, abs=4 * (expected * (1 - expected) / len(first)) ** 0.5)
    assert len({row.output for row in first if row.item == "0"}) + len({row.output for row in first[8:]}) > 2
    again, others = rows(opened, COINS, drawing), rows(opened, COINS, drawing, seed=4)
    assert [row.output for row in again] == [row.output for row in first]
    assert [row.output for row in others] != [row.output for row in first]


def test_what_is_drawn_does_not_depend_on_what_is_asked_beside_it(opened: tuple[Bench, Arm]) -> None:
    drawing = Decoding(temperature=1.0, repeats=2)
    together = {(row.item, row.repeat): row.output for row in rows(opened, COINS, drawing)}
    for item in COINS[:6]:
        assert [row.output for row in rows(opened, [item], drawing)] == [together[item.id, k] for k in range(2)]


def test_a_temperature_that_vllm_does_not_take_is_refused_and_said(opened: tuple[Bench, Arm]) -> None:
    (row,) = rows(opened, COINS[:1], Decoding(temperature=4.0))
    assert row.finish == "refused"
    assert "temperature must be in [0, 2]" in (row.error or "")


def test_top_p_leaves_the_likeliest_alone(opened: tuple[Bench, Arm]) -> None:
    assert heads(rows(opened, COINS, Decoding(temperature=1.0, top_p=0.7, repeats=4))) == 1.0


@pytest.mark.parametrize("kept", [{"top_k": 1}, {"min_p": 0.5}])
def test_top_k_and_min_p_leave_the_likeliest_alone(opened: tuple[Bench, Arm], kept: dict[str, Any]) -> None:
    assert heads(rows(opened, COINS, Decoding(temperature=1.0, repeats=4, **kept))) == 1.0


def test_greedy_is_greedy(opened: tuple[Bench, Arm]) -> None:
    assert heads(rows(opened, COINS, Decoding())) == 1.0


@pytest.mark.parametrize(
    ("word", "cap", "output", "thought", "tokens"),
    [
        ("short", 8, "42", 2, 6),
        ("long", 8, "", 11, 12),  # cut off inside of the thinking
        ("long", 19, "", 20, 23),  # it came to an end, a token too late
        ("long", 20, "42", 20, 24),
        ("endless", 30, "", 33, 34),
    ],
)
def test_thinking_is_stripped_and_capped(
    opened: tuple[Bench, Arm], word: str, cap: int, output: str, thought: int, tokens: int
) -> None:
    """``tokens`` come in all: thinking with its two tags, the answer of at most four, and the end."""
    item = Item("0", "coins", "42", "exact", prompt=word, max_tokens=4)
    (row,) = rows(opened, [item], Decoding(thinking_cap=cap))
    assert (row.output, row.score, row.thinking_tokens) == (output, float(bool(output)), thought)
    assert row.output_tokens == tokens
    assert row.finish == ("stop" if output else "length")


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"bird": {"type": "string"}}, "required": ["bird"]}


def test_json_and_tool_calls_are_scored(opened: tuple[Bench, Arm]) -> None:
    called = [{"name": "weather", "arguments": {"city": "Oslo"}}]
    items = [
        Item("0", "coins", called, "tool_call", messages=(Message("user", "call"),), options={"tools": [TOOL]}),
        Item("1", "coins", called, "tool_call", messages=(Message("user", "record"),), options={"tools": [TOOL]}),
        Item("2", "coins", None, "json_schema", messages=(Message("user", "record"),), options={"schema": SCHEMA}),
        Item("3", "coins", None, "json_schema", messages=(Message("user", "call"),), options={"schema": SCHEMA}),
    ]
    found = rows(opened, items, Decoding())
    assert [(row.output, row.score) for row in found] == [(CALL, 1.0), (RECORD, 0.0), (RECORD, 1.0), (CALL, 0.0)]
    # The functions were told: where the template shows none, as a turn of its own.
    assert (found[0].prompt_tokens or 0) > 20 * (found[2].prompt_tokens or 1)


def test_a_prompt_that_opens_the_thinking_itself(opened: tuple[Bench, Arm]) -> None:
    """As many chat templates do: then the answer holds the closing tag alone."""
    item = Item("0", "coins", "42", "exact", messages=(Message("user", "<think>"),), max_tokens=4)
    (row,) = rows(opened, [item], Decoding(thinking_cap=8))
    assert (row.output, row.thinking_tokens, row.finish) == ("42", 2, "stop")


def test_an_answer_is_cut_off_at_its_stop_text_and_at_its_length(opened: tuple[Bench, Arm]) -> None:
    bench, arm = opened
    stopped, cut = bench.ask(arm, [Ask(text="short", stop=("</think>",)), Ask(text="endless", max_tokens=5)])
    assert (stopped.text, stopped.finish) == ("<think>so be it", "stop")
    assert (cut.text, cut.finish, cut.output_tokens) == ("<reasoning>" + "hm " * 4, "length", 5)
