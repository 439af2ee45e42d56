"""The OpenAI-compatible HTTP interface, as far as greedy answers and scored choices need it.

Choices need ``echo`` with ``logprobs`` on ``/v1/completions``: the server then returns the prompt's own tokens with
their log-probabilities and character offsets. OpenAI's first completions API had it, vLLM has it; others ignore or
refuse it, which is found out on the first use and is then a refusal, not a guess.
https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx

from quantwise.core.errors import EnvironmentFailure
from quantwise.core.runtime import Ask, Finish, Reply
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.llama_server import checked
from quantwise.runtimes.prompt import chat_fields

_CUT_SHORT = ("abort", "error")  # vLLM's words for an answer that it gave up
_EDITION = re.compile(r":latest|-\d{4}(-?\d\d){1,2}|-(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")
"""Four digits alone are a date where they are a month and a day; a year and a month (2507) name another model."""
_GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0, "stream": False}
_THINKING = ("reasoning_content", "reasoning")
"""Where servers put what was thought: the first is DeepSeek's and llama.cpp's name, the second vLLM's and Ollama's."""


class OpenAIServer:
    """A client of one model on one server; thread-safe."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        self._http = http
        self._model = model
        self._edition = ""
        self._takes_seeds = True

    def answer(self, ask: Ask) -> Reply:
        """One reply; raises what httpx raises, Refused, and EnvironmentFailure where another model answers."""
        if ask.choices:
            return self._choose(ask)
        start = time.perf_counter()
        thinking = None
        body: dict[str, Any] = {"model": self._model, "max_tokens": ask.max_tokens, **_drawing(ask)}
        if ask.stop:
            body["stop"] = list(ask.stop)
        if ask.text is None:
            got = self._post("/v1/chat/completions", body | chat_fields(ask))
            message = got["choices"][0]["message"]
            text = _calls(message) or message.get("content")
            thinking = next((said for name in _THINKING if isinstance(said := message.get(name), str) and said), None)
        else:
            # vLLM's switch for a rendered prompt, whose special tokens are already there; others do not know it.
            extra = {"add_special_tokens": False} if ask.rendered else {}
            got = self._post("/v1/completions", body | {"prompt": ask.text} | extra)
            text = got["choices"][0]["text"]
        if not isinstance(text, str | None):
            raise ValueError(f"the text is a {type(text).__name__}")
        usage = got.get("usage") or {}
        reason = got["choices"][0].get("finish_reason")
        if reason in _CUT_SHORT:
            raise ValueError(f"the server ended the answer itself (finish_reason {reason})")
        finish: Finish = "length" if reason == "length" else "stop"
        return Reply(
            text=text or "",
            finish=finish,
            prompt_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            seconds=time.perf_counter() - start,
            thinking=thinking,
            thinking_tokens=_count((usage.get("completion_tokens_details") or {}).get("reasoning_tokens")),
        )

    def _choose(self, ask: Ask) -> Reply:
        start = time.perf_counter()
        if ask.text is None:
            raise Refused("choices need a rendered prompt; give the model's folder or chat template too")
        if not ask.text:
            raise Refused("choices need a prompt before them on this server")
        echoes = [self._echo(ask.text + choice, ask.rendered) for choice in ask.choices]
        # The first token that is not the same text at the same place for all choices, and reaches beyond the prompt.
        begins = [next((i for i, end in enumerate(ends) if end > len(ask.text)), len(ends)) for ends, _ in echoes]
        begin = max(1, min(begins))
        return Reply(
            prompt_tokens=begin,
            choice_logprobs=tuple(sum(logprobs[begin:]) for _, logprobs in echoes),
            seconds=time.perf_counter() - start,
        )

    def _echo(self, text: str, rendered: bool) -> tuple[list[int], list[float]]:
        """For each token of ``text``: the character where it ends, and its log-probability (0.0 for the first)."""
        body = {"model": self._model, "prompt": text, "max_tokens": 1, "echo": True, "logprobs": 1, **_GREEDY}
        got = self._post("/v1/completions", body | ({"add_special_tokens": False} if rendered else {}))
        told = got["choices"][0].get("logprobs") or {}
        offsets, values = told.get("text_offset"), told.get("token_logprobs")
        if not offsets or not values or not str(got["choices"][0].get("text", "")).startswith(text):
            raise Refused("this server does not score a given text (echo with logprobs), which choices need")
        count = sum(offset < len(text) for offset in offsets)  # the rest was generated
        ends = [*offsets[1:count], len(text)]
        return ends, [0.0 if value is None else float(value) for value in values[:count]]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer. A server that refuses seeds, which greedy answers hardly need, is asked without from then on."""
        asked = body if self._takes_seeds else {key: value for key, value in body.items() if key != "seed"}
        try:
            got = checked(self._http.post(path, json=asked))
        except Refused as error:
            if "seed" not in asked or "seed" not in str(error):
                raise
            got = checked(self._http.post(path, json={key: value for key, value in body.items() if key != "seed"}))
            self._takes_seeds = False
        self._check_model(got.get("model"))
        return got

    def _check_model(self, told: object) -> None:
        """Raise EnvironmentFailure where another model answered: its rows would be taken for those of the one meant.

        A name is also answered by an edition of it, always the same one.
        """
        if not isinstance(told, str) or not told or told == self._model:
            return
        # Read and set without a lock: of two editions one is always found out, if not by this request by the next.
        self._edition = self._edition or told
        if not same_model(self._model, told) or told != self._edition:
            raise EnvironmentFailure(
                f"{str(self._http.base_url).rstrip('/')} was asked for model {self._model!r} and {told!r} answered; "
                "serve the one that was meant and run the same command again, or decide anew with URL#MODEL"
            )


def same_model(asked: str, told: str) -> bool:
    """Whether an answer's model is the one asked for: the name itself, an edition of it that is named by its date
    (``gpt-4`` is answered by ``gpt-4-0613``, ``gpt-4o`` by ``gpt-4o-2024-08-06``), or Ollama's ``:latest``.
    """
    return told == asked or (told.startswith(asked) and _EDITION.fullmatch(told[len(asked) :]) is not None)


def _drawing(ask: Ask) -> dict[str, Any]:
    if ask.temperature == 0:
        return _GREEDY
    # Not OpenAI's: vLLM, SGLang and llama.cpp know these two, and others are not troubled with them for nothing.
    further = {name: value for name, value in (("top_k", ask.top_k), ("min_p", ask.min_p)) if value}
    return {"temperature": ask.temperature, "top_p": ask.top_p, **further, "seed": ask.seed, "stream": False}


def _calls(message: dict[str, Any]) -> str:
    """The tool calls of a message as JSON texts, one a line; empty where there are none."""
    told = [call["function"] for call in message.get("tool_calls") or ()]
    return "\n".join(json.dumps({"name": f["name"], "arguments": f.get("arguments")}) for f in told)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
