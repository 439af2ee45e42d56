"""NF4: sixteen quantiles of the normal distribution, 64 weights of a row to a scale; and double quantization of scales.

Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", https://arxiv.org/abs/2305.14314 (section 3, and
appendix E for the table). The 8-bit numbers that scales are rounded to are those of Dettmers 2015, "8-Bit
Approximations for Parallelism in Deep Learning", https://arxiv.org/abs/1511.04561. Tables and scales equal those of the
bitsandbytes library to the bit (its own CPU kernel misses the nearest 8-bit number for about one scale in a thousand).
So do codes, but for one improvement: with double quantization they are chosen for the rounded scales, not the original
ones, which is what the file will multiply them with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor

# The outermost probability: mean of 1 - 1/32 and 1 - 1/30, as the authors' library writes it.
_OUTERMOST = 0.9677083
_SCALE_BLOCK = 256
_SMALLEST = 1e-38


@cache
def normal_quantiles() -> Tensor:
    """The sixteen NF4 values, float32, ascending from -1 to 1; code 7 is zero.

    Eight quantiles above the median and seven below, each half spaced evenly in probability, so that zero has a code.
    """

    def half(points: int) -> list[float]:
        # Probabilities in float32, as in the reference table; in float64 the last bits would differ.
        return [NormalDist().inv_cdf(p) for p in torch.linspace(_OUTERMOST, 0.5, points)[:-1].tolist()]

    values = torch.tensor(sorted([*half(9), 0.0, *(-q for q in half(8))]))
    return values / values.max()


@cache
def dynamic_numbers() -> Tensor:
    """The 256 numbers of the signed dynamic 8-bit type, float32, ascending.

    Seven decades below 1, the decade from 10^(e-1) to 10^e split into 2^(6+e) equal parts of which the middles count;
    their negatives; zero and one.
    """
    values = [0.0, 1.0]
    for exponent in range(-6, 1):
        edges = torch.linspace(0.1, 1, 2 ** (6 + exponent) + 1)
        middles = (10.0**exponent * ((edges[:-1] + edges[1:]) / 2)).tolist()
        values += [*middles, *(-m for m in middles)]
    return torch.tensor(sorted(values))


def _nearest(values: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of an ascending table; a tie takes the lower one."""
    return torch.bucketize(values.contiguous(), (table[:-1] + table[1:]) / 2)


@dataclass(frozen=True, slots=True)
class RoundedScales:
    """Scales in 8 bit: ``codes`` uint8 (n,), ``largest`` float32 (ceil(n / 256),), ``mean`` float32 ().

    Scale i is dynamic_numbers()[codes[i]] * largest[i // 256] + mean.
    """

    codes: Tensor
    largest: Tensor
    mean: Tensor

    def values(self) -> Tensor:
        """The scales that the codes stand for, float32 (n,)."""
        largest = self.largest.repeat_interleave(_SCALE_BLOCK)[: len(self.codes)]
        return dynamic_numbers()[self.codes.long()] * largest + self.mean


def round_scales(scales: Tensor) -> RoundedScales:
    """Double quantization of float32 (n,) scales: their mean is taken off and the rest rounded in blocks of 256."""
    mean = scales.mean()
    blocks = -(-len(scales) // _SCALE_BLOCK)
    rest = torch.zeros(blocks * _SCALE_BLOCK)
    rest[: len(scales)] = scales - mean
    rest = rest.reshape(blocks, _SCALE_BLOCK)
    largest = rest.abs().amax(1)
    share = (rest * (1 / largest.clamp(min=_SMALLEST)).unsqueeze(1)).clamp(-1, 1)
    codes = _nearest(share, dynamic_numbers()).to(torch.uint8).reshape(-1)[: len(scales)]
    return RoundedScales(codes.contiguous(), largest, mean)


@dataclass(frozen=True, slots=True)
class Nf4Steps:
    """Fitted parameters of a (rows, columns) matrix: ``scale`` float32 (rows, columns / 64), never a zero point.

    ``rounded`` holds the same scales in 8 bit (row after row) where they are doubly quantized, else None.
    """

    scale: Tensor
    columns: int
    rounded: RoundedScales | None = None
    zero: None = None

    def spread(self) -> tuple[Tensor, None]:
        """``scale`` for every column: (rows, columns)."""
        return self.scale.repeat_interleave(self.columns // self.scale.shape[1], dim=1), None


@dataclass(frozen=True, slots=True)
class Nf4Grid:
    """NF4 with or without ``double`` quantization. A code is an index into ``normal_quantiles()``."""

    double: bool = False
    block: int = 64
    lowest: int = 0
    highest: int = 15

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> Nf4Steps:
        """The largest |weight| of each block of 64, rounded to 8 bit where ``double``.

        ``importance`` is not read: the table is made for blocks that are scaled to -1 .. 1. Raises ValueError where a
        row does not split into blocks.
        """
        rows, columns = weight.shape
        if columns % self.block:
            raise ValueError(f"{columns} columns do not split into blocks of {self.block}")
        largest = weight.float().reshape(rows, -1, self.block).abs().amax(-1)
        if not self.double:
            return Nf4Steps(largest, columns)
        rounded = round_scales(largest.reshape(-1))
        return Nf4Steps(rounded.values().reshape(largest.shape), columns, rounded)

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """Codes (float32, whole numbers) of the nearest quantiles; ``scale`` broadcasts to the shape of ``values``."""
        # Times the reciprocal, as bitsandbytes computes it; a rounded scale of nothing may come out as zero or below.
        share = (values * (1 / scale.clamp(min=_SMALLEST))).clamp(-1, 1)
        return _nearest(share, normal_quantiles()).float()

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        """The numbers that codes stand for."""
        return normal_quantiles()[codes.long()] * scale

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Nf4Steps]:
        """Nearest codes, int8 (rows, columns), of the scales that ``fit`` gives."""
        steps = self.fit(weight)
        return self.round(weight.float(), *steps.spread()).to(torch.int8), steps

    def decode(self, codes: Tensor, steps: Nf4Steps) -> Tensor:
        """The float32 matrix that codes stand for, (rows, columns)."""
        return self.value(codes, *steps.spread())
