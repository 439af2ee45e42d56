"""A model is planned in the format that it was published in where nothing is named: gpt-oss with MXFP4 experts."""

from __future__ import annotations

import pytest

from quantwise.planning import PlanRequest, plan

GIB = 1 << 30


@pytest.mark.parametrize(
    ("model", "runtime", "site", "scheme"),
    [
        ("gpt-oss-120b", "vllm", "h100", "mxfp4-experts"),
        ("gpt-oss-20b", "vllm", "rtx-4090", "mxfp4-experts"),
        ("gpt-oss-20b", "transformers", "rtx-4090", "mxfp4-experts"),
        ("gpt-oss-20b", "llamacpp", "rtx-4090", "mxfp4_moe"),
        ("gpt-oss-20b", "llamacpp", "laptop", "mxfp4_moe"),
    ],
)
def test_its_own_format_is_taken(model: str, runtime: str, site: str, scheme: str) -> None:
    found = plan(PlanRequest((model,), runtime=runtime, site=site))
    assert (found["scheme"], found["fits"]) == (scheme, "yes")
    named = plan(PlanRequest((model,), runtime=runtime, site=site, schemes=(scheme,)))
    assert named["total_bytes"] == found["total_bytes"]
    assert found["candidates"][0]["scheme"] == scheme


def test_a_processor_expands_it() -> None:
    found = plan(PlanRequest(("gpt-oss-20b",), runtime="transformers", site="lab-server"))
    assert "mxfp4-experts" not in {row["scheme"] for row in found["candidates"]}


def test_what_fits_nowhere_is_told_by_the_smallest() -> None:
    found = plan(PlanRequest(("gpt-oss-120b",), runtime="vllm", site="rtx-4090"))
    assert found["fits"] == "no"
    assert found["total_bytes_at_least"] == min(row["total_bytes_at_least"] for row in found["candidates"])


def test_other_models_are_planned_as_before() -> None:
    found = plan(PlanRequest(("qwen3-8b",), site="rtx-4090"))
    assert [row["scheme"] for row in found["candidates"]][:2] == ["16bit", "q8_0"]


def test_a_frontier_has_it() -> None:
    found = plan(PlanRequest(("gpt-oss-20b", "qwen3-14b"), memory_bytes=16 * GIB))
    assert "mxfp4_moe" in {row["scheme"] for row in found["frontier"] if row["model"] == "gpt-oss-20b"}


def test_a_scheme_that_fills_next_to_nothing_says_why() -> None:
    found = plan(PlanRequest(("gpt-oss-120b",), runtime="vllm", site="h100"))
    notes = {row["scheme"]: [note for note in row["notes"] if "in 16 bit" in note] for row in found["candidates"]}
    assert notes["int4-g128"] == [
        "int4-g128 leaves nearly all weights of this model in 16 bit: their rows do not split into groups of 128"
    ]
    assert not any(told for scheme, told in notes.items() if scheme != "int4-g128")
