"""No more requests are promised than a runtime takes, whatever memory has room for."""

from __future__ import annotations

import pytest

from quantwise.core.errors import InputError
from quantwise.models import reference
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.planning import PlanRequest, plan
from quantwise.question.propose import parse


def test_llama_cpp_is_not_started_for_more_than_256() -> None:
    asked = PlanRequest(("llama-3.1-8b",), site="h100", context=512, schemes=("q4_k_m",), concurrency=257)
    with pytest.raises(InputError, match=r"llama\.cpp serves at most 256 requests at a time, not 257"):
        plan(asked)
    with pytest.raises(InputError, match="at most 256"):
        plan_candidate(parse("q8_0"), reference.path(), Workload(512, 500))


@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-0.6b"])
def test_what_has_room_is_told_and_256_at_most_are_promised(model: str) -> None:
    found = plan(PlanRequest((model,), site="mi300x", context=1024))
    assert found["concurrency"]["theoretical"] > 256
    assert 128 < found["concurrency"]["promised"] <= 256
    assert any("at most 256 requests" in note for note in found["notes"])
    full = plan(PlanRequest((model,), site="mi300x", context=1024, concurrency=256))
    changes = [one["change"] for one in full["what_if"]]
    assert "the requests at a time double" not in changes
    assert "the context doubles" in changes


def test_few_requests_need_no_note() -> None:
    found = plan(PlanRequest(("llama-3.1-8b",), site="rtx-4090", context=8192))
    assert found["concurrency"]["theoretical"] < 256
    assert not any("at most" in note for note in found["notes"])


def test_vllm_is_told_to_take_more_than_its_default() -> None:
    many = plan(PlanRequest(("qwen3-0.6b",), site="a100-80gb", context=512, runtime="vllm"))
    promised = many["concurrency"]["promised"]
    assert promised > 256
    assert f"vLLM computes 256 requests at once here by default; for {promised:,} start it with " in many["notes"][-1]
    assert f"--max-num-seqs {promised}" in many["notes"][-1]
    few = plan(PlanRequest(("llama-3.1-70b",), site="h100", context=8192, runtime="vllm", tensor_parallel=4))
    assert not any("max-num-seqs" in note for note in few["notes"])


def test_logits_of_more_sequences_count() -> None:
    one, many = (
        plan(PlanRequest(("qwen3-0.6b",), site="a100-80gb", context=64, runtime="vllm", concurrency=count))
        for count in (1, 2048)
    )
    assert many["compute_bytes"][1] > one["compute_bytes"][1]
