"""Next-token distributions of a whole text by one request: vLLM's ``prompt_logprobs`` on ``/v1/completions``.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

COMMON_TOP = 20
"""How many vLLM tells at most, unless it is started with another ``--max-logprobs``."""


def prompt_logprobs(
    post: Callable[[str, dict[str, Any]], dict[str, Any]], prompt: str | Sequence[int], top: int
) -> list[dict[int, float]]:
    """For each token of ``prompt`` but the first: token id to log-probability of the ``top`` likeliest and of itself.

    Raises what ``post`` raises, and what reading an answer raises where the server does not tell them.
    """
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "prompt_logprobs": top}
    told = post("/v1/completions", body)["choices"][0]["prompt_logprobs"]
    return [{int(token): float(said["logprob"]) for token, said in place.items()} for place in told[1:]]
