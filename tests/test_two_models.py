"""Two models in one question, by servers that are played: floors, one budget, one price; killed and gone on with."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import Killed, KilledAt, fake
from paced_arms import Paced
from quantwise import workbench
from quantwise.core.artifact import Artifact
from quantwise.core.progress import Silent
from quantwise.core.verdict import two_digits
from quantwise.question.request import Request
from quantwise.report import notation
from quantwise.report.page import render
from quantwise.report.terminal import print_screen
from quantwise.store import Store

BASE, LARGE, SMALL = (
    f"{name}@openai" for name in ("large:http://here:1", "large:http://here:2", "small:http://here:3")
)
SECONDS = {"http://here:1": 1.0, "http://here:2": 0.9, "http://here:3": 0.4}
BYTES = {"http://here:1": 1000, "http://here:2": 540, "http://here:3": 400}
ERRORS = {"http://here:1": 0.02, "http://here:2": 0.04, "http://here:3": 0.15}
SCENARIO = """
base = "laptop"
name = "two models"
objective = ["money_per_solved", "bytes"]
compare = "floor"
reruns = 1
budget = { per_solved_item = 0.02 }
prices = { currency = "EUR", machine_hour = 36.0 }
review = { probability = 0.5, price = 0.005 }
"""

Ask = Callable[..., Request]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A question about the three servers, of which each behaves as ``errors`` say."""
    monkeypatch.setattr(
        "quantwise.runtimes.openai.server_artifact", lambda url: Artifact(url, "server", url, BYTES[url])
    )
    monkeypatch.setattr("quantwise.cost.solved.RESAMPLES", 300)
    lines = [{"id": i, "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} for i in range(1200)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def asked(
        run: str, floor: float = 0.6, scenario: str = SCENARIO, items: int = 512, errors: dict[str, float] = ERRORS
    ) -> Request:
        runtime = Paced(fake(name="openai", errors=errors), SECONDS)
        monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: runtime)
        (tmp_path / "two.toml").write_text(scenario)
        return Request(
            models={"large": tmp_path / "large", "small": tmp_path / "small"},
            candidates=("large:http://here:2", "small:http://here:3"),
            baseline="large:http://here:1",
            tasks=(str(tmp_path / "mine.jsonl"),),
            scenario=str(tmp_path / "two.toml"),
            floors={"mine": floor},
            items=items,
            run=tmp_path / run,
        )

    return asked


def decide(request: Request) -> dict[str, Any]:
    return workbench.decide(request, Silent())


def floors(record: dict[str, Any]) -> dict[str, str]:
    return {row["candidate"]: row["verdict"] for row in record["floors"]}


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """The record without what depends on when and how fast it was made."""
    kept = {k: v for k, v in record.items() if k not in ("created", "timing", "generations_per_s", "folder")}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    plain["solved"].pop("run_cost")
    for line in plain["verdicts"]:
        line.pop("minutes_more")
        line.pop("explanation")
    return plain


def rows(folder: Path) -> list[str]:
    with Store(folder) as store:
        return sorted(str(row) for stage in ("screen", "aa", "certify") for row in store.rows(stage))


def test_the_cheaper_model_is_shipped_where_it_reaches_the_floor(ask: Ask) -> None:
    record = decide(ask("run"))
    assert floors(record) == dict.fromkeys((BASE, LARGE, SMALL), "PASS")
    assert (record["decision"]["ship"], record["question"]["multiplicity"]["m"]) == (SMALL, 3)
    loss = {row["candidate"]: row["delta"] for row in record["verdicts"]}[SMALL]
    assert loss < -0.05, "it loses far more than a margin against the baseline, which is only shown"
    assert any(line.startswith("at or above the floor on mine: ") for line in record["decision"]["because"])
    price = {item["candidate"]: item["ours"]["money"] for item in record["solved"]["items"]}
    assert price[SMALL] < price[LARGE] < 0.02
    assert "money per solved" in next(r["why"] for r in record["decision"]["ruled_out"] if r["candidate"] == LARGE)


def test_it_is_ruled_out_where_it_does_not_or_costs_more_than_the_budget(ask: Ask) -> None:
    record = decide(ask("high", floor=0.92))
    assert floors(record) == {BASE: "PASS", LARGE: "PASS", SMALL: "FAIL"}
    assert record["decision"]["ship"] == LARGE
    why = next(r["why"] for r in record["decision"]["ruled_out"] if r["candidate"] == SMALL)
    assert why.startswith("below the floor: mine, 8")
    tight = decide(ask("tight", scenario=SCENARIO.replace("0.02", "0.007")))
    assert tight["decision"]["ship"] == SMALL
    assert "over the budget" in next(r["why"] for r in tight["decision"]["ruled_out"] if r["candidate"] == LARGE)


@pytest.mark.parametrize("words", [2, 14])
def test_killed_at_any_moment_it_goes_on_to_the_same_decision_from_the_same_rows(ask: Ask, words: int) -> None:
    whole = decide(ask("whole"))
    request = ask("run")
    with pytest.raises(Killed):
        workbench.decide(request, KilledAt(words))
    record = decide(request)
    assert timeless(record) == timeless(whole)
    assert request.run is not None
    assert rows(request.run) == rows(request.run.parent / "whole")
    assert timeless(workbench.reread(request.run)) == timeless(whole)


def test_floors_are_on_the_screen_and_on_the_page_with_what_would_settle_them(ask: Ask) -> None:
    record = decide(ask("open", floor=0.83, items=64, errors=ERRORS | {"http://here:1": 0.0, "http://here:2": 0.4}))
    assert floors(record) == {BASE: "PASS", LARGE: "FAIL", SMALL: "UNKNOWN"}
    (open_,) = (row for row in record["floors"] if row["verdict"] == "UNKNOWN")
    more = [f"{two_digits(n):,}" for n in open_["n_more"]]
    for width in (80, 120):
        drawn = io.StringIO()
        print_screen(record, drawn, width=width)
        lines = drawn.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        (row,) = (line for line in lines if line.lstrip().startswith("small:") and "UNKNOWN" in line and "~" in line)
        assert f"~{more[1]}" in row
        assert f"{100 * open_['mean']:.1f} %" in row
        assert notation.shares((open_["low"], open_["high"])) in row
        assert any(line.strip() == "83.0 % on mine" for line in lines)
        assert any("these alone decide" in line for line in lines)
        assert f"mine (floor): about {more[1]}" in " ".join(drawn.getvalue().split())
    page = html.unescape(render(json.loads(json.dumps(record))))
    assert '<h2 id="floors">Floors</h2>' in page
    assert "These alone decide" in page
    assert f"about {more[1]} ({more[0]} to {more[2]}) more items" in page
    bare = {key: value for key, value in record.items() if key != "floors"}
    assert "Floors</h2>" not in render(bare)


def test_a_floor_that_is_reached_early_asks_no_more_while_the_other_model_is_asked_on(ask: Ask) -> None:
    """The floor of one arm is settled by itself, without its baseline."""
    plain = SCENARIO.replace('["money_per_solved", "bytes"]', '["bytes"]').replace("budget", "# budget")
    record = decide(replace(ask("run", floor=0.8, scenario=plain)))
    count = {row["candidate"]: row["n"] for row in record["floors"]}
    assert count[BASE] < count[SMALL]
    assert count[LARGE] < count[SMALL]
