"""How far a model with some of its weights replaced drifts from itself: divergence on calibration texts set aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantwise.build.calibration import Batch
from quantwise.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Watch:
    """Texts, and the log-probabilities of ``model`` at their real tokens: float32 (tokens, vocabulary) of each batch.

    They stay in memory: 4 bytes x tokens x vocabulary.
    """

    model: nn.Module
    batches: Sequence[Batch]
    reference: Sequence[Tensor]

    def divergence(self, replaced: Mapping[str, Tensor]) -> float:
        """Mean KL over real tokens, in nats, of the model with ``replaced`` parameters (full name to values) from
        itself. Parameters tied to a replaced one follow it.
        """
        total = torch.zeros((), dtype=torch.float64)
        with torch.no_grad():
            for batch, p in zip(self.batches, self.reference, strict=True):
                q = log_probabilities(self.model, batch, replaced)
                total += (p.exp() * (p - q)).sum(dtype=torch.float64)
        return float(total) / sum(map(len, self.reference))


def watch(model: nn.Module, batches: Sequence[Batch]) -> Watch:
    """Run ``model`` once over ``batches``. Raises InputError where there is no token."""
    with torch.no_grad():
        reference = [log_probabilities(model, batch, {}) for batch in batches]
    if not sum(map(len, reference)):
        raise InputError("no calibration text is left to watch the divergence on; give more texts")
    return Watch(model, batches, reference)


def log_probabilities(model: nn.Module, batch: Batch, replaced: Mapping[str, Tensor]) -> Tensor:
    """Of the next token at every real token: (tokens, vocabulary)."""
    call: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
    logits: Tensor = functional_call(model, dict(replaced), kwargs=call).logits
    return logits[batch.real].float().log_softmax(-1)


def set_aside(sequences: Sequence[tuple[int, ...]], share: float = 0.125) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Each sequence, and whether it is watched: evenly spread over the set, about ``share`` of it, at least one.

    Where there is a single sequence it is trained on and watched in turn: its second half is set aside.
    """
    if len(sequences) == 1 and len(sequences[0]) > 1:
        half = len(sequences[0]) // 2
        yield sequences[0][:half], False
        yield sequences[0][half:], True
        return
    every = max(2, round(1 / share))
    for i, sequence in enumerate(sequences):
        yield sequence, i % every == 1
