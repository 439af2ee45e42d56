"""Fixes of training say in ``--json`` what those of serving say: what is saved, and what is then taken of what."""

from __future__ import annotations

from quantwise.plan.training_job import TrainingJob
from quantwise.planning import PlanRequest, train


def test_they_say_what_is_saved_and_of_which_memory() -> None:
    found = train(PlanRequest(("llama-3.1-8b",), site="rtx-4090"), TrainingJob(method="lora", sequence=8192))
    assert found["fixes"]
    for fix in found["fixes"]:
        assert fix["total_bytes"] <= 0.9 * fix["limit_bytes"]
        assert fix["saves_bytes"] >= 0
        elsewhere = {change["knob"] for change in fix["changes"]} & {"site", "memory_bytes"}
        if not elsewhere:
            assert fix["limit_bytes"] == found["limit_bytes"]
            assert fix["saves_bytes"] == found["total_bytes"] - fix["total_bytes"]
