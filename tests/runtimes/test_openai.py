"""Servers by URL: what they can do is found out, and what is no server is named in one line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from chat_server import ChatServer
from quantwise.chat import ChatTemplate
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.item import Message
from quantwise.core.runtime import Ask, CacheUse, PagedCache, RuntimeOptions
from quantwise.runtimes.openai import OpenAI, server_artifact, server_props
from quantwise.runtimes.openai_api import OpenAIServer
from quantwise.runtimes.process import ServerProcess, free_port
from stub_server import MODEL, MODELS, stub


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """As vLLM: one token per letter of the prompt, each less likely than the one before, then one generated token."""
    prompt = body["prompt"]
    values = [None, *(-0.1 * ord(c) for c in prompt[1:]), -9.0]
    told = {"text_offset": list(range(len(prompt) + 1)), "token_logprobs": values}
    return {"choices": [{"text": prompt + "!", "finish_reason": "length", "logprobs": told}]}


def test_a_server_that_echoes_scores_choices(options: RuntimeOptions) -> None:
    seen: list[dict[str, Any]] = []
    with stub({"/v1/models": MODELS, "/v1/completions": (200, echo)}, seen) as url:
        artifact = server_artifact(f"{url}/v1#m2")
        with OpenAI().open(artifact, options) as session:
            (reply,) = session.ask([Ask(text="pp", choices=("a", "bc"))])
    assert reply.choice_logprobs == pytest.approx((-0.1 * ord("a"), -0.1 * (ord("b") + ord("c"))))
    assert {s["model"] for s in seen} == {"m2"}
    assert all(s["add_special_tokens"] is False for s in seen)


def test_a_server_that_does_not_echo_refuses_choices(options: RuntimeOptions) -> None:
    plain = {"choices": [{"text": "!", "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    with (
        stub({"/v1/models": MODEL, "/v1/completions": (200, plain)}) as url,
        OpenAI().open(server_artifact(url), options) as session,
    ):
        refused, told = session.ask([Ask(text="pp", choices=("a", "b")), Ask(text="pp")])
        (no_chat,) = session.ask([Ask(messages=(Message("user", "hi"),))])
    assert refused.finish == "refused"
    assert "does not score" in str(refused.error)
    assert (told.text, told.finish, told.prompt_tokens, told.output_tokens) == ("!", "stop", 3, 1)
    assert no_chat.finish == "refused"
    assert "404" in str(no_chat.error)


def test_nonsense_from_a_server_is_a_crash_of_that_request(options: RuntimeOptions) -> None:
    options = replace(options, retry_s=0.0)
    with (
        stub(
            {"/v1/models": MODEL, "/v1/completions": (200, {"choices": []}), "/v1/chat/completions": (500, "oh")}
        ) as url,
        OpenAI().open(server_artifact(url), options) as session,
    ):
        replies = session.ask([Ask(text="x"), Ask(messages=(Message("user", "hi"),))])
    assert [r.finish for r in replies] == ["crash", "crash"]


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ({}, "404"),
        ({"/v1/models": (200, "<html>")}, "not as an OpenAI"),
        ({"/v1/models": (200, {"data": []})}, "no model"),
    ],
)
def test_a_url_that_is_no_server_is_named(routes: dict[str, Any], says: str) -> None:
    with stub(routes) as url, pytest.raises(InputError, match=says) as caught:
        server_artifact(url)
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_url_without_anyone_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=f"no server answers at {url}"):
        server_artifact(url)
    with pytest.raises(InputError, match="no URL of a server"):
        server_artifact("localhost:8080")
    with stub({"/v1/models": MODELS}) as there, pytest.raises(InputError, match="has no model 'm3'; it has m1, m2"):
        server_artifact(f"{there}#m3")


def test_another_model_behind_the_url_is_noticed(options: RuntimeOptions) -> None:
    with stub({"/v1/models": MODELS}) as url:
        artifact = server_artifact(f"{url}#m1")
        assert server_artifact(f"{url}#m2").hash != artifact.hash == server_artifact(f"{url}/v1/#m1").hash
        other = replace(artifact, hash="0" * 32)
        with pytest.raises(RuntimeFailure, match="another model"), OpenAI().open(other, options):
            pass
        with pytest.raises(InputError, match="leave kv= out"), OpenAI().open(artifact, replace(options, cache="q8_0")):
            pass


def test_a_llama_server_is_known_by_its_answers(
    server: ServerProcess, options: RuntimeOptions, prompts: list[str]
) -> None:
    options = replace(options, retry_s=0.0)
    artifact, props = server_artifact(server.url + "/v1"), server_props(server.url)
    assert props is not None
    turns = (Message("user", "once upon a time"),)
    text = ChatTemplate(props["chat_template"], {"bos_token": props["bos_token"]}).render(turns)
    with OpenAI().open(artifact, options) as session:
        own, ours = session.ask([Ask(messages=turns, max_tokens=5), Ask(text=text, max_tokens=5)])
        assert (own.text, own.prompt_tokens) == (ours.text, ours.prompt_tokens)
        native = session.ask([Ask(text=p, max_tokens=5) for p in prompts[:3]])
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
            general = OpenAIServer(http, http.get("/v1/models").json()["data"][0]["id"])
            for prompt, reply in zip(prompts, native, strict=False):
                assert general.answer(Ask(text=prompt, max_tokens=5)).text == reply.text
            chat = general.answer(Ask(messages=turns, max_tokens=5))
            assert (chat.text, chat.output_tokens) == (own.text, own.output_tokens)
        server.stop()
        with pytest.raises(RuntimeFailure, match="no longer answers"):
            session.ask([Ask(text="once", max_tokens=5)])


@pytest.mark.parametrize("said", [(404, "not here"), (200, {"choices": [{"text": "!"}]})])
def test_a_server_is_no_place_for_distributions_unless_it_tells_ids(options: RuntimeOptions, said: Any) -> None:
    with stub({"/v1/models": MODEL, "/v1/completions": said}) as url:
        artifact: Artifact = server_artifact(url)
        with OpenAI().open(artifact, options) as session, pytest.raises(InputError, match="llama-server and vLLM do"):
            session.next_token_logprobs("a b c", 3)


def test_a_vllm_by_url_tells_distributions_as_many_as_it_may(options: RuntimeOptions) -> None:
    for can, most in ((("prompt logprobs",), 128), (("prompt logprobs", "few prompt logprobs"), 20)):
        with ChatServer(can=can) as server, OpenAI().open(server_artifact(server.url), options) as session:
            few, many = session.next_token_logprobs("a b", 3), session.next_token_logprobs("a b", 128)
            _, blank, b = server.tokens("a b")[0]
        assert [sorted(place) for place in few] == [[1, 2, 3, blank], [1, 2, 3, b]]
        assert few[0][2] == -2.0
        assert [len(place) for place in many] == [most + 1] * 2


PAGE = """vllm:num_preemptions_total {preempted}
vllm:prefix_cache_queries_total {asked}
vllm:prefix_cache_hits_total {hits}
vllm:kv_cache_usage_perc 0.5
vllm:cache_config_info{{block_size="16",enable_prefix_caching="True",num_gpu_blocks="81"}} 1.0
"""


def test_a_server_that_counts_its_cache_is_asked_what_it_counted(
    options: RuntimeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantwise.runtimes.server_metrics._FIRST_LOOK_S", 0.001)
    routes: dict[str, Any] = {"/v1/models": MODEL, "/metrics": (200, PAGE.format(preempted=3, asked=100, hits=60))}

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)  # long enough to be looked at meanwhile
        routes["/metrics"] = (200, PAGE.format(preempted=5, asked=300, hits=110))
        return {"choices": [{"text": "!", "finish_reason": "stop"}]}

    routes["/v1/completions"] = (200, answer)
    with stub(routes) as url:
        with OpenAI().open(server_artifact(url), options) as session:
            assert isinstance(session, PagedCache)
            session.ask([Ask(text="pp")])
            told = session.cache_use()
        routes["/metrics"] = (200, "llamacpp:prompt_tokens_total 1")
        with OpenAI().open(server_artifact(url), options) as session:
            assert not isinstance(session, PagedCache)
    assert told == CacheUse(80, 16, 40, True, 0.25, 2)
