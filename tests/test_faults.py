"""Faults of servers by URL through the whole of ``decide``: recorded, tried again, gone on with, never a pass."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fault_server import FaultServer, never
from quantwise import prepare, workbench
from quantwise.core.errors import EnvironmentFailure, QuantwiseError, RuntimeFailure
from quantwise.core.progress import Silent
from quantwise.core.runtime import RuntimeOptions
from quantwise.question.request import Request
from quantwise.report.terminal import print_screen
from quantwise.runtimes import patience

ITEMS = 320


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits from 5 ms on."""
    monkeypatch.setattr(patience, "FIRST_S", 0.005)


def limit(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Another time limit of a request; a short one only while a server hangs, or a busy machine would break it too."""
    monkeypatch.setattr(prepare, "RuntimeOptions", lambda **said: replace(RuntimeOptions(**said), timeout_s=seconds))


@pytest.fixture
def copying(tmp_path: Path) -> Path:
    """Items whose answer is their last word; a server without a fault answers all of them rightly."""
    path = tmp_path / "copying.jsonl"
    rows = [{"id": f"{i:05d}", "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} for i in range(ITEMS + 96)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def decided(
    tmp_path: Path, copying: Path, base: FaultServer, ours: FaultServer, retry: float = 2.0, scenario: str = "laptop"
) -> dict[str, Any]:
    request = Request(
        scenario=scenario, tasks=(str(copying),), candidates=(ours.url,), baseline=base.url,
        margins={"copying": 0.05}, parallel=4, run=tmp_path / "run",
    )  # fmt: skip
    return workbench.decide(request, Silent(), retry_seconds=retry)


def verdict(record: dict[str, Any]) -> tuple[str, str]:
    return record["verdicts"][0]["verdict"], record["verdicts"][0]["reason"]


def faults(record: dict[str, Any]) -> dict[str, int]:
    return {key: record["faults"][1][key] for key in ("lost", "refused", "retried")}


def one_in(n: int, fault: str, times: int = 10**6) -> Any:
    def plan(prompt: str, time: int) -> str:
        number = prompt.removeprefix("say w")
        return fault if number.isdigit() and int(number) % n == 0 and time < times else ""

    return plan


@pytest.mark.parametrize("fault", ["429", "500", "die", "broken events", "reset", "half a json"])
def test_passing_faults_change_no_verdict_and_are_told(tmp_path: Path, copying: Path, fault: str) -> None:
    with FaultServer() as base, FaultServer(one_in(10, fault, 1)) as ours:
        record = decided(tmp_path, copying, base, ours)
    assert verdict(record) == ("PASS", "")
    assert faults(record)["lost"] == 0
    assert faults(record)["retried"] >= 5
    with (tmp_path / "screen").open("w+") as shown:
        print_screen(record, shown)
        shown.seek(0)
        assert "answered after further tries" in " ".join(shown.read().split())


@pytest.mark.parametrize("fault", ["500", "die", "hang", "html"])
def test_lost_items_are_no_pass_and_no_fail(
    tmp_path: Path, copying: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in 25 is lost for good: fewer than 5 %, but more than what a margin of 5 % could bear."""
    monkeypatch.setattr(patience, "RUN_SHARE", 1000)
    limit(monkeypatch, 0.25 if fault == "hang" else 30.0)
    with FaultServer() as base, FaultServer(one_in(25, fault)) as ours:
        record = decided(tmp_path, copying, base, ours, retry=0.05)
        assert verdict(record) == ("UNKNOWN", "missing")
        lost = faults(record)["lost"]
        assert lost >= ITEMS // 40
        assert record["decision"]["status"] == "unknown"
        assert record["verdicts"][0]["delta"] < 0
        assert any("lost items on copying: 0 of " in said for said in record["verdicts"][0]["caveats"])
        ours.plan = never
        limit(monkeypatch, 30.0)
        healed = decided(tmp_path, copying, base, ours)
    assert verdict(healed) == ("PASS", "")
    assert faults(healed) == {"lost": 0, "refused": 0, "retried": lost}


def test_what_was_lost_stays_slow_when_a_later_run_is_answered(
    tmp_path: Path, copying: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in twelve is lost: p95 falls on those, and a server that is quiet by now does not make them fast."""
    monkeypatch.setattr(patience, "RUN_SHARE", 1000)
    scenario = tmp_path / "fast.toml"
    scenario.write_text('base = "laptop"\nname = "fast"\nmax_p95_seconds = 30\n')
    with FaultServer() as base, FaultServer(one_in(12, "500")) as ours:
        decided(tmp_path, copying, base, ours, retry=0.05, scenario=str(scenario))
        ours.plan = never
        healed = decided(tmp_path, copying, base, ours, scenario=str(scenario))
    assert verdict(healed) == ("PASS", "")
    assert healed["decision"]["ruled_out"][0]["why"].startswith("too slow: one request in twenty or more failed or was")
    told = healed["faults"][1]
    assert told["lost"] == 0
    assert told["retried"] >= ITEMS // 13
    assert "answered only when a later run asked again, after crash: status 500" in told["example"]


def test_what_both_lose_is_no_pass_either(tmp_path: Path, copying: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RUN_SHARE", 1000)
    with FaultServer(one_in(25, "500")) as base, FaultServer(one_in(25, "500")) as ours:
        record = decided(tmp_path, copying, base, ours, retry=0.05)
    assert verdict(record) == ("UNKNOWN", "missing")


@pytest.mark.parametrize("whose", ["baseline", "candidate"])
def test_a_server_that_dies_decides_nothing_and_is_gone_on_with(tmp_path: Path, copying: Path, whose: str) -> None:
    base, ours = FaultServer(), FaultServer()
    dying = base if whose == "baseline" else ours
    left = threading.Semaphore(1)

    def dies(prompt: str, time: int) -> str:
        if dying.asked.total() > 150 and left.acquire(blocking=False):
            threading.Thread(target=dying.stop).start()
        return ""

    dying.plan = dies
    with base, ours:
        if whose == "baseline":
            with pytest.raises(RuntimeFailure, match="no server answers at"):
                decided(tmp_path, copying, base, ours, retry=0.1)
        else:
            record = decided(tmp_path, copying, base, ours, retry=0.1)
            assert verdict(record)[0] == record["decision"]["status"].upper() == "UNKNOWN"
            assert "its server is away" in record["decision"]["ruled_out"][0]["why"]
        dying.start()
        record = decided(tmp_path, copying, base, ours)
    assert verdict(record) == ("PASS", "")
    items = {asked: times for asked, times in (base.asked + ours.asked).items() if asked.startswith("say w")}
    assert max(items.values()) <= 6  # a block at most is asked again
    assert faults(record)["lost"] == 0


def test_a_budget_that_is_spent_ends_the_run_and_the_same_command_goes_on(tmp_path: Path, copying: Path) -> None:
    ours = FaultServer()

    def dying(prompt: str, time: int) -> str:
        return "503" if ours.asked.total() > 150 else ""

    ours.plan = dying
    with FaultServer() as base, ours:
        with pytest.raises(EnvironmentFailure, match="run the same command again"):
            decided(tmp_path, copying, base, ours, retry=0.02)
        ours.plan = never
        asked = ours.asked.total()
        record = decided(tmp_path, copying, base, ours)
        assert ours.asked.total() - asked < 416 - 64  # what was answered is not asked again
    assert verdict(record) == ("PASS", "")


def test_another_models_name_ends_the_run_in_one_line(tmp_path: Path, copying: Path) -> None:
    ours = FaultServer()
    ours.plan = lambda prompt, time: "other model" if ours.asked.total() > 100 else ""
    with FaultServer() as base, ours:
        with pytest.raises(QuantwiseError, match="'another' answered") as caught:
            decided(tmp_path, copying, base, ours)
        assert caught.value.exit_code == 1
        assert "\n" not in str(caught.value)
        ours.plan = never
        assert verdict(decided(tmp_path, copying, base, ours)) == ("PASS", "")
