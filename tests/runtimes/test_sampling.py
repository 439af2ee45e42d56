"""Drawn tokens against the obvious way, and answers that do not depend on what is asked beside them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, RuntimeOptions, Session
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.sampling import Chance, next_tokens
from quantwise.runtimes.transformers import Transformers


def slow(logits: Tensor, temperature: float, top_p: float, number: float) -> int:
    """Sort, cut, renormalize, and walk until the number is used up."""
    probabilities = (logits.double() / temperature).softmax(-1)
    order = sorted(range(len(logits)), key=lambda token: -float(probabilities[token]))
    kept, reached = [], 0.0
    for token in order:
        kept.append(token)
        reached += float(probabilities[token])
        if reached >= top_p:
            break
    left = number * reached
    for token in kept:
        left -= float(probabilities[token])
        if left < 0:
            return token
    return kept[-1]


@pytest.mark.parametrize("size", [5, 300, 2000])
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 0.9), (2.0, 0.3), (5.0, 0.999)])
def test_tokens_are_those_of_the_obvious_way(size: int, temperature: float, top_p: float) -> None:
    logits = torch.randn(8, size, generator=torch.Generator().manual_seed(size)) * 3
    for seed in range(12):
        chances = [Chance(temperature, top_p, seed + 100 * row) for row in range(8)]
        numbers = [Chance(temperature, top_p, seed + 100 * row).uniform() for row in range(8)]
        wanted = [slow(logits[row], temperature, top_p, numbers[row]) for row in range(8)]
        assert next_tokens(logits, list(chances)) == wanted


def test_shares_are_the_probabilities_and_rows_without_a_chance_are_greedy() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    chance = Chance(1.0, 1.0, 7)
    drawn = [next_tokens(logits, [chance])[0] for _ in range(4000)]
    for token, share in enumerate(logits[0].softmax(-1).tolist()):
        assert abs(drawn.count(token) / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert next_tokens(logits.expand(2, 4), [None, Chance(5.0, 1.0, 0)])[0] == 0


def drawn(prompts: list[str], seed: int = 0) -> list[Ask]:
    return [Ask(text=p, max_tokens=24, temperature=1.0, seed=seed + i) for i, p in enumerate(prompts)]


def answers(session: Session, asks: list[Ask]) -> list[str]:
    return [reply.text for reply in session.ask(asks)]


def composition(session: Session, prompts: list[str]) -> tuple[int, int]:
    """How many answers there are, and how many change with what is asked beside them."""
    asks = drawn(prompts * 2)
    together = answers(session, asks)
    alone = [answers(session, [ask])[0] for ask in asks]
    backwards = answers(session, asks[::-1])[::-1]
    assert answers(session, [replace(ask, seed=ask.seed + 1000) for ask in asks]) != together, "the seed does nothing"
    assert together[: len(prompts)] != together[len(prompts) :], "two seeds, one answer"
    return len(asks), sum(len({a, b, c}) > 1 for a, b, c in zip(together, alone, backwards, strict=True))


def test_transformers_answers_do_not_depend_on_the_batch(
    folder: Artifact, options: RuntimeOptions, prompts: list[str]
) -> None:
    with Transformers().open(folder, replace(options, parallel=16)) as session:
        asked, changed = composition(session, prompts)
    assert changed <= asked // 16, f"{changed} of {asked}"


def test_llamacpp_answers_are_drawn_by_their_seeds(gguf: Artifact, options: RuntimeOptions, prompts: list[str]) -> None:
    """Its sampler is its own, and its batches round otherwise than one request alone."""
    with LlamaCpp().open(gguf, options) as session:
        asked, changed = composition(session, prompts)
    assert changed <= asked // 4, f"{changed} of {asked}"
