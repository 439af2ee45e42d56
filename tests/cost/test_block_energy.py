"""Energy of blocks: which meters count, what a request used, and when it decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fake_arms import BASE, Watched, certify, fake, question
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Measurement
from quantwise.core.question import Question
from quantwise.cost.block_energy import BlockJoules, asks_for_energy, block_joules, meters_of
from quantwise.cost.candidate import cost
from quantwise.cost.ratios import ratios
from quantwise.record.assemble import assemble
from quantwise.record.held import held
from quantwise.runtimes.energy import Joules
from quantwise.store import Store

HERE, ARTIFACT = Candidate("q4_0", "llamacpp"), Artifact("a.gguf", "gguf", "0", 1000)


def told(candidate: str, block: int, cpu: float | None, gpu: float | None, task: str = "t") -> dict[str, Any]:
    return {"candidate": candidate, "task": task, "block": block, "cpu": cpu, "gpu": gpu}


def rows(counts: dict[tuple[int, str], int], seconds: float = 1.0) -> list[Measurement]:
    return [
        Measurement("x", "certify", task, f"{block}-{i}", 0, block, 1.0, "stop", "", seconds=seconds)
        for (block, task), count in counts.items()
        for i in range(count)
    ]


def test_a_block_that_one_meter_missed_is_unknown_and_changes_no_other() -> None:
    both = [told("a", 0, 1.0, 10.0), told("b", 0, 2.0, 20.0)]
    assert block_joules(both) == {"a": {(0, "t"): 11.0}, "b": {(0, "t"): 22.0}}
    assert block_joules([*both, told("a", 1, 3.0, None)]) == block_joules(both)
    assert block_joules([told("a", 0, 1.0, None), told("a", 1, None, 2.0)]) == {}
    assert block_joules([told("a", 0, None, 5.0)]) == {"a": {(0, "t"): 5.0}}
    assert block_joules([]) == {}


def test_the_meters_of_the_sum_are_named() -> None:
    assert meters_of([told("a", 0, None, 5.0), told("b", 0, None, 6.0)]) == ("gpu",)
    assert meters_of([told("a", 0, None, 5.0), told("b", 0, 1.0, None)]) == ("cpu", "gpu")
    assert meters_of([]) == ()


def test_joules_are_of_all_requests_and_tasks_weigh_alike() -> None:
    asked = rows({(0, "long"): 2, (1, "long"): 2, (0, "short"): 4})
    asked[0] = Measurement("x", "certify", "long", "lost", 0, 0, None, "timeout", "", seconds=None)
    used = {(0, "long"): 30.0, (1, "long"): 10.0, (0, "short"): 8.0}
    assert cost(HERE, ARTIFACT, None, asked, used).joules_per_item == pytest.approx((40 / 4 + 8 / 4) / 2)
    del used[1, "long"]
    assert cost(HERE, ARTIFACT, None, asked, used).joules_per_item is None
    assert cost(HERE, ARTIFACT, None, [], {}).joules_per_item is None
    expanded = Candidate("int2-g64", "transformers", computes_as_stored=False)
    assert cost(expanded, ARTIFACT, None, rows({(0, "t"): 2}), {(0, "t"): 1.0}).joules_per_item is None


def test_energy_decides_by_turns_and_not_where_one_was_not_metered() -> None:
    asked = rows({(block, "t"): 32 for block in range(8)})
    base: BlockJoules = {(block, "t"): 100.0 * (1 + block) for block in range(8)}
    less = {key: value * (0.8 + 0.01 * (key[0] % 3)) for key, value in base.items()}
    low, high = ratios(asked, asked, ["joules_per_item"], joules=(less, base))["joules_per_item"] or (0.0, 9.0)
    exact = math.fsum(less.values()) / math.fsum(base.values())
    assert 0.79 < low < exact < high < 0.83
    del less[3, "t"]
    assert ratios(asked, asked, ["joules_per_item"], joules=(less, base)) == {"joules_per_item": None}


def asking(**changes: Any) -> Question:
    """A question that ranks by energy."""
    plain = question()
    return question(scenario=plain.scenario | {"objective": ["-tokens_per_s", "joules_per_item"]}, **changes)


def counting(runtime: Watched, metered: list[str] | None = None) -> Any:
    """A meter that tells a joule of the processors for each time that an arm is asked, two for the baseline."""

    @contextmanager
    def meter(url: str = "") -> Iterator[Joules]:
        used, before = Joules(), len(runtime.log)
        yield used
        asked = [where for kind, where in runtime.log[before:] if kind == "ask"]
        used.cpu = sum(2.0 if where == "base" else 1.0 for where in asked)
        if metered is not None:
            metered.append(url)

    return meter


def test_the_loop_meters_every_block_of_what_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Watched(fake(shared_errors=0.2))
    monkeypatch.setattr("quantwise.certify.meter", counting(runtime))
    asked = asking()
    certify(tmp_path, asked, runtime)
    with Store(tmp_path) as store:
        found = held(store, asked)
        assert assemble(store, asked)["energy_meters"] == ["cpu"]
        names = {c.source: c.name for c in asked.candidates}
        blocks = {(row.block, row.task) for row in found.rows[names["small"]]}
        assert set(found.joules[names["small"]]) == blocks
        assert set(found.joules[names["small"]].values()) == {1.0}
        assert set(found.joules[names["base"]].values()) == {2.0}


def test_nothing_is_metered_where_nobody_asks_for_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Watched(fake())
    monkeypatch.setattr("quantwise.certify.meter", counting(runtime))
    certify(tmp_path, question(), runtime)
    with Store(tmp_path) as store:
        assert store.all("joules") == {}
        assert assemble(store, question())["energy_meters"] == []
    assert not asks_for_energy(question())
    prices = {"prices": {"currency": "EUR", "machine_hour": 1.0}}
    for more in (prices, {"objective": ["joules_per_item"]}, {"objective": ["joules_per_solved"]}):
        assert asks_for_energy(question(scenario=question().scenario | more))


def test_a_server_by_url_is_metered_by_its_address_and_what_is_asked_again_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost requests that a later process asks again take energy that no block holds."""
    runtime, urls = Watched(fake(timeouts={"small": 0.04})), list[str]()
    monkeypatch.setattr("quantwise.certify.meter_of", counting(runtime, urls))
    monkeypatch.setattr("quantwise.certify.meter", counting(runtime))
    asked = asking(candidates=(BASE, Candidate("small", "openai")), runtimes={"fake": "1", "openai": "1"})
    name = asked.candidates[1].name
    certify(tmp_path, asked, runtime)
    with Store(tmp_path) as store:
        blocks = {(row.block, row.task) for row in store.rows("certify", name)}
        lost = {(row.block, row.task) for row in store.rows("certify", name) if row.finish == "timeout"}
        assert set(held(store, asked).joules[name]) == blocks > lost > set()
    assert set(urls) == {"small"}
    runtime.inner = fake()
    certify(tmp_path, asked, runtime)
    with Store(tmp_path) as store:
        found = held(store, asked)
        late = {(row.block, row.task) for row in found.rows[name] if row.error and "answered only when" in row.error}
        assert late == lost
        assert set(found.joules[name]) == {(row.block, row.task) for row in found.rows[name]} - lost
        store.put("artifact", name, asdict(ARTIFACT))
        assert held(store, asked).costs[name].joules_per_item is None
