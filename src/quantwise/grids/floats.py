"""The floating-point types side by side: what range and what precision each one buys for its bits.

IEEE 754-2019 (binary32, binary16); bfloat16 is binary32 without its lower half; FP8 as in Micikevicius et al. 2022,
https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FloatType:
    """1 sign bit, ``exponent`` bits and ``mantissa`` bits, exponents offset by 2^(exponent-1) - 1.

    ``finite_top`` tells types that spend their topmost exponent on numbers (all but one pattern) instead of infinities.
    """

    name: str
    exponent: int
    mantissa: int
    finite_top: bool = False

    @property
    def bits(self) -> int:
        """Bits of one number."""
        return 1 + self.exponent + self.mantissa

    @property
    def largest(self) -> float:
        """The largest finite number."""
        half = 1 << (self.exponent - 1)
        if self.finite_top:
            # Its all-ones mantissa is NaN, so the one below it is the largest.
            return math.ldexp(2 - 2 * self.step, half)
        return math.ldexp(2 - self.step, half - 1)

    @property
    def smallest_normal(self) -> float:
        """The smallest positive number of full precision."""
        return math.ldexp(1, 2 - (1 << (self.exponent - 1)))

    @property
    def smallest(self) -> float:
        """The smallest positive number."""
        return self.smallest_normal * self.step

    @property
    def step(self) -> float:
        """Distance from 1 to the next number; half of it is the largest relative rounding error."""
        return math.ldexp(1, -self.mantissa)


FLOAT_TYPES = (
    FloatType("fp32", 8, 23),
    FloatType("fp16", 5, 10),
    FloatType("bf16", 8, 7),
    FloatType("fp8-e4m3", 4, 3, finite_top=True),
    FloatType("fp8-e5m2", 5, 2),
)
