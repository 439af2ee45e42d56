"""How answers are drawn: greedy or sampled, how often each item is asked, and how long a model may think before it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from quantwise.core.errors import InputError

MOST_REPEATS = 64
MOST_TOP_K = 1_000_000
"""Beyond any vocabulary."""
HOTTEST: Mapping[str, float] = {"vllm": 2.0}
"""The highest temperature of runtimes that refuse more (vLLM's sampling_params.py); a server by URL says so itself."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """The same for every arm; part of the question where it is not the plain greedy one.

    ``temperature`` 0 is greedy. After it ``top_k`` keeps so many of the likeliest tokens (0: all), then ``top_p`` of
    these the likeliest that reach this probability together, then ``min_p`` those with at least this share of the
    likeliest one's probability. ``repeats`` is how many answers are drawn of each item; the item stays the unit of the
    statistics. With ``thinking_cap`` (tokens) what a model thinks is stripped from its answer and may take no more than
    that.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repeats: int = 1
    thinking_cap: int | None = None
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not _number(self.temperature) or not 0 <= self.temperature <= 5:
            raise InputError(f"temperature must be a number from 0 (greedy) to 5, not {self.temperature!r:.40}")
        if not _number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, not {self.top_p!r:.40}")
        if not _whole(self.repeats) or not 1 <= self.repeats <= MOST_REPEATS:
            raise InputError(f"repeats must be a whole number from 1 to {MOST_REPEATS}, not {self.repeats!r:.40}")
        if self.thinking_cap is not None and (not _whole(self.thinking_cap) or self.thinking_cap < 1):
            raise InputError(f"thinking_cap must be a whole number of tokens above 0, not {self.thinking_cap!r:.40}")
        if not _whole(self.top_k) or not 0 <= self.top_k <= MOST_TOP_K:
            raise InputError(f"top_k must be a whole number from 0 (all) to {MOST_TOP_K:,}, not {self.top_k!r:.40}")
        if not _number(self.min_p) or not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be a number from 0 to 1, not {self.min_p!r:.40}")
        idle = {f"{self.repeats} repeats": self.repeats > 1, f"top_p {self.top_p:g}": self.top_p < 1}
        idle |= {f"top_k {self.top_k}": self.top_k > 0, f"min_p {self.min_p:g}": self.min_p > 0}
        if not self.sampled and (what := [name for name, given in idle.items() if given]):
            raise InputError(f"{what[0]} of greedy decoding change nothing; add a temperature, such as 0.7")

    @property
    def sampled(self) -> bool:
        """Whether answers are drawn by chance."""
        return self.temperature > 0

    def to_json(self) -> dict[str, Any]:
        """The fields that are not as in plain greedy decoding, of which nothing is left."""
        return {name: value for name, value in asdict(self).items() if value != getattr(GREEDY, name)}


def decoding_of(given: object) -> Decoding:
    """Decoding from a record of its fields. Raises InputError for anything else, and for unknown fields."""
    names = [f.name for f in fields(Decoding)]
    if not isinstance(given, Mapping):
        raise InputError(f"decoding must be a table of {', '.join(names)}")
    if unknown := sorted(map(str, set(given) - set(names))):
        raise InputError(f"unknown field {unknown[0]!r} in decoding; fields: {', '.join(names)}")
    return Decoding(**given)


def check_heat(decoding: Decoding, candidate: str, runtime: str) -> None:
    """Raise InputError where a candidate's runtime refuses so high a temperature."""
    most = HOTTEST.get(runtime)
    if most is not None and decoding.temperature > most:
        raise InputError(
            f"{candidate}: {runtime} takes temperatures from 0 to {most:g}, not {decoding.temperature:g}; give "
            f"--temperature {most:g} or less, or measure it in another runtime"
        )


def seed_of(question_seed: int, task: str, item: str, repeat: int) -> int:
    """The seed of one answer, in [0, 2^31): the same for every arm, so that their luck is shared."""
    what = f"{question_seed}/{task}/{item}/{repeat}".encode()
    return int.from_bytes(hashlib.blake2b(what, digest_size=4).digest(), "big") >> 1


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


GREEDY = Decoding()
