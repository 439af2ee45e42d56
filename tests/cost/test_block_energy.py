"""Energy of blocks: which meters count, what a request used, and when it decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fake_arms import Watched, certify, fake, question
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.evidence import Measurement
from quantwise.cost.block_energy import BlockJoules, block_joules
from quantwise.cost.candidate import cost
from quantwise.cost.ratios import ratios
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


def test_a_meter_that_missed_a_block_counts_nowhere() -> None:
    both = [told("a", 0, 1.0, 10.0), told("b", 0, 2.0, 20.0)]
    assert block_joules(both) == {"a": {(0, "t"): 11.0}, "b": {(0, "t"): 22.0}}
    assert block_joules([*both, told("a", 1, 3.0, None)])["b"] == {(0, "t"): 2.0}
    assert block_joules([told("a", 0, 1.0, None), told("a", 1, None, 2.0)]) == {}
    assert block_joules([]) == {}


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


def test_the_loop_meters_every_block_of_what_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Watched(fake(shared_errors=0.2))

    @contextmanager
    def meter() -> Iterator[Joules]:
        used, before = Joules(), len(runtime.log)
        yield used
        asked = [where for kind, where in runtime.log[before:] if kind == "ask"]
        used.cpu = sum(2.0 if where == "base" else 1.0 for where in asked)

    monkeypatch.setattr("quantwise.certify.meter", meter)
    asked = question()
    certify(tmp_path, asked, runtime)
    with Store(tmp_path) as store:
        found = held(store, asked)
        names = {c.source: c.name for c in asked.candidates}
        blocks = {(row.block, row.task) for row in found.rows[names["small"]]}
        assert set(found.joules[names["small"]]) == blocks
        assert set(found.joules[names["small"]].values()) == {1.0}
        assert set(found.joules[names["base"]].values()) == {2.0}
