"""How far a model with some of its weights replaced drifts from itself: divergence on calibration texts set aside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quantwise.build.calibration import Batch, Calibration
from quantwise.build.skeleton import Skeleton
from quantwise.core.errors import InputError

# Log-probabilities that are kept, and those of one batch: 1 GiB and 256 MiB in float32.
MOST_KEPT, MOST_AT_ONCE = 1 << 28, 1 << 26
# Told beside every divergence measured here: codes, types or the moment to stop were chosen by these texts.
NOT_HELD_OUT = "the watched texts had a part in making this artifact; on texts that had none, expect more divergence"


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


@contextmanager
def whole(skeleton: Skeleton) -> Iterator[nn.Module]:
    """All of the model in memory inside, in float32 and with its output tied where its config says so."""
    with skeleton.filled(""):
        if skeleton.source.config.get("tie_word_embeddings"):
            embedding = skeleton.model.get_submodule(skeleton.architecture.embeddings[0])
            skeleton.model.get_submodule(skeleton.architecture.output).weight = embedding.weight
        yield skeleton.model


def watched_batches(data: Calibration, vocabulary: int) -> list[Batch]:
    """The texts set aside, as far as their distributions over ``vocabulary`` tokens may be kept."""
    found, room = [], MOST_KEPT // vocabulary
    for sequence in (sequence for sequence, watched in set_aside(data.sequences) if watched):
        found.append(sequence[:room])
        room -= len(found[-1])
    return small_batches([sequence for sequence in found if sequence], vocabulary)


def trained_batches(data: Calibration, vocabulary: int, tokens: int) -> list[Batch]:
    """All other texts, about ``tokens`` of them at once."""
    trained = [sequence for sequence, watched in set_aside(data.sequences) if not watched]
    return small_batches(trained, vocabulary, tokens)


def small_batches(sequences: Sequence[tuple[int, ...]], vocabulary: int, most: int = MOST_AT_ONCE) -> list[Batch]:
    """Batches whose distributions over ``vocabulary`` tokens fit into memory, of at most about ``most`` tokens."""
    return list(Calibration(tuple(sequences), "").batches(max(1, min(most, MOST_AT_ONCE // vocabulary))))


def log_probabilities(model: nn.Module, batch: Batch, replaced: Mapping[str, Tensor]) -> Tensor:
    """Of the next token at every real token: (tokens, vocabulary)."""
    call: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
    logits: Tensor = functional_call(model, dict(replaced), kwargs=call).logits
    return logits[batch.real].float().log_softmax(-1)


def set_aside(sequences: Sequence[tuple[int, ...]], share: float = 0.125) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Each sequence, and whether it is watched: by chance, about ``share`` of the set, at least one. Equal sets give
    the same, in whatever order they come: they have the same hash, and an artifact is known by it.

    Where there is a single sequence it is trained on and watched in turn: its second half is set aside.
    """
    if len(sequences) == 1 and len(sequences[0]) > 1:
        half = len(sequences[0]) // 2
        yield sequences[0][:half], False
        yield sequences[0][half:], True
        return
    every = max(2, round(1 / share))
    by_chance = sorted(sequences, key=lambda sequence: (hashlib.blake2b(repr(sequence).encode()).digest(), sequence))
    for i, sequence in enumerate(by_chance):
        yield sequence, i % every == 1
