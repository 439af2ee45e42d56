"""Divergence against a slow computation, closed forms, and the promise of a lower bound under truncation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.stats.divergence import clustered_mean, divergence


def chunks(seed: int, count: int = 4, positions: int = 30, vocabulary: int = 50) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, (count, positions, vocabulary))
    return list(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


def nearby(base: list[np.ndarray], noise: float) -> list[np.ndarray]:
    rng = np.random.default_rng(99)
    moved = [b + rng.normal(0.0, noise, b.shape) for b in base]
    return [m - np.log(np.exp(m).sum(-1, keepdims=True)) for m in moved]


def top(arrays: list[np.ndarray], k: int) -> list[list[dict[int, float]]]:
    return [[{int(t): float(row[t]) for t in np.argsort(row)[::-1][:k]} for row in chunk] for chunk in arrays]


def test_arrays_agree_with_the_slow_sum() -> None:
    base, cand = chunks(1), nearby(chunks(1), 0.3)
    slow = [
        sum(math.exp(p) * (p - q) for p, q in zip(pr, qr, strict=True))
        for b, c in zip(base, cand, strict=True)
        for pr, qr in zip(b, c, strict=True)
    ]
    found = divergence(base, cand)
    assert found.mean_kl == pytest.approx(np.mean(slow))
    assert found.p99_kl == pytest.approx(np.quantile(slow, 0.99))
    assert (found.positions, found.chunks, found.truncated, found.unknown_mass) == (120, 4, False, 0.0)
    agree = np.mean([b.argmax(-1) == c.argmax(-1) for b, c in zip(base, cand, strict=True)])
    assert found.same_top == pytest.approx(agree)


def test_equal_distributions_diverge_by_nothing() -> None:
    base = chunks(2)
    assert divergence(base, base).mean_kl == 0.0
    found = divergence(top(base, 5), top(base, 5))
    assert found.mean_kl == 0.0
    assert found.same_top == 1.0
    assert found.truncated


def test_full_dicts_agree_with_arrays() -> None:
    base, cand = chunks(3), nearby(chunks(3), 0.2)
    sparse, dense = divergence(top(base, 50), top(cand, 50)), divergence(base, cand)
    assert sparse.mean_kl == pytest.approx(dense.mean_kl, rel=1e-6)
    assert sparse.mean_kl_se == pytest.approx(dense.mean_kl_se, rel=1e-6)
    assert not sparse.truncated


def test_truncation_is_stated_and_only_lowers_the_kl() -> None:
    base, cand = chunks(4), nearby(chunks(4), 0.5)
    full = divergence(base, cand).mean_kl
    known = [divergence(top(base, k), top(cand, k)) for k in (2, 10, 30, 50)]
    assert all(k.mean_kl <= full + 1e-9 for k in known)
    assert [k.truncated for k in known] == [True, True, True, False]
    assert known[0].unknown_mass > known[1].unknown_mass > known[2].unknown_mass
    assert known[2].mean_kl > 0.5 * full


def test_standard_error_counts_chunks_not_tokens() -> None:
    """Perfectly dependent tokens: ten copies of one value carry the information of one."""
    values = np.array([0.1, 0.4, 0.2, 0.7])
    mean, se = clustered_mean([np.full(10, v) for v in values])
    assert mean == pytest.approx(values.mean())
    assert se == pytest.approx(values.std(ddof=1) / 2.0)
    assert clustered_mean([values])[1] is None


def test_mismatched_input_is_refused() -> None:
    base = chunks(5)
    with pytest.raises(InputError, match="chunks"):
        divergence(base, base[:-1])
    with pytest.raises(InputError, match="chunk 0"):
        divergence(base, [b[:-1] for b in base])
    with pytest.raises(InputError, match="dicts or as arrays"):
        divergence(base, top(base, 3))
