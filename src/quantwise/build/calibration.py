"""Calibration texts as token sequences: a bounded, seeded selection, kept apart from each other."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from quantwise.core.errors import InputError

# Of texts that nobody counted. More tokens change little: see "calibration data" in docs/build.md.
MOST_TOKENS = 65_536
# Fewer are a slip of the pen. Enough is another matter: `quantwise build --calibration-study` shows it.
FEWEST_TOKENS = 16
LONGEST_SEQUENCE = 2048
# What a layer gives for so many tokens is small enough to be used again from the heap; fresh pages cost more than sums.
_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of similar length, padded on the right: ``ids`` int64 (sequences, length), ``real`` bool of that shape.

    A causal model never looks right, so padding changes nothing at real positions and needs no attention mask.
    """

    ids: Tensor
    real: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """Texts, of which about ``most`` tokens are read; None: all of them, as where a person said how many texts."""

    texts: tuple[str, ...]
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The sequences used, the hash of exactly these tokens, and how many texts were left ``unread``."""

    sequences: tuple[tuple[int, ...], ...]
    hash: str
    unread: int = 0

    @property
    def read(self) -> dict[str, int]:
        """What an artifact says of it: texts with a token in them that were read, of how many, and their tokens."""
        return {"texts": len(self.sequences), "of": len(self.sequences) + self.unread, "tokens": self.tokens}

    @property
    def sentence(self) -> str:
        """One line for a person, where texts were left unread."""
        return (
            f"calibration reads {self.read['texts']:,} of {self.read['of']:,} texts, {self.tokens:,} tokens; "
            "--samples N reads N whatever their tokens"
        )

    @property
    def tokens(self) -> int:
        """How many tokens the statistics rest on."""
        return sum(map(len, self.sequences))

    def batches(self, most: int = _BATCH_TOKENS) -> Iterator[Batch]:
        """About ``most`` tokens each, longest first, so that memory is known after the first batch."""
        left = sorted(self.sequences, key=lambda s: (-len(s), s))
        while left:
            width = len(left[0])
            count = max(1, most // width)
            part, left = left[:count], left[count:]
            ids, real = torch.zeros(len(part), width, dtype=torch.long), torch.zeros(len(part), width, dtype=torch.bool)
            for row, sequence in enumerate(part):
                ids[row, : len(sequence)] = torch.tensor(sequence)
                real[row, : len(sequence)] = True
            yield Batch(ids, real)


def calibrate(folder: Path, texts: Sequence[str] | Sample, longest: int, seed: int) -> Calibration:
    """Tokenize ``texts`` in a seeded order until MOST_TOKENS, or as a sample says; each is cut at ``longest`` tokens of
    the model's context.

    Raises InputError where fewer than FEWEST_TOKENS are left, or where the folder has no readable tokenizer.json.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(
            f"{folder / 'tokenizer.json'} cannot be read ({error}); calibration needs it: download it again, or use rtn"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    sample = texts if isinstance(texts, Sample) else Sample(tuple(texts), MOST_TOKENS)
    order = list(range(len(sample.texts)))
    random.Random(seed).shuffle(order)
    sequences: list[tuple[int, ...]] = []
    room, unread = sample.most, 0
    for done, i in enumerate(order):
        if room is not None and room <= 0:
            unread = len(order) - done
            break
        ids = tuple(tokenizer.encode(sample.texts[i]).ids[: min(longest, LONGEST_SEQUENCE)])[:room]
        if ids:
            sequences.append(ids)
            room = None if room is None else room - len(ids)
    if not sequences:
        raise InputError("the calibration set has no text; give at least one text, better a hundred")
    tokens = sum(map(len, sequences))
    if tokens < FEWEST_TOKENS:
        raise InputError(
            f"the calibration set has {tokens} token{'s' * (tokens != 1)}, "
            f"and statistics want {FEWEST_TOKENS} or more; give more text, or use rtn"
        )
    digest = hashlib.blake2b(digest_size=16)
    for sequence in sorted(sequences):
        digest.update(repr(sequence).encode())
    return Calibration(tuple(sequences), digest.hexdigest(), unread)
