"""Traces of requests: drawn by a seed, or read from a file."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from quantwise.core.errors import InputError
from quantwise.plan.request_trace import SECOND, Lengths, TracedRequest, poisson_trace, read_trace


def test_arrivals_and_lengths_have_their_means() -> None:
    trace = poisson_trace(Lengths(500, 200, 100_000), 5.0, 20_000, 7)
    assert trace[-1].arrival / SECOND == pytest.approx(20_000 / 5.0, rel=0.03)
    assert mean(r.prompt for r in trace) == pytest.approx(500, rel=0.03)
    assert mean(r.output for r in trace) == pytest.approx(200, rel=0.03)
    assert trace == poisson_trace(Lengths(500, 200, 100_000), 5.0, 20_000, 7)
    assert trace != poisson_trace(Lengths(500, 200, 100_000), 5.0, 20_000, 8)


def test_requests_stay_within_the_longest_and_fill_it_where_asked() -> None:
    trace = poisson_trace(Lengths(500, 400, 600, spread=1.5, prefix=100, groups=3), 5.0, 2000, 1)
    assert max(r.tokens for r in trace) == 600
    assert all(r.prompt >= 1 and r.output >= 1 and r.prefix <= r.prompt for r in trace)
    assert {r.group for r in trace} == {0, 1, 2}
    assert {r.tokens for r in poisson_trace(Lengths(500, 400, 600, fills=True), 5.0, 200, 1)} == {600}


def test_a_file_is_read_and_sorted(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt,output,group,prefix\n1.5,10,3,2,8\n0,7,1,,\n")
    assert read_trace(path) == [TracedRequest(0, 7, 1), TracedRequest(1_500_000_000, 10, 3, 2, 8)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("arrival_s,prompt\n1,2\n", "lacks the columns output"),
        ("", "lacks the columns arrival_s, prompt, output"),
        ("arrival_s,prompt,output\n", "holds no request"),
        ("arrival_s,prompt,output\n0,1,1\n1,x,3\n", "line 3: prompt must be a number, not 'x'"),
        ("arrival_s,prompt,output\n1,2\n", "line 2: output must be a number, not ''"),
        ("arrival_s,prompt,output\n-1,2,3\n", "arrival_s must be at least 0"),
        ("arrival_s,prompt,output\nnan,2,3\n", "arrival_s must be at least 0"),
        ("arrival_s,prompt,output\n1,99999999999999,3\n", "prompt must be below 1,000,000,000,000, not"),
        ("arrival_s,prompt,output\n1e308,2,3\n", "arrival_s must be below 1,000,000,000,000, not"),
        ("arrival_s,prompt,output\n1,inf,3\n", "prompt must be whole and at least 0"),
        ("arrival_s,prompt,output\n1,2.5,3\n", "prompt must be whole and at least 0"),
        ("arrival_s,prompt,output\n1,2,0\n", "at least 1 token"),
        ("arrival_s,prompt,output,prefix\n1,2,1,3\n", "prefix within the prompt"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_trace(path)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00arrival")
    with pytest.raises(InputError, match="no CSV text"):
        read_trace(tmp_path / "bytes.csv")


@pytest.mark.parametrize("lengths", [Lengths(0, 1, 10), Lengths(1, 0, 10), Lengths(1, 1, 1), Lengths(1, 1, 9, -1.0)])
def test_impossible_lengths_are_refused(lengths: Lengths) -> None:
    with pytest.raises(InputError, match="at least 1"):
        poisson_trace(lengths, 1.0, 5, 1)


def test_a_rate_must_be_positive() -> None:
    with pytest.raises(InputError, match="per second"):
        poisson_trace(Lengths(1, 1, 9), 0.0, 5, 1)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file on this system")
def test_a_file_without_an_end_is_left() -> None:
    with pytest.raises(InputError, match=r"/dev/zero has more than 67,108,864 bytes; give a CSV file"):
        read_trace(Path("/dev/zero"))
