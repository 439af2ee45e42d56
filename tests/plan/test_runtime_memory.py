from __future__ import annotations

import pytest
from decoders import LLAMA_8B

from quantwise.core.errors import InputError
from quantwise.plan.constants import GIB, VLLM_0_32_CPU
from quantwise.plan.runtime_memory import transformers_memory, vllm_memory
from quantwise.plan.what_if import Demand
from quantwise.planning import PlanRequest, plan


def test_transformers_on_either_device() -> None:
    work = Demand(8192, 2)
    here = transformers_memory(LLAMA_8B, 16 * GIB, work)
    assert here.of("cache") == (2 * GIB, 2 * GIB)
    assert here.on("gpu") == (0, 0)
    there = transformers_memory(LLAMA_8B, 16 * GIB, work, device="gpu")
    assert there.of("weights", "gpu") == (16 * GIB, 16 * GIB)
    assert there.of("weights", "cpu") == (0, 0)
    assert there.on("gpu")[0] > 18 * GIB
    assert there.on("cpu")[1] < GIB // 2
    assert all(term.source for term in there.terms)


def test_vllm_shares_all_but_its_own() -> None:
    work = Demand(8192, 4)
    one, two = vllm_memory(LLAMA_8B, 16 * GIB, work), vllm_memory(LLAMA_8B, 16 * GIB, work, parallel=2)
    assert one.of("cache") == (4 * GIB, 4 * GIB)
    assert two.of("cache") == (2 * GIB, 2 * GIB)
    assert two.of("weights") == (8 * GIB, 8 * GIB)
    assert two.of("compute") == one.of("compute")
    assert two.of("libraries", "gpu")[0] > one.of("libraries", "gpu")[0]
    with pytest.raises(InputError, match=r"concurrency must be a whole number of at least 1, not 0"):
        vllm_memory(LLAMA_8B, 0, Demand(1, 0))


def test_vllm_on_a_processor_is_another_build() -> None:
    here = vllm_memory(LLAMA_8B, 16 * GIB, Demand(8100, 2), device="cpu")
    assert here.on("gpu") == (0, 0)
    # 64 blocks of 128 tokens, where a GPU takes 507 of 16.
    assert here.of("cache") == (2 * GIB, 2 * GIB)
    assert vllm_memory(LLAMA_8B, 16 * GIB, Demand(8100, 2)).of("cache", "gpu")[0] == 2 * 507 * 16 * 131072
    # Its three processes are no place that it computes in.
    assert here.of("process") == (VLLM_0_32_CPU.outside.low, VLLM_0_32_CPU.outside.high)
    assert here.of("process")[0] > GIB
    assert here.of("compute")[0] < GIB


@pytest.mark.parametrize(("site", "least"), [("laptop", GIB), ("m4-max", GIB), ("h100", GIB // 2)])
def test_what_vllm_is_loaded_with_is_overhead(site: str, least: int) -> None:
    found = plan(PlanRequest(("llama-3.1-8b",), site=site, runtime="vllm", schemes=("16bit",)))
    outside = sum(term["bytes"][1] for term in found["terms"] if term["name"] in ("process", "libraries", "context"))
    assert found["overhead_bytes"] == outside >= least
    assert found["total_bytes"] == sum(term["bytes"][1] for term in found["terms"])
