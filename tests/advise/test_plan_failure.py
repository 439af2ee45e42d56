"""The failure that a plan names: by what breaks it, and with its numbers."""

from __future__ import annotations

from typing import Any

import pytest

from quantwise.advise.failures import failures
from quantwise.cli.main import main
from quantwise.plan.fit import size
from quantwise.plan.training_job import TrainingJob
from quantwise.planning import PlanRequest, plan, train


def planned(model: str, scheme: str, site: str, **asked: Any) -> dict[str, Any]:
    return plan(PlanRequest(models=(model,), schemes=(scheme,), site=site, **asked))


@pytest.mark.parametrize(
    ("model", "scheme", "site", "asked", "name"),
    [
        ("llama-3.1-70b", "q4_k_m", "rtx-4090", {}, "does-not-fit"),
        ("qwen3-30b-a3b", "q8_0", "rtx-4090", {}, "experts-fill-memory"),
        ("llama-3.1-8b", "16bit", "rtx-4090", {"context": 16384, "concurrency": 8}, "oom-under-load"),
        ("llama-3.1-8b", "16bit", "rtx-4090", {"context": 131072}, "oom-at-long-context"),
        ("llama-3.1-8b", "16bit", "rtx-4090", {"context": 131072, "concurrency": 2}, "oom-at-long-context"),
        ("llama-3.1-8b", "16bit", "m1", {}, "apple-limit"),
        ("llama-3.1-70b", "16bit", "m1", {}, "does-not-fit"),
    ],
)
def test_what_breaks_it_is_named(model: str, scheme: str, site: str, asked: dict[str, Any], name: str) -> None:
    found = planned(model, scheme, site, **asked)
    assert found["fits"] == "no"
    assert found["failure"]["name"] == name
    # All numbers are filled in: the sentence is that of a case, not the plain one.
    known = next(failure for failure in failures() if failure.name == name)
    assert found["failure"]["case"] != known.plain
    assert "{" not in found["failure"]["case"]


def test_the_numbers_are_the_plan_s() -> None:
    found = planned("llama-3.1-70b", "q4_k_m", "rtx-4090")
    assert found["failure"]["case"].startswith("40.1 GiB are needed, 23.6 GiB are there: 16.4 GiB too many")


@pytest.mark.parametrize("layers", [0, 40])
def test_a_host_that_is_short_is_not_called_the_gpu(layers: int) -> None:
    found = planned("llama-3.1-70b", "q4_k_m", "rtx-4090", gpu_layers=layers, host="16GiB")
    assert (found["fits"], found["failure"]["name"]) == ("no", "host-memory-short")
    lies = found["total_bytes"] if layers == 0 else found["host"]["bytes"][1]
    assert found["failure"]["case"] == (
        f"the host's memory is short, not the GPU's: {size(lies)} lie there, it has 16.0 GiB"
    )
    # Where the GPU has no room either, it is the GPU that is named.
    both = planned("llama-3.1-70b", "q4_k_m", "rtx-4090", gpu_layers=60, host="4GiB")
    assert both["failure"]["name"] == "does-not-fit"


def test_what_fits_has_none() -> None:
    assert planned("llama-3.1-8b", "q4_k_m", "rtx-4090")["failure"] is None


def test_training_names_its_own() -> None:
    found = train(PlanRequest(models=("llama-3.1-8b",), site="rtx-4090"), TrainingJob(method="full", sequence=2048))
    assert found["failure"]["name"] == "oom-while-training"
    assert found["failure"]["case"].startswith("full needs 62.1 GiB, 23.6 GiB are there: weights 15.0 GiB, gradients")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_training_of_adapters_is_not_called_full(method: Any) -> None:
    job = TrainingJob(method=method, sequence=2048, batch=4, checkpointing=True)
    found = train(PlanRequest(models=("llama-3.1-70b",), site="rtx-4090"), job)
    told = found["failure"]["case"]
    assert told.startswith(f"{method} needs ")
    assert "full" not in told
    # The three parts are the whole.
    terms = found["terms"]
    states = terms["gradients"] + terms["optimizer"]
    step = found["total_bytes_at_least"] - terms["weights"] - terms["adapters"] - states
    assert step > 0
    assert f"gradients and states {size(states)}, the step {size(step)}" in told


def test_the_screen_says_where_to_read_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.1-70b", "--site", "rtx-4090", "--scheme", "q4_k_m"]) == 0
    assert "quantwise advise --failure does-not-fit" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", "llama-3.1-8b", "--site", "rtx-4090", "--train", "full"]) == 0
    assert "advise --failure oom-while-training" in " ".join(capsys.readouterr().out.split())
