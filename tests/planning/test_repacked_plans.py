"""What a processor repacks is needed once: the mapped pages that it was copied from are listed, and bind nothing."""

from __future__ import annotations

from typing import Any

import pytest

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
