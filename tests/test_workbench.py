"""The whole story with the fake runtime behind two server addresses: decide, stop, go on, extend, read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import Killed, KilledAt, fake, ticking
from quantwise import workbench
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.progress import Silent
from quantwise.question.request import Request
from quantwise.store import Store
from quantwise.testing.fake_runtime import FakeRuntime

BASE, SMALL, WORSE = "http://here:1", "http://here:2", "http://here:3"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says how the servers behave from now on."""

    def behave(**settings: Any) -> FakeRuntime:
        runtime = fake(name="openai", **settings)
        monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda name: runtime)
        return runtime

    monkeypatch.setattr("quantwise.runtimes.openai.server_artifact", lambda url: Artifact(url, "server", url, 900))
    return behave


def asked(folder: Path, *candidates: str, count: int = 400, **changes: Any) -> Request:
    file = folder / "mine.jsonl"
    lines = [{"id": i, "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} for i in range(count)]
    file.write_text("\n".join(map(json.dumps, lines)))
    plain = Request(
        tasks=(str(file),),
        candidates=candidates or (SMALL,),
        baseline=BASE,
        margins={"mine": 0.05},
        run=folder / "run",
    )
    return replace(plain, **changes)


def decide(request: Request) -> dict[str, Any]:
    return workbench.decide(request, Silent())


def verdict(record: dict[str, Any], candidate: str = SMALL) -> dict[str, Any]:
    found: dict[str, Any] = next(v for v in record["verdicts"] if v["candidate"].startswith(candidate))
    return found


def timeless(record: dict[str, Any], *more: str) -> dict[str, Any]:
    """The record without what depends on when and how fast it was made."""
    kept = {k: v for k, v in record.items() if k not in ("created", "timing", "generations_per_s", "folder", *more)}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    for line in plain["verdicts"]:
        line.pop("minutes_more")
        line.pop("explanation")
    return plain


def test_equal_is_acceptable_and_a_wreck_is_ruled_out(tmp_path: Path, served: Any) -> None:
    served(shared_errors=0.1, errors={WORSE: 0.3})
    record = decide(asked(tmp_path, SMALL, WORSE))
    assert record["decision"]["acceptable"] == (f"{SMALL}@openai",)
    assert verdict(record)["verdict"] == "PASS"
    assert verdict(record, WORSE)["verdict"] == "FAIL"
    assert "FAILs mine" in {r["candidate"]: r["why"] for r in record["decision"]["ruled_out"]}[f"{WORSE}@openai"]
    assert record["noise"] == [{"runtime": "openai", "task": "mine", "n": 40, "flips": 0}]


def test_reading_the_folder_again_gives_the_record_of_the_run(tmp_path: Path, served: Any) -> None:
    served(errors={BASE: 0.02, SMALL: 0.02, WORSE: 0.3})
    record = decide(asked(tmp_path, SMALL, WORSE))
    again = workbench.reread(tmp_path / "run")
    written = json.loads((tmp_path / "run" / "decision.json").read_text())
    for found in (again, written):
        found.pop("created")
    record.pop("created")
    assert again == record
    assert written == json.loads(json.dumps(record))


@pytest.mark.parametrize("words", [2, 5, 8, 12])
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_verdicts(
    tmp_path: Path, served: Any, words: int
) -> None:
    served(errors={BASE: 0.02, SMALL: 0.02, WORSE: 0.3}, shared_errors=0.1)
    request = asked(tmp_path, SMALL, WORSE)
    whole = decide(replace(request, run=tmp_path / "whole"))
    with pytest.raises(Killed):
        workbench.decide(request, KilledAt(words))
    record = decide(request)
    assert timeless(record) == timeless(whole)
    assert timeless(decide(request)) == timeless(whole)  # and there is nothing left to do
    assert [sorted(map(str, rows(tmp_path / name))) for name in ("run",)] == [
        sorted(map(str, rows(tmp_path / "whole")))
    ]


def rows(folder: Path) -> Sequence[Any]:
    with Store(folder) as store:
        return store.rows("screen") + store.rows("aa") + store.rows("certify")


def test_another_question_does_not_go_into_the_folder(tmp_path: Path, served: Any) -> None:
    served()
    decide(asked(tmp_path))
    with pytest.raises(InputError, match=r"holds another question .changed: seed"):
        decide(asked(tmp_path, seed=1))


def test_more_items_settle_what_was_open_and_touch_nothing_else(tmp_path: Path, served: Any) -> None:
    served(errors={BASE: 0.01, SMALL: 0.01, WORSE: 0.25}, seed=1)
    first = decide(asked(tmp_path, SMALL, WORSE, count=2000, items=96))
    assert (verdict(first)["reason"], verdict(first)["n"]) == ("need_n", 96)
    assert first["decision"]["status"] == "unknown"
    worse = verdict(first, WORSE)
    assert worse["verdict"] == "FAIL"
    then = workbench.extend(tmp_path / "run", 40, None, Silent())
    assert verdict(then)["n"] == 160  # 40 more in whole blocks
    last = workbench.extend(tmp_path / "run", 1000, None, Silent())
    assert verdict(last)["verdict"] == "PASS"
    assert last["decision"]["acceptable"] == (f"{SMALL}@openai",)
    assert timeless({"verdicts": [verdict(last, WORSE)]}) == timeless({"verdicts": [worse]})
    count = last["generations"]
    assert workbench.extend(tmp_path / "run", 100, None, Silent())["generations"] == count


def test_a_file_is_used_up_and_then_says_so(tmp_path: Path, served: Any) -> None:
    served()
    request = asked(tmp_path, count=100, items=32, margins={"mine": 0.01})
    assert verdict(decide(request))["reason"] == "items_exhausted"
    last = verdict(workbench.extend(tmp_path / "run", 10_000, None, Silent()))
    assert (last["n"], last["reason"]) == (90, "items_exhausted")
    assert "no items are left" in last["explanation"]
    assert last["smallest_margin"] > 0.01


def test_a_task_file_with_fewer_items_than_asked_gives_what_it_has(tmp_path: Path, served: Any) -> None:
    served()
    record = decide(asked(tmp_path, count=60, items=1000))
    assert record["question"]["tasks"][0]["items"] == 54
    assert verdict(record)["n"] == 54


def test_a_budget_that_is_spent_at_once_measures_nothing_and_the_next_run_goes_on(tmp_path: Path, served: Any) -> None:
    served()
    record = decide(asked(tmp_path, budget_seconds=0.0))
    assert verdict(record)["reason"] == "not_measured"
    assert record["decision"]["status"] == "unknown"
    assert verdict(decide(asked(tmp_path)))["verdict"] == "PASS"


def test_a_budget_in_the_middle_is_the_reason_and_survives_in_the_folder(
    tmp_path: Path, served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served()
    ticking(monkeypatch)
    request = asked(tmp_path, count=4000, margins={"mine": 0.005}, budget_seconds=40.0)
    record = decide(request)
    assert (verdict(record)["verdict"], verdict(record)["reason"]) == ("UNKNOWN", "budget")
    assert 0 < verdict(record)["n"] < 3600
    assert "the budget is spent" in verdict(record)["explanation"]
    assert verdict(record)["minutes_more"] > 0
    assert verdict(workbench.reread(tmp_path / "run"))["reason"] == "budget"


def test_the_scenario_may_set_the_budget(tmp_path: Path, served: Any) -> None:
    served()
    scenario = tmp_path / "hasty.toml"
    scenario.write_text('name = "hasty"\nobjective = ["bytes"]\nbudget_seconds = 1e-9\n')
    hasty = asked(tmp_path, scenario=str(scenario))
    assert verdict(decide(hasty))["reason"] == "not_measured"
    assert verdict(decide(replace(hasty, budget_seconds=60.0)))["verdict"] == "PASS"


def test_fixed_n_is_decided_once_and_may_not_be_extended(tmp_path: Path, served: Any) -> None:
    served()
    record = decide(asked(tmp_path, items=200, fixed=True))
    assert (verdict(record)["verdict"], verdict(record)["n"]) == ("PASS", 200)
    assert verdict(record)["z"] > 1.6
    with pytest.raises(InputError, match="fixed-n question; looking again would break its error rate"):
        workbench.extend(tmp_path / "run", 32, None, Silent())


def test_extending_what_has_changed_is_refused(tmp_path: Path, served: Any) -> None:
    served()
    decide(asked(tmp_path))
    asked(tmp_path, count=399)
    with pytest.raises(InputError, match=r"mine\.jsonl has changed"):
        workbench.extend(tmp_path / "run", 32, None, Silent())
    with pytest.raises(InputError, match="is no run folder"):
        workbench.extend(tmp_path / "elsewhere", 32, None, Silent())


def test_a_candidate_that_cannot_be_opened_is_ruled_out_and_stays_so(tmp_path: Path, served: Any) -> None:
    served()
    record = decide(asked(tmp_path, SMALL, "http://here/refused"))
    assert record["decision"]["acceptable"] == (f"{SMALL}@openai",)
    out = {line["candidate"]: line["why"] for line in record["decision"]["ruled_out"]}
    assert out["http://here/refused@openai"] == "cannot be run: this artifact is for being refused"
    assert timeless(decide(asked(tmp_path, SMALL, "http://here/refused"))) == timeless(record)


def test_a_baseline_that_cannot_be_opened_is_one_line(tmp_path: Path, served: Any) -> None:
    served()
    with pytest.raises(RuntimeFailure, match=r"^this artifact is for being refused$"):
        decide(asked(tmp_path, baseline="http://here/refused"))
    with pytest.raises(RuntimeFailure):  # the folder can be used again
        decide(asked(tmp_path, baseline="http://here/refused"))
