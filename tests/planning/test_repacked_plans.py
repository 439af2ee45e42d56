"""What a processor repacks is needed once: the mapped pages that it was copied from are listed, and bind nothing."""

from __future__ import annotations

from typing import Any

import pytest

from quantwise.plan.fit import size
from quantwise.plan.terms import READ_ONCE
from quantwise.planning import PlanRequest, plan


def rows(model: str, site: str, **asked: Any) -> dict[str, dict[str, Any]]:
    return {row["scheme"]: row for row in plan(PlanRequest((model,), site=site, context=4096, **asked))["candidates"]}


@pytest.mark.parametrize("model", ["phi-4", "mixtral-8x7b", "qwen3-8b"])
@pytest.mark.parametrize("site", ["laptop", "lab-server"])
def test_fewer_bits_need_less_memory(model: str, site: str) -> None:
    found = rows(model, site)
    totals = [
        found[scheme]["total_bytes"] for scheme in ("16bit", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k")
    ]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("scheme", ["q4_k_m", "q4_0", "q5_k_m", "q8_0"])
def test_the_weights_are_those_of_the_file(scheme: str) -> None:
    row = rows("phi-4", "laptop", schemes=(scheme,))[scheme]
    assert row["weights_bytes"] == pytest.approx(row["weights_effective_bytes"], rel=1e-4)
    parts = {term["name"]: term["bytes"] for term in row["terms"]}
    # What a start-up log calls CPU_Mapped reaches over the repacked matrices too.
    assert parts["weights"][0] + parts[READ_ONCE][0] <= row["weights_effective_bytes"] * 1.001
    assert bool(parts[READ_ONCE][1]) == bool(parts["repacked"][1]) == scheme.startswith("q4")
    total = sum(high for name, (_, high) in parts.items() if name != READ_ONCE)
    assert row["total_bytes"] == total


def test_a_q4_file_fits_where_a_q5_file_does() -> None:
    found = rows("phi-4", "laptop")
    assert (found["q4_k_m"]["fits"], found["q5_k_m"]["fits"]) == ("yes", "yes")


@pytest.mark.parametrize("scheme", ["q4_k_m", "q4_0"])
def test_nothing_is_repacked_beside_a_gpu_that_is_there(scheme: str) -> None:
    """With ``-ngl 0`` neither: https://github.com/ggml-org/llama.cpp/issues/26334."""

    def parts(site: str, **asked: Any) -> dict[str, int]:
        terms = rows("llama-3.2-1b", site, schemes=(scheme,), **asked)[scheme]["terms"]
        return {term["name"]: term["bytes"][1] for term in terms if term["device"] == "cpu"}

    alone, beside = parts("x86-avx512"), parts("rtx-4090", gpu_layers=0, host="x86-avx512")
    assert alone["repacked"] > 0
    assert alone[READ_ONCE] > 0
    assert (beside["repacked"], beside[READ_ONCE]) == (0, 0)
    stored = rows("llama-3.2-1b", "x86-avx512", schemes=(scheme,))[scheme]["weights_effective_bytes"]
    assert beside["weights"] == pytest.approx(stored, rel=1e-4)
    assert alone["weights"] + alone["repacked"] == pytest.approx(stored, rel=1e-4)
    # Metal pins nothing, so its processor repacks.
    assert parts("m4-max", gpu_layers=0)["repacked"] > 0


def told(model: str, **asked: Any) -> list[str]:
    found = plan(PlanRequest((model,), context=4096, **asked))
    return [note for note in found["notes"] if "read once" in note]


def test_pages_that_only_top_shows_are_told_where_they_are_many() -> None:
    (note,) = told("phi-4", site="laptop", schemes=("q4_k_m",))
    term = next(t for t in rows("phi-4", "laptop", schemes=("q4_k_m",))["q4_k_m"]["terms"] if t["name"] == READ_ONCE)
    assert note.startswith(f"beside these, {size(term['bytes'][1])} of mapped file pages")
    # Nothing is repacked of these, or beside that GPU.
    assert told("phi-4", site="laptop", schemes=("q8_0",)) == []
    assert told("phi-4", site="rtx-4090", schemes=("q4_k_m",)) == []
