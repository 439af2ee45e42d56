"""An amount of memory as a person writes it."""

from __future__ import annotations

import re

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b?)", re.ASCII)


def memory_size(text: str) -> int | None:
    """Bytes of ``12GB`` (10^9), ``12GiB`` (2^30) or plain bytes; None where it says none."""
    match = _SIZE.fullmatch(text.strip().lower())
    if not match or not 0 < float(match[1]) < 1e30:
        return None
    unit = _UNITS[match[2] or ""] if not match[3] else 1024 ** ("kmgt".index(match[2]) + 1)
    return int(float(match[1]) * unit)
