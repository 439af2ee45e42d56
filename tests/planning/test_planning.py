"""The whole answer of a plan: digits that everybody quotes, one limit for all terms, and fixes that keep their word."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models import reference
from quantwise.plan.capacity import theoretical_requests
from quantwise.plan.fit import MARGINAL
from quantwise.plan.other_models import family
from quantwise.plan.training_job import TrainingJob
from quantwise.planning import PlanRequest, plan, train

GIB = 1 << 30


def planned(*models: str, **asked: Any) -> dict[str, Any]:
    return plan(PlanRequest(models=models, **asked))


def test_a_request_of_8k_in_16_bit_takes_two_and_a_half_gibibytes() -> None:
    # 80 layers, 8 key-value heads of 128.
    eight = planned("llama-3.1-70b", site="a100-80gb", context=8192)
    assert eight["kv_cache_bytes"] == 2_684_354_560
    assert planned("llama-3.1-70b", site="a100-80gb", context=16384)["kv_cache_bytes"] == 2 * 2_684_354_560
    assert theoretical_requests(80 * 10**9, 42 * 10**9, 5 * 10**9, 2_684_354_560) == 12
    assert theoretical_requests(80 * GIB, 42 * GIB, 5 * GIB, 2_684_354_560) == 13


def test_the_record_has_what_a_script_reads() -> None:
    found = planned("llama-3.1-8b", site="rtx-4090", context=16384, concurrency=8)
    assert found["fits"] in ("yes", "no", "marginal")
    assert isinstance(found["weights_bytes"], int)
    assert isinstance(found["overhead_bytes"], int)
    low, high = found["compute_bytes"]
    assert 0 < low <= high
    parts = found["weights_bytes"] + found["kv_cache_bytes"] + high + found["overhead_bytes"]
    assert found["total_bytes"] == parts
    assert found["limit_bytes"] == int(24 * GIB * 0.985)
    assert set(found["concurrency"]) == {"theoretical", "promised"}
    assert 0 < found["concurrency"]["promised"] <= found["concurrency"]["theoretical"]
    assert found["decode_tokens_per_s"][0] < found["decode_tokens_per_s"][1]
    assert found["candidates"][0]["scheme"] == "16bit"


def test_the_chosen_one_is_the_one_of_most_bits_that_fits() -> None:
    found = planned("llama-3.1-8b", site="rtx-4090", context=16384, concurrency=8)
    bits = {row["scheme"]: row["bits_per_weight"] for row in found["candidates"] if row["fits"] == "yes"}
    assert found["scheme"] == max(bits, key=lambda scheme: bits[scheme])


@pytest.mark.parametrize("runtime", ["llamacpp", "transformers", "vllm"])
def test_every_runtime_is_planned(runtime: str) -> None:
    found = planned("qwen3-8b", site="h100", context=8192, concurrency=16, runtime=runtime)
    assert found["fits"] == "yes"
    assert len(found["candidates"]) >= 4
    assert not found["refused"]


def test_vllm_takes_memory_on_a_processor_too() -> None:
    found = planned("qwen3-8b", site="nas", runtime="vllm", schemes=("16bit",))
    assert found["weights_bytes"] > 16e9
    assert found["kv_cache_bytes"] > 0
    assert found["fits"] == "no"


def test_what_llama_cpp_does_not_run_is_refused_by_name() -> None:
    found = planned("qwen3-8b", site="h100", schemes=("q4_k_m", "int4-g128"))
    assert list(found["refused"]) == ["int4-g128@llamacpp"]
    with pytest.raises(InputError, match=r"llama\.cpp does not run int4-g128"):
        planned("qwen3-8b", site="h100", schemes=("int4-g128",))


def test_a_limit_of_ones_own_binds() -> None:
    free = planned("llama-3.1-8b", site="rtx-4090", schemes=("q4_k_m",))
    bound = planned("llama-3.1-8b", site="rtx-4090", schemes=("q4_k_m",), memory_bytes=4 * GIB)
    assert (free["fits"], bound["fits"]) == ("yes", "no")
    assert bound["limit_bytes"] == 4 * GIB
    assert bound["fixes"]


def test_the_reference_model_is_planned_where_nothing_is_named() -> None:
    found = plan(PlanRequest())
    assert found["model"] == "reference"
    assert found["limit_bytes"] > 0
    header = sum(f.stat().st_size for f in reference.path().glob("*.safetensors"))
    assert abs(found["candidates"][0]["weights_effective_bytes"] - header) < 0.05 * header


def test_a_family_at_one_memory() -> None:
    found = planned("qwen3-4b", "qwen3-8b", "qwen3-14b", memory_bytes=12 * 10**9)
    rows = found["frontier"]
    on = {(row["model"], row["scheme"]) for row in rows if row["on_frontier"]}
    assert ("qwen3-14b", "q4_k_m") in on
    assert ("qwen3-8b", "q8_0") in on
    for row in rows:
        assert (row["fits"] == "yes") == (row["longest_context"] is not None)
        assert row["fits"] == "no" or row["total_bytes"] <= MARGINAL * found["limit_bytes"]
    assert found["quality"].startswith("unknown until measured")


def test_a_frontier_row_is_what_plan_says_of_it() -> None:
    found = planned("qwen3-4b", "qwen3-8b", memory_bytes=8 * 10**9, schemes=("q4_k_m",))
    row = next(row for row in found["frontier"] if row["model"] == "qwen3-8b" and row["cache"] == "q8_0")
    alone = planned("qwen3-8b", memory_bytes=8 * 10**9, schemes=("q4_k_m",), cache="q8_0",
                    context=row["longest_context"])  # fmt: skip
    assert alone["total_bytes"] == row["total_bytes"]


def test_families_are_told_apart() -> None:
    assert family("qwen3-14b") == ("qwen3-8b", "qwen3-4b", "qwen3-1.7b", "qwen3-0.6b")
    assert family("nobody") == ()


def test_training_says_what_makes_it_fit() -> None:
    request = PlanRequest(models=("llama-3.1-8b",), site="rtx-4090")
    full, small = train(request, TrainingJob("full", 2048)), train(request, TrainingJob("qlora", 1536))
    assert full["fits"] == "no"
    assert full["fixes"]
    assert small["fits"] == "yes"
    assert small["trainable_parameters"] < 0.01 * full["trainable_parameters"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"models": ("no-such-model",)}, "no-such-model is no folder"),
        ({"models": ("qwen3-8b", "qwen3-8b")}, "qwen3-8b is named twice"),
        ({"site": "gtx-1"}, "unknown site"),
        ({"scenario": "nowhere"}, "unknown scenario"),
        ({"runtime": "mlx"}, "unknown runtime"),
        ({"cache": "q9"}, "unknown cache"),
        ({"schemes": ("q4_k_x",)}, "unknown"),
    ],
)
def test_bad_input_is_one_line(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        plan(PlanRequest(**({"models": ("qwen3-8b",)} | asked)))
    assert "\n" not in str(caught.value)


def test_it_answers_quickly() -> None:
    planned("llama-3.1-8b", site="rtx-4090")
    start = time.process_time()
    planned("llama-3.1-70b", site="rtx-4090", context=8192, concurrency=4)
    # Processor time, without imports; the half second of any preset is held by test_plan_pace.py.
    assert time.process_time() - start < 1.0
