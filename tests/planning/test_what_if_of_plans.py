"""What the cache would take belongs to the figure of the table: on the same device, of the same layers and heads."""

from __future__ import annotations

from typing import Any

import pytest

from quantwise.planning import PlanRequest, plan


def changes(found: dict[str, Any]) -> dict[str, int]:
    return {one["change"]: one["kv_cache_bytes"] for one in found["what_if"]}


SPLIT: list[dict[str, Any]] = [
    {"models": ("llama-3.1-70b",), "runtime": "vllm", "site": "h100", "tensor_parallel": 4},
    {"models": ("llama-3.1-70b",), "runtime": "vllm", "site": "h100", "tensor_parallel": 2, "pipeline_parallel": 2},
    {"models": ("gemma-3-27b",), "runtime": "vllm", "site": "h100", "tensor_parallel": 4},
    {"models": ("qwen3-8b",), "runtime": "transformers", "site": "a100-80gb", "tensor_parallel": 2},
    {"models": ("llama-3.1-70b",), "site": "rtx-4090", "pipeline_parallel": 3},
    {"models": ("llama-3.1-70b",), "site": "rtx-4090", "gpu_layers": 30, "schemes": ("q4_k_m",)},
    {"models": ("gemma-3-12b",), "site": "rtx-3090", "gpu_layers": 7},
    {"models": ("qwen3-8b",), "site": "laptop"},
    {"models": ("deepseek-v2-lite",), "site": "h100"},
]


@pytest.mark.parametrize("asked", SPLIT, ids=lambda asked: f"{asked['models'][0]}-{len(asked)}-{asked['site']}")
def test_each_is_what_the_plan_with_that_change_says(asked: dict[str, Any]) -> None:
    base = {"context": 8192, "concurrency": 2} | asked
    found = plan(PlanRequest(**base))
    scheme = {"schemes": (found["scheme"],)}
    said = changes(found)
    assert said["the context doubles"] == plan(PlanRequest(**base | scheme | {"context": 16384}))["kv_cache_bytes"]
    assert (
        said["the requests at a time double"]
        == plan(PlanRequest(**base | scheme | {"concurrency": 4}))["kv_cache_bytes"]
    )
    cache = {"llamacpp": "q8_0", "vllm": "fp8", "transformers": "int8-token"}[found["runtime"]]
    assert said[f"the cache is {cache}"] == plan(PlanRequest(**base | scheme | {"cache": cache}))["kv_cache_bytes"]
    assert all(said[name] < found["kv_cache_bytes"] for name in said if "key-value" in name)


def test_halves_of_what_a_device_has() -> None:
    found = plan(PlanRequest(**SPLIT[0]))
    # Two of eight heads on each of four devices.
    assert changes(found)["half as many key-value heads"] == found["kv_cache_bytes"] // 2
    assert "a single key-value head" not in changes(found)
    eight = plan(PlanRequest(**SPLIT[0] | {"tensor_parallel": 8}))
    assert not any("key-value" in name for name in changes(eight))


@pytest.mark.parametrize("runtime", ["llamacpp", "vllm"])
def test_latent_attention_has_no_heads_to_spare(runtime: str) -> None:
    found = plan(
        PlanRequest(("deepseek-v3",), site="h200", runtime=runtime, tensor_parallel=8 if runtime == "vllm" else 1)
    )
    assert not any("key-value" in name for name in changes(found))
