"""End to end through ``quantwise decide``: a smaller, faster candidate whose answers fail their schema is dearer."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import fake
from paced_arms import Paced
from quantwise.cli.main import main
from quantwise.core.artifact import Artifact
from quantwise.report import notation

BASE, SMALL, OTHER = "http://here:1", "http://here:2", "http://here:3"
BYTES = {BASE: 1000, SMALL: 540, OTHER: 520}
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
PRICED = """
base = "laptop"
reruns = 1
requests_per_month = 500000
margins = { mine = 0.45 }  # wide, because what fails its schema is seen and asked again
[prices]
currency = "EUR"
machine_hour = 1.8
[review]
probability = 0.25
price = 0.002
"""


Decide = Callable[..., tuple[dict[str, Any], str, str]]


@pytest.fixture
def decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Decide:
    """Runs the verb on servers that behave so; returns the record, the screen and the page."""
    monkeypatch.chdir(tmp_path)
    items = [
        {"id": i, "prompt": f"Write an object whose n is {i} as JSON", "target": None, "scorer": "json_schema",
         "options": {"schema": SCHEMA}}
        for i in range(400)
    ]  # fmt: skip
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, items)))

    def run(scenario: str, seconds: dict[str, float], *more: str, **behaviour: Any) -> tuple[dict[str, Any], str, str]:
        inner = replace(fake(**behaviour), right=lambda ask: '{"n":1}')
        monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: Paced(inner, seconds))
        monkeypatch.setattr(
            "quantwise.runtimes.openai.server_artifact", lambda url: Artifact(url, "server", url, BYTES[url])
        )
        Path("mine.toml").write_text(scenario)
        asked = ["decide", "--baseline", BASE, "--candidate", SMALL, "--scenario", "mine.toml", "--tasks", "mine.jsonl"]
        asked += ["--quiet", "--run", "run", *more]
        assert main([*asked, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert main(["report", "run"]) == 0
        return record, " ".join(capsys.readouterr().out.split()), html.unescape(Path("run/report.html").read_text())

    return run


def why(record: dict[str, Any], url: str = SMALL) -> str:
    return next(r["why"] for r in record["decision"]["ruled_out"] if r["candidate"] == f"{url}@openai")


def test_thirty_per_cent_of_schema_failures_make_a_smaller_and_faster_candidate_dearer(decide: Decide) -> None:
    record, screen, page = decide(PRICED, {BASE: 1.0, SMALL: 0.9}, errors={BASE: 0.02, SMALL: 0.3})
    (verdict,) = record["verdicts"]
    assert verdict["verdict"] == "PASS", "its quality is within the margin: it is the price that rules it out"
    (item,) = record["solved"]["items"]
    low, high = item["interval"]
    assert 1.05 < low < item["ratio"] < high
    assert 0.2 < item["ours"]["failing"] < 0.4
    assert item["ours"]["money_interval"][0] > item["theirs"]["money_interval"][1]
    assert any("one answer per item was measured" in note for note in item["notes"])
    said = why(record)
    # As fast as the baseline per answer but for a tenth, so that it may fail a little more often.
    equal = said.split("about ")[1].split(" ")[0]
    assert item["theirs"]["failing"] < float(equal.rstrip("%")) / 100 < 0.5 * item["ours"]["failing"]
    share, base_share = f"{item['ours']['failing']:.0%}", f"{item['theirs']['failing']:.0%}"
    assert said == (
        f"is 46% smaller, yet a solved item costs {item['ours']['money']:.3g} EUR against "
        f"{item['theirs']['money']:.3g}, {item['ratio']:.2f} times (95% interval {low:.2f} to {high:.2f}) that of "
        f"{BASE}@openai: {share} of its answers fail validation and are rerun, {base_share} of the baseline's; "
        f"with about {equal} failing it would cost the same"
    )
    assert said in screen
    assert said in page
    decision = record["decision"]
    assert (decision["status"], decision["ship"], decision["acceptable"]) == ("keep", f"{BASE}@openai", [])
    assert item["saved_per_month"] is None
    assert "earned back" not in screen


def test_two_blocks_are_asked_where_one_settles_the_quality_because_of_one_no_price_is_told(decide: Decide) -> None:
    record, _, _ = decide(PRICED.replace("0.45", "0.6"), {BASE: 1.0, SMALL: 0.7})
    (item,) = record["solved"]["items"]
    assert (record["verdicts"][0]["verdict"], item["items"]) == ("PASS", 64)
    assert item["interval"] is not None


def test_the_same_candidate_without_prices_is_shipped_and_leaves_no_trace_of_them(decide: Decide) -> None:
    plain = 'base = "laptop"\nmargins = { mine = 0.45 }\n'
    record, screen, page = decide(plain, {BASE: 1.0, SMALL: 0.9}, errors={BASE: 0.02, SMALL: 0.3})
    assert record["decision"]["ship"] == f"{SMALL}@openai"
    assert "solved" not in record
    assert not {"prices", "reruns", "review", "requests_per_month"} & set(record["question"]["scenario"])
    assert "solved item" not in screen + page


def test_a_cheaper_one_is_shipped_with_its_price_and_its_break_even(decide: Decide) -> None:
    narrow = PRICED.replace("0.45", "0.1")
    record, screen, page = decide(narrow, {BASE: 1.0, SMALL: 0.7}, errors={BASE: 0.02, SMALL: 0.02})
    (item,) = record["solved"]["items"]
    assert record["decision"]["ship"] == f"{SMALL}@openai"
    assert item["interval"][1] < 1.0
    spent = sum(record["timing"].values()) / 3600 * 1.8
    low, middle, high = item["saved_per_month"]
    assert 0 < low < middle < high
    assert item["break_even_months"] == pytest.approx([spent / high, spent / middle, spent / low])
    assert record["solved"]["run_cost"] == pytest.approx(spent)
    price, even = (line for line in record["decision"]["because"] if "solved item" in line or "earned back" in line)
    assert "EUR" in price
    assert "at 500,000 requests" in even
    for line in (price, even):
        assert line in screen
        assert line in page


def test_what_fails_its_gate_is_told_the_price_besides(decide: Decide) -> None:
    strict = PRICED.replace("0.45", "0.15")
    record, _, _ = decide(strict, {BASE: 1.0, SMALL: 0.9}, errors={SMALL: 0.3})
    assert why(record).startswith("FAILs mine (-")
    assert "; is 46% smaller, yet a solved item costs" in why(record)
    assert record["decision"]["status"] == "keep"


def test_equals_are_not_ruled_out_and_earn_nothing_back(decide: Decide) -> None:
    record, screen, _ = decide(PRICED.replace("0.45", "0.2"), {BASE: 1.0, SMALL: 1.0}, errors={BASE: 0.02, SMALL: 0.02})
    (item,) = record["solved"]["items"]
    assert item["interval"][0] <= 1.0 <= item["interval"][1]
    assert record["decision"]["ship"] == f"{SMALL}@openai", "it is smaller, and no dearer"
    assert (item["saved_per_month"], item["break_even_months"]) == (None, None)
    assert "earned back" not in screen


def test_screen_and_page_show_the_table(decide: Decide) -> None:
    record, screen, page = decide(PRICED, {BASE: 1.0, SMALL: 0.9}, errors={BASE: 0.02, SMALL: 0.3})
    (item,) = record["solved"]["items"]
    for text in (screen, page):
        assert "ost of a solved item" in text
        assert notation.amounts(item["interval"]) in text
        assert notation.amount(item["ours"]["money"]) in text
        assert "ne answer per item was measured" in text
        assert "nergy is unknown" in text
    assert "an hour of the machine costs 1.8" in page
    assert "25.0 % goes to a person at 0.002 each" in page
