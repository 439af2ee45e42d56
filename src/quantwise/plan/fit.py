"""Whether bytes fit under a limit, and what would be the cheapest way to make them fit."""

from __future__ import annotations

import math
from typing import Literal

from quantwise.core.evidence import Fit

MARGINAL = 0.9
"""Above this share of the limit a fit is marginal: the terms are estimates, and a machine does other things too."""


def fit(
    candidate: str,
    weights_bytes: int | None,
    cache_bytes: int | None,
    overhead_bytes: int | None,
    limit_bytes: int | None,
) -> Fit:
    """Compare the sum of the terms with the limit, all in bytes; an unknown term (None) makes the answer unknown.

    Weights alone above the limit are a "no" whatever else is unknown.
    """
    terms = (weights_bytes, cache_bytes, overhead_bytes)
    least = sum(term for term in terms if term is not None)
    if limit_bytes is None or (None in terms and least <= limit_bytes):
        return Fit(candidate, *terms, limit_bytes, "unknown")
    answer: Literal["yes", "marginal", "no"] = "yes"
    if least > limit_bytes:
        answer = "no"
    elif least > MARGINAL * limit_bytes:
        answer = "marginal"
    fix = None if answer == "yes" else _fix(weights_bytes or 0, cache_bytes or 0, least, limit_bytes)
    return Fit(candidate, *terms, limit_bytes, answer, fix)


def _fix(weights: int, cache: int, total: int, limit: int) -> str:
    """One sentence; a setting before a smaller scheme before another machine."""
    over = total - int(MARGINAL * limit)
    need = f"needs {size(total)} of {size(limit)}"
    if cache * 15 // 32 >= over:
        return f"{need}; an 8-bit cache (kv=q8_0) saves {size(cache * 15 // 32)}"
    if cache >= 2 * over:
        return f"{need}; half the context or half the requests at a time save {size(cache // 2)}"
    if weights > over:
        return f"{need}; take a scheme whose weights are {size(weights - over)} or less (these: {size(weights)})"
    return (
        f"{need}; no setting saves enough: take a machine with {size(int(total / MARGINAL))} free, or a smaller model"
    )


_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(amount: float) -> str:
    """Bytes as a person reads them: three figures and a binary unit, ``7.88 MiB``."""
    if abs(amount) < 1024:
        return f"{amount:.0f} B"
    scaled, step = amount / 1024, 0
    while abs(scaled) >= 999.5 and step < len(_UNITS) - 1:
        scaled, step = scaled / 1024, step + 1
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:,.{digits}f} {_UNITS[step]}"


def room_for(amount: float) -> int:
    """The least bytes, whole in three figures of their unit (as ``size`` tells them), that are not less."""
    unit = 1
    while amount >= 1024 * unit:
        unit *= 1024
    step = unit if unit == 1 or amount >= 100 * unit else unit / 10 if amount >= 10 * unit else unit / 100
    return math.ceil(math.ceil(amount / step) * step)
