"""GPTQ: round column by column and let the columns still to come absorb each rounding error.

Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
https://arxiv.org/abs/2210.17323. With activation order (columns of large mean square input first) and static groups
(scales are fitted before the columns are permuted, so that the file needs no column index).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from quantwise.core.artifact import Degradation
from quantwise.core.errors import QuantwiseError
from quantwise.grids.grid import Grid, S
from quantwise.quantize.quantizer import Quantized, Quantizer

_DAMPING_GROWTH, _DAMPING_TRIES = 10.0, 6


@dataclass(frozen=True, slots=True)
class Factor:
    """What GPTQ needs of a Hessian.

    ``order`` lists columns as they are rounded; ``upper`` is float32 (in, in), the upper Cholesky factor U of the
    inverse damped Hessian in that order (H^-1 = U^T U); ``penalty`` is 1 / U_jj^2 for each column in the matrix's own
    order: what a squared rounding error there costs once later columns have absorbed what they can. ``silent`` counts
    inputs never seen.
    """

    order: Tensor
    upper: Tensor
    penalty: Tensor
    silent: int
    damping: float
    tries: int


def factorize(hessian: Tensor, damping: float, act_order: bool) -> Factor:
    """Damp, order and factorize a float64 (in, in) Hessian. Raises QuantwiseError where no damping makes it definite.

    The factor of the inverse is found without the inverse: reversing rows and columns of H turns its lower Cholesky
    factor into an upper R with H = R R^T, and U = R^-1.
    """
    diagonal = hessian.diagonal().clone()
    silent = diagonal <= 0
    mean = float(diagonal[~silent].mean()) if bool((~silent).any()) else 1.0
    order = torch.argsort(diagonal, descending=True, stable=True) if act_order else torch.arange(len(diagonal))
    damped = hessian[order][:, order].clone()
    # A silent input has a row and a column of zeros; any positive diagonal leaves its weights to plain rounding.
    damped.diagonal()[silent[order]] = mean
    identity = torch.eye(len(diagonal), dtype=hessian.dtype)
    share = damping
    for tries in range(_DAMPING_TRIES):
        lower, failed = torch.linalg.cholesky_ex((damped + share * mean * identity).flip(0, 1))
        if not int(failed) and bool(torch.isfinite(lower).all()):
            upper = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
            if bool(torch.isfinite(upper).all()):
                penalty = torch.empty_like(diagonal)
                penalty[order] = upper.diagonal().square().reciprocal()
                return Factor(order, upper.float(), penalty, int(silent.sum()), share, tries)
        share = share * _DAMPING_GROWTH if share else 1e-6
    raise QuantwiseError(
        f"the Hessian of a layer stays indefinite at a damping of {share:g}: its calibration inputs are not finite; "
        "check the model, or use rtn for this scheme"
    )


@dataclass(slots=True)
class Gptq:
    """GPTQ with its usual settings.

    ``block`` columns are updated at once; the rest of the matrix is updated once for each block. ``damping`` is the
    share of the mean diagonal that is added to it. ``search`` fits scales to the least rounding error weighted by each
    column's penalty (see Factor): on held-out inputs that beats covering the range, and weighting by mean squares.
    """

    name: str = "gptq"
    needs: frozenset[str] = frozenset({"hessian"})
    block: int = 128
    damping: float = 0.01
    act_order: bool = True
    search: bool = True
    # q, k and v (gate and up) share their input, hence its factor: the last one is kept, or all that are shared.
    _last: tuple[Tensor, Factor] | None = field(default=None, repr=False, compare=False)
    _shared: MutableMapping[Tensor, Factor] | None = field(default=None, repr=False, compare=False)

    def __call__(self, weight: Tensor, grid: Grid[S], seen: Mapping[str, Tensor]) -> Quantized[S]:
        """Quantize ``weight`` (out, in) against ``seen["hessian"]``."""
        factor = self._factor(seen["hessian"])
        steps = grid.fit(weight, factor.penalty if self.search else None)
        scale, zero = steps.spread()
        scale = scale.expand(weight.shape[0], -1)[:, factor.order]
        zero = None if zero is None else zero.expand(weight.shape[0], -1)[:, factor.order]
        ordered = _compensate(weight.float()[:, factor.order], grid, scale, zero, factor.upper, self.block)
        codes = torch.empty_like(ordered, dtype=torch.int8)
        codes[:, factor.order] = ordered.to(torch.int8)
        return Quantized(codes, steps, grid.decode(codes, steps), self._retreats(factor))

    def share(self, factors: MutableMapping[Tensor, Factor]) -> None:
        """Look for factors among ``factors`` and keep new ones there."""
        self._shared = factors

    def _factor(self, hessian: Tensor) -> Factor:
        if self._shared is not None:
            found = self._shared.get(hessian)
            if found is None:
                found = self._shared[hessian] = factorize(hessian, self.damping, self.act_order)
            return found
        if self._last is None or self._last[0] is not hessian:
            self._last = hessian, factorize(hessian, self.damping, self.act_order)
        return self._last[1]

    def _retreats(self, factor: Factor) -> tuple[Degradation, ...]:
        found = []
        if factor.tries:
            found.append(
                Degradation(
                    "",
                    f"Hessian not positive definite: damping raised from {self.damping:g} to "
                    f"{factor.damping:g} of its mean diagonal",
                )
            )
        if factor.silent:
            found.append(
                Degradation(
                    "",
                    f"{factor.silent} of {len(factor.order)} input channels were silent in "
                    "calibration; their weights are rounded to nearest",
                )
            )
        return tuple(found)


def share_factors(quantizers: Iterable[Quantizer]) -> None:
    """Let those of ``quantizers`` that are Gptq with equal settings factorize a Hessian once for all of them.

    A factor is then kept for as long as its Hessian, which for one quantizer alone would be memory for nothing.
    """
    alike: dict[tuple[float, bool], list[Gptq]] = {}
    for quantizer in quantizers:
        if isinstance(quantizer, Gptq):
            alike.setdefault((quantizer.damping, quantizer.act_order), []).append(quantizer)
    for several in alike.values():
        if len(several) > 1:
            factors: MutableMapping[Tensor, Factor] = WeakTensorKeyDictionary()
            for quantizer in several:
                quantizer.share(factors)


def _compensate(weight: Tensor, grid: Grid[S], scale: Tensor, zero: Tensor | None, upper: Tensor, block: int) -> Tensor:
    """Codes (float32, whole) of an already ordered (out, in) matrix. Algorithm 1 of the paper.

    Columns are kept as rows inside: a column, and all those a rounding error goes to, then lie side by side in memory.
    """
    left = weight.T.contiguous()
    scale, zero = scale.T.contiguous(), None if zero is None else zero.T.contiguous()
    codes = torch.empty_like(left)
    columns = len(left)
    for start in range(0, columns, block):
        stop = min(start + block, columns)
        part, local = left[start:stop], upper[start:stop, start:stop]
        errors = torch.empty_like(part)
        for j in range(stop - start):
            column, at = part[j], start + j
            z = None if zero is None else zero[at]
            code = grid.round(column, scale[at], z)
            error = (column - grid.value(code, scale[at], z)) / local[j, j]
            part[j + 1 :].addr_(local[j, j + 1 :], error, alpha=-1.0)
            codes[at], errors[j] = code, error
        left[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1.0)
    return codes.T
