"""Drawing the next token of every row of a batch, each by its own stream of chance.

The token is found by inverting the distribution function of the sorted probabilities (Devroye 1986, "Non-Uniform Random
Variate Generation", III.2), with one uniform number of the row's own generator for each token. So an answer depends on
its seed and not on what is asked beside it, but for what the shape of a batch does to the last digits of the logits;
and two models that nearly agree draw the same token from the same number nearly always. After the temperature, as in
Transformers' warpers: ``top_k`` keeps so many of the likeliest tokens (Fan et al. 2018, arXiv 1805.04833); ``top_p`` of
these the fewest likeliest that reach it together (Holtzman et al. 2020, arXiv 1904.09751), ``min_p`` those that have
this share of the likeliest one's probability (Nguyen et al. 2024, arXiv 2407.01082).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_LIKELIEST = 256  # sorting a whole vocabulary for each token is slow, and the token is almost always among these


@dataclass(slots=True)
class Chance:
    """How one answer is drawn."""

    temperature: float
    top_p: float
    seed: int
    top_k: int = 0
    min_p: float = 0.0
    _stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._stream = random.Random(self.seed)

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        return self._stream.random()


def next_tokens(logits: Tensor, chances: Sequence[Chance | None]) -> list[int]:
    """A token for every row of logits [B, V]; a row without a chance takes its likeliest."""
    tokens: list[int] = logits.argmax(-1).tolist()
    drawn = [i for i, chance in enumerate(chances) if chance is not None]
    if not drawn:
        return tokens
    chosen = [chance for chance in chances if chance is not None]
    heat = torch.tensor([chance.temperature for chance in chosen], device=logits.device)[:, None]
    probabilities = (logits[drawn].float() / heat).softmax(-1)
    size = probabilities.shape[-1]
    best = probabilities.topk(min(max(_LIKELIEST, *(chance.top_k for chance in chosen)), size), dim=-1)
    reached = best.values.double().cumsum(-1)
    for row, (i, chance) in enumerate(zip(drawn, chosen, strict=True)):
        number = chance.uniform()
        place = _place(best.values[row], reached[row], chance, number, whole=best.values.shape[-1] == size)
        if place is not None:
            tokens[i] = int(best.indices[row, place])
            continue
        every = probabilities[row].sort(descending=True, stable=True)
        place = _place(every.values, every.values.double().cumsum(-1), chance, number, whole=True)
        tokens[i] = int(every.indices[place])
    return tokens


def _place(values: Tensor, reached: Tensor, chance: Chance, number: float, *, whole: bool) -> int | None:
    """Where ``number`` falls in the probabilities [k], likeliest first, and ``reached`` by them together; None where
    that may be beyond them. ``whole`` says that there are no others.
    """
    kept = _kept(values, reached, chance)
    if kept is None and not whole:
        place = int((reached <= number).sum())
        return place if place < len(values) and chance.top_p >= 1.0 and chance.min_p == 0.0 else None
    last = len(values) - 1 if kept is None else kept - 1
    return min(int((reached <= number * float(reached[last])).sum()), last)


def _kept(values: Tensor, reached: Tensor, chance: Chance) -> int | None:
    """How many of the likeliest tokens may be drawn; None where all of these may, and what follows them too."""
    counts: list[int] = []
    size, total = len(values), 1.0
    if 0 < chance.top_k <= size:
        total = float(reached[chance.top_k - 1])
        counts.append(chance.top_k)
    if chance.top_p < 1.0 and (before := int((reached < chance.top_p * total).sum())) < size:
        counts.append(before + 1)
    if chance.min_p > 0.0 and (likely := int((values >= chance.min_p * values[0]).sum())) < size:
        counts.append(likely)
    return min(counts, default=None)
