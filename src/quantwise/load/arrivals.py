"""When requests arrive in an open loop: at a steady pace, at random, or in bursts; never because an answer came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quantwise.core.errors import InputError
from quantwise.stats.differences import FloatArray

MOST_PER_SECOND = 100_000


@dataclass(frozen=True, slots=True)
class Arrivals:
    """``rate`` requests per second on average. The gaps between them follow a gamma distribution of this shape.

    ``burstiness`` is named as in ``vllm bench serve``: 1 is a Poisson process, less comes in bursts (the squared
    coefficient of variation of the gaps is 1 / burstiness), infinity is a constant pace.
    """

    rate: float
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise InputError(f"a rate of {self.rate:g} requests per second is not possible; give a number above 0")
        if self.rate > MOST_PER_SECOND:
            raise InputError(f"a rate of {self.rate:g} per second is more than anybody sends; give at most 1e5")
        if not self.burstiness > 0:
            raise InputError(f"a burstiness of {self.burstiness:g} is not possible; give a number above 0")

    def offsets(self, count: int, seconds: float, seed: int | Sequence[int]) -> FloatArray:
        """Arrival times in seconds from the start, ascending: at most ``count``, all before ``seconds``.

        They are not stretched to fit the rate exactly, as some tools do: that would make the process less random.
        """
        if math.isinf(self.burstiness):
            gaps = np.full(count, 1 / self.rate)
        else:
            scale = 1 / (self.rate * self.burstiness)
            gaps = np.random.default_rng(seed).gamma(self.burstiness, scale, size=count)
        times: FloatArray = np.cumsum(gaps)
        return times[times < seconds]
