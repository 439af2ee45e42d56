"""How far two next-token distributions lie apart: mean and 99th percentile KL, share of equal top tokens.

For screening only: near the baseline, divergence does not order candidates by task quality, so it may reject or rank
but never pass. Tokens of one chunk of text are dependent; the standard error therefore counts chunks (clusters), not
tokens.

Where only the ``top`` likeliest tokens are known, both distributions are coarsened to the tokens known on both sides
plus one bar for the rest. Coarsening can only lower the KL (data processing inequality), so the figure is then a lower
bound, and ``truncated`` and ``unknown_mass`` say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quantwise.core.errors import InputError
from quantwise.stats.differences import FloatArray

Position = Mapping[int, float] | FloatArray
"""Log-probabilities (natural) of one position: token id to value for the likeliest, or an array over the vocabulary."""

# Single-precision log-probabilities sum to 1 within about this.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Divergence:
    """Divergence of a candidate from its baseline over ``positions`` tokens in ``chunks`` texts.

    KL in nats, baseline first. Standard errors are clustered by chunk, None with one chunk. ``unknown_mass`` is the
    mean baseline probability outside the tokens known on both sides; with ``truncated`` the KL figures are lower
    bounds.
    """

    mean_kl: float
    mean_kl_se: float | None
    p99_kl: float
    same_top: float
    same_top_se: float | None
    positions: int
    chunks: int
    truncated: bool
    unknown_mass: float


def divergence(baseline: Sequence[Sequence[Position]], candidate: Sequence[Sequence[Position]]) -> Divergence:
    """Compare chunk by chunk and position by position.

    Both arguments: chunks, each a sequence (or a (positions, vocabulary) array) of positions, in the same order. Raises
    InputError when the shapes differ or nothing is given.
    """
    if len(baseline) != len(candidate) or not len(baseline):
        raise InputError(
            f"divergence needs the same chunks on both sides: got {len(baseline)} of the baseline and {len(candidate)}"
        )
    kl: list[FloatArray] = []
    same: list[FloatArray] = []
    unknown: list[float] = []
    truncated = False
    for number, (base, cand) in enumerate(zip(baseline, candidate, strict=True)):
        if len(base) != len(cand) or not len(base):
            raise InputError(
                f"chunk {number} has {len(base)} positions of the baseline and {len(cand)} of the candidate: "
                "both must be tokenized alike"
            )
        rows = [_position(b, c) for b, c in zip(base, cand, strict=True)]
        kl.append(np.array([row[0] for row in rows]))
        same.append(np.array([float(row[1]) for row in rows]))
        unknown.extend(row[2] for row in rows)
        truncated |= any(row[3] for row in rows)
    mean_kl, mean_kl_se = clustered_mean(kl)
    same_top, same_top_se = clustered_mean(same)
    everything = np.concatenate(kl)
    return Divergence(
        mean_kl=mean_kl,
        mean_kl_se=mean_kl_se,
        p99_kl=float(np.quantile(everything, 0.99)),
        same_top=same_top,
        same_top_se=same_top_se,
        positions=len(everything),
        chunks=len(kl),
        truncated=truncated,
        unknown_mass=float(np.mean(unknown)),
    )


def clustered_mean(clusters: Sequence[FloatArray]) -> tuple[float, float | None]:
    """Mean over all values and its standard error with clusters as the unit (linearised); None with one cluster."""
    sizes = np.array([len(c) for c in clusters], dtype=np.float64)
    sums = np.array([c.sum() for c in clusters])
    mean = float(sums.sum() / sizes.sum())
    count = len(clusters)
    if count < 2:
        return mean, None
    residual = sums - mean * sizes
    return mean, float(math.sqrt(count / (count - 1) * float(residual @ residual)) / sizes.sum())


def _position(base: Position, cand: Position) -> tuple[float, bool, float, bool]:
    """KL, whether the top tokens agree, unknown baseline mass, whether anything was truncated."""
    if isinstance(base, Mapping) and isinstance(cand, Mapping):
        return _sparse(base, cand)
    if isinstance(base, Mapping) or isinstance(cand, Mapping) or len(base) != len(cand):
        raise InputError(
            "divergence needs the same kind of distribution on both sides: give both as dicts or as arrays"
        )
    p = np.asarray(base, dtype=np.float64)
    q = np.asarray(cand, dtype=np.float64)
    weight = np.exp(p)
    seen = weight > 0.0
    kl = float(np.sum(weight[seen] * (p[seen] - q[seen])))
    return max(0.0, kl), int(p.argmax()) == int(q.argmax()), 0.0, False


def _sparse(base: Mapping[int, float], cand: Mapping[int, float]) -> tuple[float, bool, float, bool]:
    shared = base.keys() & cand.keys()
    kl = known_p = known_q = 0.0
    for token in shared:
        p = math.exp(base[token])
        known_p += p
        known_q += math.exp(cand[token])
        kl += p * (base[token] - cand[token])
    rest_p, rest_q = max(0.0, 1.0 - known_p), max(0.0, 1.0 - known_q)
    truncated = rest_p > _ROUNDING or rest_q > _ROUNDING
    if rest_p > _ROUNDING:
        # A floor under the candidate's rest: rounding must not look like an infinite divergence. It only lowers the KL.
        kl += rest_p * math.log(rest_p / max(rest_q, _ROUNDING))
    same = bool(base) and bool(cand) and max(base, key=base.__getitem__) == max(cand, key=cand.__getitem__)
    return max(0.0, kl), same, rest_p, truncated
