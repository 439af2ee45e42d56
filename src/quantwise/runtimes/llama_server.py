"""The native HTTP interface of llama.cpp's server: rendered text or token ids in, text and log-probabilities out.

It serves both our own llama.cpp process and a llama-server that a user runs somewhere. Fields as documented in
llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx

from quantwise.core.errors import RuntimeFailure
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, Finish, Reply
from quantwise.runtimes.forced_tokens import GREEDY, ForcedTokens, Refused
from quantwise.runtimes.prompt import align, chat_fields

_BESIDE = 64  # likeliest tokens reported beside a choice of one token; its rivals are mostly among them
_BUSY = (408, 425, 429)  # of status 4xx those that are no word on the request
NOT_LET_IN = (401, 403)
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, httpx.DecodingError)
"""What reading an answer raises that is not as the interface says."""


class KeyRefused(Refused):
    """The server wants a key, or another one (401); 403 may also be a gateway's word on one request."""

    def __init__(self, said: str, status: int) -> None:
        super().__init__(said)
        self.status = status


@dataclass(frozen=True, slots=True)
class Phases:
    """Tokens read (prefill) and written (decode) of one request, and the seconds of each."""

    read: int
    read_seconds: float
    written: int
    written_seconds: float


class LlamaServer:
    """A client of one llama-server; thread-safe. ``http`` carries the base URL, the time limit and the key."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._forced = ForcedTokens(self._post)
        self._adds_tokens = self.tokenize("a", True) != self.tokenize("a", False)
        self.props = self._get("/props")
        self._opening = self._opening_token()

    def _opening_token(self) -> int | None:
        """What the tokenizer puts before a text, or else the token that ends one.

        Not ``bos_token`` of /props: for a model that has none, llama.cpp names an unrelated token there.
        """
        if first := self.tokenize("", True)[:1]:
            return first[0]
        end = self.tokenize(str(self.props.get("eos_token") or ""), False)
        return end[0] if len(end) == 1 else None

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        """Token ids; special tokens written in the text are understood."""
        return [token for token, _ in self.pieces(text, add_special)]

    def pieces(self, text: str, add_special: bool) -> list[tuple[int, str]]:
        """Token ids with their texts; of a token that is no whole text, what its bytes are made of is replaced."""
        body = {"content": text, "add_special": add_special, "parse_special": True, "with_pieces": True}
        told = self._post("/tokenize", body)["tokens"]
        return list(zip(self._forced.learn(told), (_text(token["piece"]) for token in told), strict=True))

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """What `answer` sends for ``ask``; of messages also how many tokens the server's own chat endpoint reads.

        Raises what httpx raises, and Refused only where neither endpoint takes the prompt.
        """
        ready = self._ready(ask)
        told = self.pieces(str(ready.text), not ready.rendered)
        served = self._chat_count(ask) if ask.text is None else None
        source = "/tokenize" if ask.text is not None else "/apply-template and /tokenize"
        return PromptTokens(tuple(i for i, _ in told), tuple(piece for _, piece in told), served, source)

    def _chat_count(self, ask: Ask) -> int | None:
        """Tokens that ``/v1/chat/completions`` says it read, or None where there is no such endpoint."""
        try:
            usage = self._post("/v1/chat/completions", {**chat_fields(ask), "max_tokens": 1, **GREEDY}).get("usage")
        except Refused:
            return None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return count if isinstance(count, int) and count > 0 else None

    def _ready(self, ask: Ask) -> Ask:
        """The ask with its text.

        What ``/apply-template`` returns lacks the beginning token where the tokenizer adds one (llama.cpp takes it off
        the template's text, so that it does not come twice), so the tokenizer has to add it, as the chat endpoint does.
        """
        return ask if ask.text is not None else replace(ask, text=self.render(ask), rendered=False)

    def render(self, ask: Ask) -> str:
        """The prompt that the server's own chat template makes of messages, tools and template arguments."""
        return str(self._post("/apply-template", chat_fields(ask))["prompt"])

    def answer(self, ask: Ask) -> Reply:
        """One reply; raises what httpx raises, and Refused."""
        ask = self._ready(ask)
        text = str(ask.text)
        return self._choose(ask, text) if ask.choices else self._generate(ask, text)

    def _generate(self, ask: Ask, text: str) -> Reply:
        start = time.perf_counter()
        # A text is tokenized with the tokenizer's own extra tokens; a rendered one has them already.
        prompt = self.tokenize(text, False) if ask.rendered and self._adds_tokens else text
        body = {"prompt": prompt, "n_predict": ask.max_tokens, "stop": list(ask.stop), **_drawing(ask)}
        got = self._post("/completion", body)
        seconds = time.perf_counter() - start
        finish: Finish = "length" if got.get("stop_type") == "limit" else "stop"
        ending = int(got.get("stop_type") == "eos")  # the end token is counted, and is no part of the answer
        after_first = float(got.get("timings", {}).get("predicted_ms", 0.0)) / 1000
        return Reply(
            text=str(got["content"]),
            finish=finish,
            prompt_tokens=int(got["tokens_evaluated"]),
            output_tokens=int(got["tokens_predicted"]) - ending,
            seconds=seconds,
            first_token_seconds=max(seconds - after_first, 0.0) if after_first else None,
        )

    def _choose(self, ask: Ask, text: str) -> Reply:
        start = time.perf_counter()
        special = not ask.rendered
        wholes = [self.tokenize(text + choice, special) for choice in ask.choices]
        split, wholes = align(self.tokenize(text, special), wholes, self._opening)
        if split < 1:
            return Reply(finish="refused", error="a choice needs a prompt of at least one token before it")
        sums = self._sums(wholes, split)
        return Reply(prompt_tokens=split, choice_logprobs=sums, seconds=time.perf_counter() - start)

    def _sums(self, wholes: Sequence[list[int]], split: int) -> tuple[float, ...]:
        """Summed log-probabilities from ``split`` on. What choices begin with in common is computed once."""
        known: dict[tuple[int, ...], dict[int, float]] = {}
        for whole in wholes:
            begin = split
            while begin < len(whole) and whole[begin] in known.get(tuple(whole[split:begin]), ()):
                begin += 1
            rest = whole[begin:]
            told = self._forced.logprobs(whole[:begin], rest, _BESIDE if len(rest) == 1 else 1)
            for i, table in enumerate(told, start=begin):
                known.setdefault(tuple(whole[split:i]), {}).update(table)
        return tuple(sum(known[tuple(w[split:i])][w[i]] for i in range(split, len(w))) for w in wholes)

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """Per position of the tokenized text but the last: the ``top`` likeliest next tokens, and the one that came.

        A text to which the tokenizer adds nothing is preceded by the opening token.
        """
        ids = self.tokenize(text, True)
        if not self._adds_tokens and self._opening is not None:
            ids = [self._opening, *ids]
        return self._forced.logprobs(ids[:1], ids[1:], top)

    def tail_logprobs(self, ids: Sequence[int], tail: int, top: int) -> list[dict[int, float]]:
        """For each of the last ``tail`` tokens, given all before it: the ``top`` likeliest, and the one that came."""
        return self._forced.logprobs(ids[:-tail], ids[-tail:], top)

    def timed(self, ids: Sequence[int], tokens: int) -> Phases:
        """Read the tokens that are not in the slot yet, then write ``tokens`` more, whatever they are.

        Times are the server's own: the first new token comes with the prompt's logits, so it belongs to neither phase.
        """
        body = {"prompt": list(ids), "n_predict": tokens, "ignore_eos": True, **GREEDY}
        told = self._post("/completion", body)["timings"]
        read, written = (int(told[f"{word}_n"]) for word in ("prompt", "predicted"))
        return Phases(read, float(told["prompt_ms"]) / 1000, max(written - 1, 0), float(told["predicted_ms"]) / 1000)

    def _get(self, path: str) -> dict[str, Any]:
        return checked(self._http.get(path))

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        response = self._http.post(path, json=body)
        limit = self._http.timeout.read
        # A client that was not scheduled meanwhile finds an answer that came too late.
        if limit is not None and time.perf_counter() - start > limit:
            raise httpx.ReadTimeout("answered too late", request=response.request)
        return checked(response)


def _text(piece: object) -> str:
    """The text of a token's piece, which is a list of bytes where it is no valid text."""
    return (
        piece if isinstance(piece, str) else bytes(piece).decode("utf-8", "replace") if isinstance(piece, list) else ""
    )


def _drawing(ask: Ask) -> Mapping[str, Any]:
    """How the server is to choose tokens: the samplers of `core.decoding` in its order, and nothing else."""
    if ask.temperature == 0:
        return GREEDY
    chosen = {"temperature": ask.temperature, "top_k": ask.top_k, "top_p": ask.top_p, "min_p": ask.min_p}
    return chosen | {"samplers": list(chosen), "seed": ask.seed, "cache_prompt": True}


def checked(response: httpx.Response) -> dict[str, Any]:
    """The JSON object in a response.

    Raises HTTPStatusError where the server is busy or fails, Refused for any other status 4xx, ValueError for a body
    that is no such object or says that an error occurred; KeyRefused is the Refused of a key.
    """
    if response.status_code in NOT_LET_IN:
        raise KeyRefused(said(response), response.status_code)
    if response.is_client_error and response.status_code not in _BUSY:
        raise Refused(said(response))
    if response.is_error:
        raise httpx.HTTPStatusError(said(response), request=response.request, response=response)
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError(f"no JSON object but a {type(found).__name__}")
    if found.get("error"):
        raise ValueError(f"an error with {said(response)}")
    return found


def said(response: httpx.Response) -> str:
    """One line of what a server said about an error."""
    try:
        error = response.json()["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = "a web page" if "<html" in response.text.lower() else response.text
    return f"status {response.status_code}: {' '.join(str(text).split())[:300]}"


def failure(error: Exception, waited: float) -> Reply:
    """The reply of a request that ended in this error, ``waited`` seconds after it began."""
    match error:
        case Refused():
            return Reply(finish="refused", error=str(error))
        case httpx.TimeoutException():
            why = f"no answer in {waited:.1f} s ({type(error).__name__})"
            return Reply(finish="timeout", seconds=waited, error=why)
        case httpx.HTTPStatusError():
            return Reply(finish="crash", error=str(error))
        case httpx.HTTPError():
            return Reply(finish="crash", error=f"connection broke: {error}")
        case _:
            return Reply(finish="crash", error=f"the server's answer cannot be read: {type(error).__name__} {error}")


def ask_all(
    asks: Sequence[Ask], answer: Callable[[Ask], Reply], parallel: int, gone: Callable[[], str | None],
    give_up: Callable[[bool], None] = lambda yes: None,
) -> list[Reply]:  # fmt: skip
    """Answer all asks, ``parallel`` at a time, in order. No request is tried twice here.

    A time limit, a refusal and a server error are replies. When the connection breaks, ``gone`` says whether the server
    is gone (its last word) or not (None); if it is, RuntimeFailure is raised and what waits is dropped. ``give_up`` is
    told so whenever this ends before its time. An interrupt does not wait for answers.
    """

    def one(ask: Ask) -> Reply:
        """The reply to one ask. Raises RuntimeFailure where the server is gone."""
        start = time.perf_counter()
        try:
            return answer(ask)
        except (Refused, httpx.HTTPStatusError, httpx.TimeoutException, *UNREADABLE) as error:
            return failure(error, time.perf_counter() - start)
        except httpx.TransportError as error:
            if (word := gone()) is not None:
                raise RuntimeFailure(f"the server is gone: {word}") from error
            return failure(error, time.perf_counter() - start)

    if len(asks) <= 1:
        return [one(ask) for ask in asks]
    pool = ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="ask")
    waits = True
    give_up(False)
    try:
        return list(pool.map(one, asks))
    except BaseException as error:
        waits = not isinstance(error, KeyboardInterrupt)
        give_up(True)
        raise
    finally:
        pool.shutdown(wait=waits, cancel_futures=True)


def key_header(key: str | None) -> dict[str, str]:
    """The header that carries an API key."""
    return {"Authorization": f"Bearer {key}"} if key else {}
