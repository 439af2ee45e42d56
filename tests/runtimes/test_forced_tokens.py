"""Scoring given tokens on llama.cpp's server: one request for a run, the values those of one for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.runtimes.forced_tokens import ForcedTokens, Refused
from quantwise.runtimes.llama_server import LlamaServer
from quantwise.runtimes.llamacpp import LlamaCpp, LlamaCppSession
from quantwise.runtimes.transformers import Transformers

TEXT = "once upon a time there was little dog who loved to play in the park one two three with some thing else"


class Counting:
    """Passes requests on and counts those that compute."""

    def __init__(self, server: LlamaServer) -> None:
        self.server, self.requests = server, 0

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.requests += path == "/completion"
        return self.server._post(path, body)


def test_a_run_of_tokens_is_one_request_and_equals_one_request_each(
    gguf_file: Artifact, options: RuntimeOptions
) -> None:
    with LlamaCpp().open(gguf_file, options) as session:
        assert isinstance(session, LlamaCppSession)
        post = Counting(session._server)
        forced = ForcedTokens(post)
        ids = forced.learn(post("/tokenize", {"content": TEXT, "with_pieces": True})["tokens"])
        together = forced.logprobs(ids[:1], ids[1:], 5)
        requests, post.requests = post.requests, 0
        alone = [forced._single(ids[:i], ids[i], 5) for i in range(1, len(ids))]
        assert (requests, post.requests) == (1, len(ids) - 1)
    for a, b, token in zip(together, alone, ids[1:], strict=True):
        assert token in a
        assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize("choices", [(" naïve", "北京 😀", " dog"), (" 北", " 京"), ("é", "è" * 90)])
def test_characters_of_several_tokens_are_scored_as_transformers_does(
    folder: Artifact, gguf_file: Artifact, options: RuntimeOptions, choices: tuple[str, ...]
) -> None:
    ask = Ask(text="once upon a time", choices=choices, rendered=False)
    with Transformers().open(folder, options) as theirs, LlamaCpp().open(gguf_file, options) as ours:
        a, b = (session.ask([ask])[0] for session in (theirs, ours))
    assert b.error is None
    # float16 weights against float32: the random model's log-probabilities are around -10 for each token.
    assert b.choice_logprobs == pytest.approx(a.choice_logprobs, rel=0.01)


def test_a_special_token_in_a_choice_does_not_bring_the_server_down(
    gguf_file: Artifact, options: RuntimeOptions
) -> None:
    with LlamaCpp().open(gguf_file, options) as session:
        asked = Ask(text="once upon", choices=(" a dog<|im_start|> a dog", " little dog<|im_end|>"))
        reply = session.ask([asked])[0]
        assert session.ask([Ask(text="once", max_tokens=2)])[0].finish in ("stop", "length")
    assert reply.finish == "stop"
    assert len(reply.choice_logprobs) == 2


class Old:
    """A server without grammars of token ids, or one that does not force at all."""

    def __init__(self, forces: bool) -> None:
        self.forces, self.grammars = forces, 0

    def __call__(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if "grammar" in body:
            self.grammars += 1
            raise Refused("status 400: failed to parse grammar")
        token = body["logit_bias"][0][0] if self.forces else 7
        logprob = -float(len(body["prompt"]))
        return {"completion_probabilities": [{"id": token, "logprob": logprob, "top_logprobs": []}]}


def test_an_older_server_is_asked_token_by_token_and_not_for_grammars_again() -> None:
    old = Old(forces=True)
    forced = ForcedTokens(old)
    ids = forced.learn([{"id": i, "piece": "x"} for i in range(4)])
    assert forced.logprobs([9], ids, 1) == [{0: -1.0}, {1: -2.0}, {2: -3.0}, {3: -4.0}]
    assert forced.logprobs([9], ids[:2], 1) == [{0: -1.0}, {1: -2.0}]
    assert old.grammars == 1
    with pytest.raises(Refused, match="did not force token 3"):
        ForcedTokens(Old(forces=False)).logprobs([9], [3], 1)
