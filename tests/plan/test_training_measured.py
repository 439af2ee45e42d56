"""Predicted training memory against steps that are taken, each in a fresh process (benchmarks/plan_training.py)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quantwise.plan.training import training_memory
from quantwise.plan.training_job import TrainingJob

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads and resets the peak in /proc")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("plan_training")


def check(benchmark: ModuleType, model: dict[str, object], job: TrainingJob) -> None:
    measured = benchmark.measure(benchmark.Case("", model, job))
    planned = training_memory(benchmark.decoder_of(model), job)
    assert planned.trained == measured.trained
    assert planned.peak_bytes == pytest.approx(measured.live, rel=0.05)
    assert planned.peak_bytes == pytest.approx(measured.resident, rel=0.15)


def test_a_lora_step_takes_what_was_predicted(benchmark: ModuleType) -> None:
    check(benchmark, {**benchmark.SMALL, "num_hidden_layers": 4}, TrainingJob("lora", 256, 2, "fp32"))


@pytest.mark.long
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("precision", "sequence"), [("fp32", 512), ("bf16", 1024)])
def test_steps_take_what_was_predicted(
    benchmark: ModuleType, method: str, checkpointing: bool, precision: str, sequence: int
) -> None:
    job = TrainingJob(method, sequence, 1, precision, checkpointing=checkpointing)  # type: ignore[arg-type]
    check(benchmark, benchmark.SMALL, job)
