"""Each ability is found where it is, is missing where it is ignored or refused, and is unknown where a server fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from chat_server import ChatServer
from fault_server import FaultServer
from quantwise.runtimes.capabilities import Capabilities, missing, probe
from quantwise.runtimes.process import ServerProcess

EXTRA = {
    "logprobs": "log_probabilities", "schema": "json_schema", "seeds": "seeds", "tools": "tools", "stream": "streaming",
    "metrics": "metrics", "echo": "scores_given_text",
    "prompt logprobs": "distributions",
}  # fmt: skip


def found(url: str, model: str = "m", **known: Any) -> Capabilities:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        return probe(http, model, **{"native": False} | known)


@pytest.mark.parametrize("name", EXTRA)
def test_one_ability_is_found_and_the_others_are_not(name: str) -> None:
    with ChatServer(can=(name,)) as server:
        told = found(server.url)
    wanted = {ability: ability == EXTRA[name] for ability in EXTRA.values()}
    assert {ability: getattr(told, ability) for ability in wanted} == wanted
    assert (told.chat, told.completions, told.usage) == (True, True, True)
    assert not told.unclear
    assert len(missing(told)) == len(EXTRA) - 1
    assert told.cache_counters is (name == "metrics")


def test_a_server_that_refuses_what_it_does_not_know_lacks_it() -> None:
    with ChatServer(can=("strict", "tools"), tells="nothing") as server:
        told = found(server.url)
    assert (told.tools, told.json_schema, told.usage, told.chat) == (False, False, False, True)


@pytest.mark.parametrize(
    ("said", "finish", "wanted"),
    [
        ('{"bird": "quantwise-7"}', "stop", True),
        ('{ "bird"\n\n\n  ', "length", True),
        ("{ \n\n", "length", None),
        ("", "length", None),
        ('{"bird": "gull', "length", False),
        ("Gull, tern,", "length", False),
        ('{"bird"', "stop", False),
    ],
)
def test_white_space_without_an_end_is_no_lack_of_a_schema(
    said: str, finish: str, wanted: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = {"message": {"content": said}, "finish_reason": finish}
    monkeypatch.setattr(
        "quantwise.runtimes.capabilities._whole", lambda *asked: httpx.Response(200, json={"choices": [choice]})
    )
    assert found("http://unused.invalid").json_schema is wanted


CALL = {"tool_calls": [{"function": {"name": "name_bird", "arguments": '{"bird": "gull"}'}}]}
REFUSAL = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


@pytest.mark.parametrize(
    ("auto", "required", "counts", "wanted"),
    [
        ("call", "refuse", (90, 20), True),  # knows tools, and not tool_choice
        ("text", "call", (90, 20), True),  # the model would rather talk; llama.cpp and vLLM force it
        ("text", "text", (90, 20), None),  # Ollama ignores tool_choice
        ("text", "refuse", (90, 20), None),
        ("text", "text", (None, None), None),
        ("text", "call", (20, 20), False),  # tools never reach the model, whatever is made of its answer
        ("refuse", "call", (90, 20), False),  # vLLM without its flags: it would refuse every item
    ],
)
def test_tools_are_asked_for_as_items_ask(
    auto: str, required: str, counts: tuple[int | None, int | None], wanted: bool | None
) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or "{}")
        does = "text" if "tools" not in body else required if "tool_choice" in body else auto
        if does == "refuse":
            return httpx.Response(400, json={"error": {"message": REFUSAL}})
        said = {"choices": [{"message": CALL if does == "call" else {"content": "gull"}, "finish_reason": "stop"}]}
        return httpx.Response(200, json=said | {"usage": {"prompt_tokens": counts["tools" not in body]}})

    with httpx.Client(base_url="http://here", transport=httpx.MockTransport(server)) as http:
        told = probe(http, "m", native=False)
    assert told.tools is wanted
    assert ("tools" in told.unclear) == (wanted is None)
    said = next((words for words in missing(told) if words.startswith("no tool calls")), "")
    assert bool(said) == (wanted is False)
    assert ("--enable-auto-tool-choice" in said) == (auto == "refuse")


def test_a_server_that_answers_alike_whatever_the_seed_tells_nothing_of_seeds() -> None:
    with FaultServer() as server:
        told = found(server.url)
    assert told.seeds is None
    assert "not found out: seeds" in missing(told)[-1]


def test_what_fails_is_unknown_and_says_why() -> None:
    with FaultServer(lambda prompt, time: "500") as server:
        told = found(server.url)
    assert told.chat is None
    assert "status 500" in told.unclear["chat"]
    assert told.metrics is False


@pytest.mark.parametrize("part", [b'data: {"choices": []}\n\n' * 4096, b"x" * 65536])
def test_answers_without_an_end_are_unknown_and_not_read_for_ever(part: bytes) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield part
        raise AssertionError("read on and on")

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
    with httpx.Client(base_url="http://here", transport=transport) as http:
        told = probe(http, "m", native=False)
    assert (told.streaming, told.metrics, told.chat, told.told) == (None, None, None, {})
    assert "without an end" in told.unclear["streaming"]


def test_a_slow_answer_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.capabilities._MOST_SECONDS", -1.0)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=iter([b"data: {}\n\n"] * 3)))
    with httpx.Client(base_url="http://here", transport=transport) as http:
        assert "without an end" in probe(http, "m", native=False).unclear["streaming"]


def test_metrics_that_tell_nothing_of_the_cache_are_not_taken_for_counts_of_it() -> None:
    page = "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 12\n"

    def server(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=page) if request.url.path == "/metrics" else httpx.Response(404)

    with httpx.Client(base_url="http://here", transport=httpx.MockTransport(server)) as http:
        told = probe(http, "m", native=True)
    assert (told.metrics, told.cache_counters) == (True, False)
    assert "its /metrics tells nothing of its cache: cache hits and preemptions are unknown" in missing(told)


def test_places_that_do_not_tell_of_the_tokens_that_were_read_are_no_distributions() -> None:
    for places, wanted in (([None, {"5": {"logprob": -1.0}}], True), ([None, {"6": {}}], False), ([None], False)):
        choice = {"text": "x", "prompt_token_ids": [4, 5], "prompt_logprobs": places}
        transport = httpx.MockTransport(lambda request, choice=choice: httpx.Response(200, json={"choices": [choice]}))
        with httpx.Client(base_url="http://here", transport=transport) as http:
            assert probe(http, "m", native=False).distributions is wanted


def test_a_llama_server_is_found_out(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
        told = probe(http, http.get("/v1/models").json()["data"][0]["id"], native=True)
    assert (told.chat, told.completions, told.usage, told.streaming) == (True, True, True, True)
    assert (told.log_probabilities, told.json_schema, told.seeds) == (True, True, True)
    assert (told.scores_given_text, told.distributions, told.metrics) == (True, True, False)
    assert told.told["n_ctx_train"] == 512
