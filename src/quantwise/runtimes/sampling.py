"""Drawing the next token of every row of a batch, each by its own stream of chance.

The token is found by inverting the distribution function of the sorted probabilities (Devroye 1986, "Non-Uniform Random
Variate Generation", III.2), with one uniform number of the row's own generator for each token. So an answer depends on
its seed and not on what is asked beside it, but for what the shape of a batch does to the last digits of the logits;
and two models that nearly agree draw the same token from the same number nearly always. ``top_p`` keeps the fewest
likeliest tokens that reach it together (Holtzman et al. 2020, arXiv 1904.09751), after the temperature.
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
    best = probabilities.topk(min(_LIKELIEST, probabilities.shape[-1]), dim=-1)
    reached = best.values.double().cumsum(-1)
    for row, (i, chance) in enumerate(zip(drawn, chosen, strict=True)):
        number = chance.uniform()
        place = _place(reached[row], chance.top_p, number, whole=best.values.shape[-1] == probabilities.shape[-1])
        if place is not None:
            tokens[i] = int(best.indices[row, place])
            continue
        every = probabilities[row].sort(descending=True, stable=True)
        place = _place(every.values.double().cumsum(-1), chance.top_p, number, whole=True)
        tokens[i] = int(every.indices[place])
    return tokens


def _place(reached: Tensor, top_p: float, number: float, *, whole: bool) -> int | None:
    """Where ``number`` falls in the cumulated probabilities [k], likeliest first; None where that is beyond them."""
    last = int((reached < top_p).sum())
    if last < len(reached) and top_p < 1.0:
        total = float(reached[last])
    elif whole:
        total, last = float(reached[-1]), len(reached) - 1
    elif top_p < 1.0:
        return None
    else:
        total, last = 1.0, len(reached)
    place = int((reached <= number * total).sum())
    return min(place, last) if whole or place < len(reached) else None
