"""The room for caches beside vLLM is the share that the user's own version takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from quantwise.plan.constants import VLLM_0_19, VLLM_0_32, VllmVersion
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.deployment_plan import cache_room, plan_deployment
from quantwise.plan.model import find_model
from quantwise.scenarios.sites import sites


@pytest.mark.parametrize("version", [VLLM_0_19, VLLM_0_32, replace(VLLM_0_32, utilization=0.5)])
def test_a_refitted_version_takes_its_own_share(version: VllmVersion) -> None:
    asked = Deployment(find_model("qwen3-8b"), sites()["h100"], "fp8", runtime="vllm")
    constants = Constants(vllm=version)
    found = plan_deployment(asked, constants)
    assert found.compute is not None
    assert found.limit_bytes is not None
    spent = found.weights_bytes + found.compute[1] + found.overhead[1]
    assert cache_room(found, constants) == int(found.limit_bytes * version.utilization) - spent
