"""Numbers are written alike everywhere, and what is unknown is never a number."""

from __future__ import annotations

import math

import pytest

from quantwise.report import notation as n


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (n.points(-0.023), "−2.3 pp"),
        (n.points(0.004), "+0.4 pp"),
        (n.points(0.0), "0.0 pp"),
        (n.points(-0.0), "0.0 pp"),
        (n.points(-0.0004), "−0.04 pp"),
        (n.points(1e-12), "0.00000 pp"),
        (n.interval([-0.041, 0.003]), "[−4.1, +0.3] pp"),
        (n.margin(0.005), "0.5 pp"),
        (n.share(0.914), "91.4 %"),
        (n.share(0.99996), "99.996 %"),
        (n.share(1.0), "100.0 %"),
        (n.shares((0.69996, 0.86411)), "69.9 to 86.5 %"),
        (n.shares((0.7, 0.864)), "70.0 to 86.4 %"),
        (n.ratio(27, 100), "27 %"),
        (n.size(0), "0 B"),
        (n.size(1023), "1023 B"),
        (n.size(8_912_896), "8.50 MiB"),
        (n.size(1024**3 - 1), "1.00 GiB"),
        (n.size(712_400_896), "679 MiB"),
        (n.brief_size(8_912_896), "8.5MiB"),
        (n.brief_size(12.7 * 1024**3), "13GiB"),
        (n.seconds(0.034), "34 ms"),
        (n.seconds(0.0024), "2.4 ms"),
        (n.seconds(1.236), "1.24 s"),
        (n.seconds(59.97), "1 min 00 s"),
        (n.seconds(200), "3 min 20 s"),
        (n.seconds(3900), "1 h 05 min"),
        (n.count(12800), "12,800"),
        (n.evidence(52.0), "52"),
        (n.evidence(4.2e6), "4.2×10⁶"),
        (n.evidence(0.0004), "4.0×10⁻⁴"),
        (n.evidence(math.inf), "∞"),
        (n.forecast([600, 900, 1500]), "about 900 (600 to 1,500)"),
    ],
)
def test_written(written: str, expected: str) -> None:
    assert written == expected


@pytest.mark.parametrize("nothing", [None, math.nan, "", "12", True])
@pytest.mark.parametrize(
    "write", [n.points, n.margin, n.share, n.size, n.seconds, n.count, n.decimal, n.evidence], ids=lambda f: f.__name__
)
def test_what_is_no_number_is_unknown(write: object, nothing: object) -> None:
    assert write(nothing) == "unknown"  # type: ignore[operator]


def test_half_an_interval_is_unknown() -> None:
    assert n.interval(None) == n.interval([None, 0.1]) == n.forecast(None) == "unknown"
    assert n.ratio(3, 0) == n.ratio(None, 3) == n.ratio(3, None) == "unknown"


def test_control_characters_become_visible() -> None:
    assert n.plain("a\x1b[31mb\x00\x7f\x9b") == "a␛[31mb␀␡⟨U+009B⟩"
    assert n.plain("right\u202eleft") == "right⟨U+202E⟩left"
    assert n.plain("keep\ttab\nline") == "keep\ttab\nline"
    assert n.plain("lone \ud800").encode() == "lone \ufffd".encode()


@pytest.mark.parametrize("width", [4, 7, 12, 40])
def test_shorten_keeps_the_end_of_a_path(width: int) -> None:
    short = n.shorten("/models/family/size-q4_0.gguf", width)
    assert len(short) <= width
    assert short.endswith("uf")


def test_a_bound_from_above_is_rounded_up() -> None:
    assert n.at_most(0.0512341) == "5.124 pp"
    assert n.at_most(0.05) == "5 pp"
    assert n.at_most(0.0) == "0 pp"
    assert n.at_most(None) == n.margin(None)
