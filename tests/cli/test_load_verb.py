"""``quantwise load`` as a user meets it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from known_server import known_server
from quantwise.cli.load import service_levels
from quantwise.cli.main import main


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with known_server(ttft=0.02, tokens=4) as url:
        yield url


def test_the_screen_says_what_is_known_and_what_is_not(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", url, "--users", "2", "--requests", "10", "--slo", "ttft=1s", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "closed loop, 2 users; 10 answered, 0 failed" in out
    assert "of all" in out
    assert "unknown" in next(line for line in out.splitlines() if line.split()[:1] == ["TTFT"])
    assert "p95 is unknown: it takes 59 requests, there were 10" in out
    assert max(map(len, (line for line in out.splitlines() if "note:" not in line))) <= 80


def test_json_of_one_server_is_flat_and_requests_are_asked_for(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["load", url, "--rate", "50", "--requests", "5", "--warm-up", "0", "--json"]
    assert main(base) == 0
    flat = json.loads(capsys.readouterr().out)
    assert flat["mean_ttft_ms"] > 20
    assert "requests" not in flat
    assert main([*base, "--detailed", "--burstiness", "inf", "--chat"]) == 0
    assert len(json.loads(capsys.readouterr().out)["requests"]) == 5


def test_two_servers_are_compared(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with known_server(ttft=0.02, tokens=4) as other:
        assert main(["load", url, other, "--users", "4", "--requests", "12", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"{other} over {url} (95 % intervals)" in out
    assert out.count("answered, 0 failed") == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "one of --rate"),
        (["--rate", "1", "--users", "1"], "one of --rate"),
        (["--rate", "0"], "rate of 0"),
        (["--users", "1", "--items", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--users", "1", "--items", "json_output", "--chat"], "leave them out with --items"),
        (["--users", "1", "--warm-up", "-1"], "--warm-up -1 is negative"),
        (["--users", "1", "--requests", "2", "--blocks", "3"], "2 requests do not make 3 blocks"),
        (["--rate", "1", "--seconds", "0"], "no time is given"),
        (["--rate", "1", "--timeout", "0"], "no time is given"),
        (["--users", "1", "--burstiness", "2"], "--burstiness is for --rate"),
        (["--users", "1", "--detailed"], "give both, or neither"),
        (["--users", "1", "--requests", "1000000000"], "--requests 1000000000 is out of range; give at most 1,000,000"),
        (["--users", "1", "--warm-up", "99999999"], "--warm-up 99999999 is out of range"),
        (["--users", "999999999"], "--users 999999999 is out of range"),
        (["--rate", "1", "--seed", "-1"], "--seed -1 is negative"),
        (["--rate", "1e300"], "a rate of 1e+300 per second is more than anybody sends"),
        (["--rate", "1e-300"], "no request arrives within 60 s"),
        (["--users", "1", "--input-tokens", "999999999"], "--input-tokens 999999999 is more than any model reads"),
    ],
)
def test_bad_input_is_one_line(
    url: str, options: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["load", url, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"messages": [{"role": 5, "content": "x"}]}', "a message lacks its role or content, which are texts"),
        ('{"messages": [{"role": "user", "content": null}]}', "a message lacks its role or content, which are texts"),
        ('{"messages": ["hi"]}', "a message lacks its role or content, which are texts"),
    ],
)
def test_items_that_cannot_be_asked_are_one_line(
    url: str, line: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text(line)
    assert main(["load", url, "--users", "1", "--items", str(items)]) == 2
    err = capsys.readouterr().err
    assert f"{items}:1: {says}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", [["--requests", "9" * 5000], ["--seconds", "9" * 400], ["--users", "²"]])
def test_numbers_beyond_all_bounds_are_one_short_line(
    url: str, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["load", url, *option])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert (err.count("\n"), len(err) < 160) == (1, True)


def test_progress_into_a_file_is_lines(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", url, "--users", "2", "--requests", "10"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warm-up: 0 of 1"
    assert lines[2] == "load: 0 of 10"
    assert lines[3].startswith("load: 10 of 10, took")
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_levels_have_units() -> None:
    assert service_levels("ttft=500ms,tpot=50,e2e=1.5s") == {"ttft": 500.0, "tpot": 50.0, "e2e": 1500.0}
    assert service_levels("e2el=2s") == {"e2e": 2000.0}
    for wrong in ("", "ttft", "ttft=0", "ttft=1h", "p99=3ms", "ttft=1,ttft=2", "ttft=" + "9" * 400):
        with pytest.raises(argparse.ArgumentTypeError, match="no list of levels"):
            service_levels(wrong)


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ([], {"ttft": 20.0, "tpot": None, "e2el": 60000.0}),
        (["--slo", "e2e=9s"], {"ttft": 20.0, "tpot": None, "e2el": 9000.0}),
    ],
)
def test_goodput_is_under_the_levels_of_the_scenario_but_for_those_of_slo(
    url: str, slo: list[str], kept: dict[str, float | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's first text takes 20 ms and more, so no request keeps the scenario's level."""
    scenario = tmp_path / "mine.toml"
    scenario.write_text('base = "laptop"\n[service_levels]\nttft = 20\ne2el = 60000\n')
    base = ["load", url, "--users", "2", "--requests", "5", "--warm-up", "0", "--json", "--quiet"]
    assert main([*base, "--scenario", str(scenario), *slo]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["service_levels_ms"], record["good_share"]) == (kept, 0.0)


def test_a_scenario_without_levels_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["load", url, "--users", "2", "--scenario", "laptop"]) == 2
    err = capsys.readouterr().err
    assert "the scenario laptop has no service levels; add [service_levels]" in err
    assert err.count("\n") == 1
