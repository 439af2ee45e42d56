"""How a number, a byte count and a stranger's text are written, everywhere in a report; None reads as unknown.

Differences and margins are in percentage points (``pp``) with a sign and a true minus; accuracies and shares
in per cent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from quantwise.core.verdict import two_digits
from quantwise.plan import fit

UNKNOWN = "unknown"
MINUS = "−"

# C0 and C1 controls but tab and newline, and the marks that reorder text: a model's output must not drive a terminal.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain(text: object) -> str:
    """The text with control characters made visible and lone surrogates replaced, so that it can only be read."""
    swept = _CONTROL.sub(lambda match: _picture(ord(match[0])), str(text).replace("\r\n", "\n"))
    return _SURROGATE.sub("\ufffd", swept)


def _picture(code: int) -> str:
    """Unicode's picture of a control character, or its code point where there is none."""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"


def shorten(text: object, width: int) -> str:
    """One line of at most ``width`` characters; what is cut is the middle, because paths differ at their ends."""
    line = " ".join(plain(text).split())
    if len(line) <= width:
        return line
    head = max((width - 1) // 3, 0)
    tail = max(width - 1 - head, 0)
    return f"{line[:head]}…{line[len(line) - tail :]}"


def finite(value: object) -> float | None:
    """A finite number, or None for everything else (None, NaN, infinities, text)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _fixed(value: float, digits: int) -> str:
    """Fixed decimals; more of them where a value that is not zero would read as zero, up to five."""
    while value and digits < 5 and abs(value) < 0.5 * 10**-digits:
        digits += 1
    text = f"{abs(value):.{digits}f}"
    nothing = float(text) == 0
    return text if nothing else (MINUS if value < 0 else "") + text


def points(value: object, unit: bool = True) -> str:
    """A difference in [-1, 1] as signed percentage points: ``−2.3 pp``."""
    number = finite(value)
    if number is None:
        return UNKNOWN
    text = _fixed(100 * number, 1)
    sign = "+" if number > 0 and float(text) != 0 else ""
    return f"{sign}{text}" + (" pp" if unit else "")


def interval(bounds: Sequence[object] | None, unit: bool = True) -> str:
    """An interval of differences: ``[−4.1, +0.3] pp``."""
    if bounds is None or len(bounds) != 2 or finite(bounds[0]) is None or finite(bounds[1]) is None:
        return UNKNOWN
    return f"[{points(bounds[0], unit=False)}, {points(bounds[1], unit=False)}]" + (" pp" if unit else "")


def margin(value: object) -> str:
    """A margin (a size, so without a sign): ``0.5 pp``."""
    number = finite(value)
    return UNKNOWN if number is None else f"{100 * number:.4g} pp"


def at_most(value: object) -> str:
    """A bound from above as a margin, rounded up in the last of four digits."""
    number = finite(value)
    if number is None or number <= 0.0:
        return margin(value)
    step = 10.0 ** (math.floor(math.log10(number)) - 3)
    return margin(step * math.ceil(number / step - 1e-9))


def share(value: object, digits: int = 1) -> str:
    """A fraction in per cent: ``91.4 %``; with more decimals where it is not the whole and would read as it."""
    number = finite(value)
    if number is None:
        return UNKNOWN
    while 0 < digits < 5 and number < 1 and float(f"{100 * number:.{digits}f}") == 100:
        digits += 1
    return f"{_fixed(100 * number, digits)} %"


def ratio(part: object, whole: object) -> str:
    """One byte count as a share of another: ``27 %``."""
    top, bottom = finite(part), finite(whole)
    return UNKNOWN if top is None or not bottom else share(top / bottom, 0)


def size(value: object) -> str:
    """Bytes as ``quantwise.plan.fit.size`` writes them."""
    number = finite(value)
    return UNKNOWN if number is None else fit.size(number)


def brief_size(value: object) -> str:
    """Bytes in at most six characters: ``8.5MiB``, ``12GiB``; ``?`` where unknown."""
    if finite(value) is None:
        return "?"
    number, unit = size(value).split()
    return (number if len(number + unit) <= 6 else f"{float(number):.{1 if float(number) < 9.95 else 0}f}") + unit


def seconds(value: object) -> str:
    """A duration: ``34 ms``, ``1.24 s``, ``3 min 20 s``, ``1 h 05 min``."""
    number = finite(value)
    if number is None:
        return UNKNOWN
    if number < 0.9995:
        return f"{_fixed(1000 * number, 0 if number >= 0.00995 else 1)} ms"
    if number < 59.95:
        return f"{number:.2f} s" if number < 9.995 else f"{number:.1f} s"
    whole = round(number)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(number / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def countdown(value: float) -> str:
    """Time left, which nobody knows to a fraction of a second: ``7 s``."""
    return f"{value:.0f} s" if value < 59.5 else seconds(value)


def count(value: object) -> str:
    """A whole number with thin thousands: ``12,800``."""
    number = finite(value)
    return UNKNOWN if number is None else f"{number:,.0f}"


def decimal(value: object, digits: int = 2) -> str:
    """Any other quantity, with fixed decimals."""
    number = finite(value)
    return UNKNOWN if number is None else _fixed(number, digits)


def evidence(value: object) -> str:
    """An e-value: two figures while it is small, powers of ten when it is large."""
    if isinstance(value, float) and math.isinf(value) and value > 0:
        return "∞"
    number = finite(value)
    if number is None:
        return UNKNOWN
    if number == 0 or 0.01 <= number < 1000:
        return f"{number:.0f}" if number >= 100 or number == 0 else f"{number:.2g}"
    mantissa, exponent = f"{number:.1e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{power}"


def forecast(bounds: Sequence[object] | None) -> str:
    """Further items as a range, in two digits: ``about 900 (600 to 1,500)``."""
    numbers = [finite(bound) for bound in bounds or ()]
    if len(numbers) != 3:
        return UNKNOWN
    low, middle, high = (UNKNOWN if number is None else count(two_digits(number)) for number in numbers)
    return f"about {middle} ({low} to {high})"


def amount(value: object) -> str:
    """An amount of money or a ratio, with three figures: ``0.00342``, ``1,230``."""
    number = finite(value)
    if number is None:
        return UNKNOWN
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}" if abs(number) >= 1e-4 else f"{number:.2e}"


def shares(bounds: Sequence[object] | None) -> str:
    """Bounds of a fraction, in per cent: ``81.2 to 86.4 %``."""
    low, high = (finite(bound) for bound in bounds) if bounds is not None and len(bounds) == 2 else (None, None)
    if low is None or high is None:
        return UNKNOWN
    # Outward, so that no bound that falls short of a floor reads as if it reached it.
    return f"{math.floor(1000.0 * low + 1e-6) / 10.0:.1f} to {math.ceil(1000.0 * high - 1e-6) / 10.0:.1f} %"


def amounts(bounds: Sequence[object] | None) -> str:
    """An interval of such: ``0.003 to 0.004``."""
    if bounds is None or len(bounds) != 2 or finite(bounds[0]) is None or finite(bounds[1]) is None:
        return UNKNOWN
    return f"{amount(bounds[0])} to {amount(bounds[1])}"
