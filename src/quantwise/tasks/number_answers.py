"""Reading a numeric answer out of a text."""

from __future__ import annotations

import math
import re
from collections import deque
from decimal import Decimal
from typing import Any

# A sign counts only where nothing precedes it that would make it an operator: 16-3 ends in 3, not in -3.
_NUMBER = re.compile(
    r"(?P<sign>(?<![\w)])[-+−])?[$€£¥]?(?P<sign2>(?<=[$€£¥])[-−])?"
    r"(?P<digits>\d{1,3}(?:[,'’\u00a0\u202f]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][-+]?\d{1,4}(?!\d))?|(?<!\d)\.\d+)"
)
_MARKED = re.compile(r"####\s*" + _NUMBER.pattern)
_SEPARATORS = str.maketrans("", "", ",'’\u00a0\u202f")


def read_number(text: str) -> Decimal | None:
    """The answer in a text: the number after the first ``####`` (GSM8K's mark), else the last number; None without one.

    Thousands separators (comma, apostrophe, no-break space) are dropped, a currency sign may stand before, the decimal
    mark is a point. Digits of any script count.
    """
    found = _MARKED.search(text)
    if found is None:
        found = deque(_NUMBER.finditer(text), maxlen=1)[0] if _NUMBER.search(text) else None
    if found is None:
        return None
    value = Decimal(found["digits"].translate(_SEPARATORS))
    negative = (found["sign"] or found["sign2"]) in ("-", "−")
    return -value if negative else value


def target_number(target: Any) -> Decimal | None:
    """The number that an item's target means: a finite number as it is, or the answer in a text; None otherwise."""
    if isinstance(target, str):
        return read_number(target)
    if isinstance(target, bool) or not isinstance(target, int | float) or not math.isfinite(target):
        return None
    return Decimal(repr(target))
