"""Drawn tokens against the obvious way, and answers that do not depend on what is asked beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quantwise.core.artifact import Artifact
from quantwise.core.runtime import Ask, RuntimeOptions, Session
from quantwise.runtimes.llamacpp import LlamaCpp
from quantwise.runtimes.sampling import Chance, next_tokens
from quantwise.runtimes.transformers import Transformers


def left(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> dict[int, float]:
    """Token to probability, likeliest first, one cut after the other, renormalized after each."""
    probabilities = (logits.double() / temperature).softmax(-1).tolist()
    order = sorted(range(len(logits)), key=lambda token: -probabilities[token])
    kept = normal({token: probabilities[token] for token in (order[:top_k] if top_k else order)})
    reached, likeliest = 0.0, {}
    for token, probability in kept.items():
        likeliest[token] = probability
        reached += probability
        if reached >= top_p:
            break
    kept = normal(likeliest)
    return normal({token: p for token, p in kept.items() if p >= min_p * max(kept.values())})


def normal(kept: dict[int, float]) -> dict[int, float]:
    total = sum(kept.values())
    return {token: probability / total for token, probability in kept.items()}


def slow(kept: dict[int, float], number: float) -> int:
    """Walk until the number is used up."""
    for token, probability in kept.items():
        number -= probability
        if number < 0:
            return token
    return list(kept)[-1]


CUTS = [
    (1.0, 0, 1.0, 0.0), (0.5, 0, 0.9, 0.0), (2.0, 0, 0.3, 0.0), (5.0, 0, 0.999, 0.0),
    (5.0, 1, 1.0, 0.0), (5.0, 20, 1.0, 0.0), (9.0, 256, 1.0, 0.0), (9.0, 290, 1.0, 0.0), (9.0, 290, 0.99, 0.0),
    (9.0, 5000, 0.999, 0.0), (2.0, 0, 1.0, 0.1), (9.0, 0, 1.0, 0.3), (9.0, 0, 1.0, 0.01), (5.0, 0, 1.0, 1.0),
    (9.0, 0, 0.99, 0.02), (9.0, 0, 0.5, 0.001), (0.6, 20, 0.95, 0.0), (3.0, 40, 0.9, 0.05), (9.0, 270, 0.9, 0.3),
]  # fmt: skip
"""Temperature, top_k, top_p, min_p: each alone and together, few and more tokens than are sorted at first."""


@pytest.mark.parametrize("size", [5, 300, 2000])
@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), CUTS)
def test_tokens_are_those_of_the_obvious_way(
    size: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = torch.randn(8, size, generator=torch.Generator().manual_seed(size)) * 3
    kept = [left(row, temperature, top_k, top_p, min_p) for row in logits]
    for seed in range(4):
        chances = [Chance(temperature, top_p, seed + 100 * row, top_k, min_p) for row in range(8)]
        numbers = [Chance(temperature, top_p, seed + 100 * row).uniform() for row in range(8)]
        assert next_tokens(logits, list(chances)) == [slow(k, n) for k, n in zip(kept, numbers, strict=True)]


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


def test_llamacpp_answers_are_drawn_by_their_seeds(
    gguf_file: Artifact, options: RuntimeOptions, prompts: list[str]
) -> None:
    """Its sampler is its own, and its batches round otherwise than one request alone."""
    with LlamaCpp().open(gguf_file, options) as session:
        asked, changed = composition(session, prompts)
    assert changed <= asked // 4, f"{changed} of {asked}"


HOT = 3.0
CUT: dict[str, dict[str, float]] = {
    "top_k": {"top_k": 3}, "top_p": {"top_p": 0.5}, "min_p": {"min_p": 0.5},
    "together": {"top_k": 20, "top_p": 0.7, "min_p": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("name", CUT)
def test_both_runtimes_draw_what_the_cuts_leave_after_the_temperature(
    folder: Artifact, gguf_file: Artifact, options: RuntimeOptions, name: str
) -> None:
    cut = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | CUT[name]
    asks = [Ask(text="once upon a", max_tokens=1, temperature=HOT, seed=seed, **cut) for seed in range(300)]  # type: ignore[arg-type]
    with Transformers().open(folder, replace(options, parallel=64)) as session:
        logits = logits_after(session, "once upon a")
        kept, before = (set(texts(session, left(logits, heat, **cut))) for heat in (HOT, 1.0))  # type: ignore[arg-type]
        ours = set(answers(session, asks))
    with LlamaCpp().open(gguf_file, options) as session:
        theirs = set(answers(session, asks))
    assert ours == theirs == kept
    assert len(kept) > 1
    assert (kept == before) is (name == "top_k")


def logits_after(session: Any, text: str) -> Tensor:
    ids = torch.tensor([session.tokenize(text)])
    with torch.inference_mode():
        logits: Tensor = session._model.model(input_ids=ids).logits[0, -1].float()
    return logits


def texts(session: Any, tokens: Iterable[int]) -> list[str]:
    return [session._text(session.tokenize("once upon a"), [token]) for token in tokens]
