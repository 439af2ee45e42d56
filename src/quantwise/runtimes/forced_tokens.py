"""Log-probabilities of given tokens from llama.cpp's server, which reports them for generated tokens only: force them.

With ``post_sampling_probs`` off the reported values come from the raw logits, whatever forced a token (checked against
Transformers). A run of tokens takes one request: a grammar of token ids (``<[123]>``, see llama.cpp's
grammars/README.md) leaves the sampler nothing to choose. One request for each token, with a ``logit_bias``, remains for

* servers whose grammars know no token ids;
* tokens that are no whole characters, and special tokens: a grammar that asks for them can bring the server down;
* tokens that end inside a character: the server reports nothing for these, so they are read from the list of likeliest
  tokens beside a token that is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

# An empty list of samplers would draw at random, whatever the temperature.
GREEDY: Mapping[str, Any] = {"temperature": 0, "top_k": 1, "samplers": ["top_k"], "seed": 0, "cache_prompt": True}
_FORCE = 1e6  # added to a logit: beats every other by far and stays finite
_LISTS = (256, 1 << 20)  # how many of the likeliest to ask for; the second is more than any vocabulary has
_TOGETHER = 64  # tokens of one grammar, whose cost grows faster than its length
_SPECIAL = re.compile(r"<.+>|\[[A-Z_/]+\]", re.DOTALL)


class Refused(Exception):
    """The server answered, and would not do it (status 4xx)."""


class ForcedTokens:
    """Forces tokens through ``post`` (path and body to the answer). Thread-safe."""

    def __init__(self, post: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> None:
        self._post = post
        self._whole: int | None = None  # a token of whole characters, whichever
        self._grammars = True
        self._plain: dict[int, bool] = {}

    def learn(self, tokens: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids out of a tokenization with pieces; remembers which of them are plain text."""
        ids = [int(token["id"]) for token in tokens]
        for i, token in zip(ids, tokens, strict=True):
            piece = token["piece"]  # a list of bytes where it is no valid text
            self._plain[i] = isinstance(piece, str) and bool(piece) and not _SPECIAL.fullmatch(piece)
            if self._whole is None and self._plain[i]:
                self._whole = i
        return ids

    def logprobs(self, prefix: Sequence[int], tokens: Sequence[int], top: int) -> list[dict[int, float]]:
        """For each of ``tokens``, given all before it: its natural log-probability and those of the ``top`` likeliest.

        Raises Refused where the server does not force tokens, and what ``post`` raises.
        """
        out: list[dict[int, float]] = []
        while rest := tokens[len(out) :]:
            before = [*prefix, *tokens[: len(out)]]
            count = next((i for i, token in enumerate(rest[:_TOGETHER]) if not self._plain.get(token)), _TOGETHER)
            together = (
                self._together(before, rest[:count], top) if min(count, len(rest)) > 1 and self._grammars else None
            )
            out += together or [self._single(before, rest[0], top)]
        return out

    def _together(self, prefix: list[int], tokens: Sequence[int], top: int) -> list[dict[int, float]] | None:
        """A run in one request; None where the server did not do as told."""
        grammar = "root ::= " + " ".join(f"<[{token}]>" for token in tokens)
        body = {"prompt": prefix, "n_predict": len(tokens), "n_probs": top, "grammar": grammar, **GREEDY}
        try:
            told = self._post("/completion", body).get("completion_probabilities", [])
        except (Refused, httpx.HTTPStatusError) as error:
            self._grammars = self._grammars and "grammar" not in str(error)
            return None
        return [_table(place) for place in told] if [int(p["id"]) for p in told] == list(tokens) else None

    def _single(self, prefix: list[int], token: int, top: int) -> dict[int, float]:
        told = self._biased(prefix, token, top)
        if told is not None and int(told["id"]) == token:
            return _table(told)
        for size in _LISTS if told is None and self._whole is not None else ():
            listed = self._biased(prefix, self._whole or 0, size)
            if listed is not None and token in (table := _table(listed)):
                best = sorted(table, key=lambda t: -table[t])[:top]
                return {t: table[t] for t in (*best, token)}
        raise Refused(f"the server did not force token {token}; its logit_bias works otherwise")

    def _biased(self, prefix: list[int], token: int, top: int) -> dict[str, Any] | None:
        """One token forced by its logit; None where the server reports nothing for it."""
        body = {"prompt": prefix, "n_predict": 1, "n_probs": top, "logit_bias": [[token, _FORCE]], **GREEDY}
        told: list[dict[str, Any]] = self._post("/completion", body).get("completion_probabilities", [])
        return told[0] if told else None


def _table(place: Mapping[str, Any]) -> dict[int, float]:
    return {int(t["id"]): float(t["logprob"]) for t in [*place["top_logprobs"], place]}
