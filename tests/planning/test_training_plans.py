"""Training as it is asked for: machines that a trainer can use, and a host where something is paged."""

from __future__ import annotations

from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.plan.fit import MARGINAL
from quantwise.plan.training import ALLOCATOR
from quantwise.plan.training_job import TrainingJob
from quantwise.planning import PlanRequest, train
from quantwise.scenarios.sites import sites


def trained(model: str, method: Any, site: str, host: str | None = None, **options: Any) -> dict[str, Any]:
    return train(PlanRequest(models=(model,), site=site, host=host), TrainingJob(method, 2048, **options))


@pytest.mark.parametrize(
    ("model", "method", "site", "batch"),
    [
        ("llama-3.1-8b", "full", "rtx-4090", 1),
        ("llama-3.1-70b", "qlora", "rtx-4090", 4),
        ("deepseek-v3", "qlora", "h100", 1),
        ("llama-3.1-8b", "full", "m1", 1),
        ("llama-3.1-8b", "full", "laptop", 1),
    ],
)
def test_machines_are_of_a_kind_that_trains(model: str, method: str, site: str, batch: int) -> None:
    found = trained(model, method, site, batch=batch)
    assert found["fits"] == "no"
    changes = [change for fix in found["fixes"] for change in fix["changes"]]
    named = [str(change["value"]) for change in changes if change["knob"] == "site"]
    assert {sites()[name].kind for name in named} <= {"gpu", sites()[site].kind}
    assert found["fixes"]
    if sites()[site].kind == "unified":
        assert "optimizer" not in {change["knob"] for change in changes}


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw", "paged-adamw-8bit"])
def test_what_bitsandbytes_lacks_on_a_mac_is_refused(optimizer: Any) -> None:
    with pytest.raises(InputError, match=f"^{optimizer} does not run on m4-max: .*take --optimizer adamw"):
        trained("qwen3-0.6b", "full", "m4-max", optimizer=optimizer)


def paged(site: str, host: str | None) -> dict[str, Any]:
    return trained("llama-3.1-8b", "full", site, host, optimizer="paged-adamw", checkpointing=True)


def test_paged_states_want_a_host() -> None:
    unknown, small, large = (paged("a100-40gb", host) for host in (None, "laptop", "lab-server"))
    states = unknown["paged_to_host_bytes"]
    assert states == unknown["terms"]["optimizer"] > 25 << 30
    # All of them beside the rest are more than 40 GB, without them it is less.
    assert unknown["peak_bytes"] > unknown["limit_bytes"] > unknown["total_bytes_at_least"]
    assert (unknown["fits"], unknown["host"]) == ("unknown", {"name": None, "limit_bytes": None})
    # 16 GiB take half of the states: the rest stays on the GPU.
    assert small["fits"] == "no"
    assert small["host"] == {"name": "laptop", "limit_bytes": 16 << 30}
    room = int(MARGINAL * (16 << 30))
    assert small["total_bytes"] - large["total_bytes"] == pytest.approx((1 + ALLOCATOR) * (states - room), abs=2)
    assert large["fits"] in ("yes", "marginal")


def test_a_processor_pages_nothing_out() -> None:
    plain = trained("qwen3-0.6b", "full", "lab-server")
    moved = trained("qwen3-0.6b", "full", "lab-server", optimizer="paged-adamw")
    assert moved["paged_to_host_bytes"] == 0
    assert moved["host"] is None
    assert moved["total_bytes"] == plain["total_bytes"]
