from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantwise.advise.claims import STATUSES, chosen, claim_of, claims
from quantwise.core.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
CLAIM = {"claim": "c", "source": "s", "status": "untested here", "overturned": "o"}


def test_every_claim_has_a_source_and_says_what_would_overturn_it() -> None:
    assert len(claims()) >= 35
    for claim in claims():
        assert claim.source, claim.name
        assert claim.overturned, claim.name
        assert claim.claim.endswith("."), claim.name
    assert {claim.status for claim in claims()} == set(STATUSES)


def test_what_is_shown_lies_in_the_repository() -> None:
    for claim in claims():
        if claim.shown:
            assert (ROOT / claim.shown).is_file(), claim.name
        if claim.status == "supported":
            # A claim counts as supported by something of ours only.
            assert claim.shown, claim.name
    told = {claim.name for claim in claims() if claim.status == "contradicted" and not claim.shown}
    assert told == {"fewer-bits-are-faster", "int8-weights-only-on-hopper", "int4-tensor-cores-on-hopper"}


def test_recipes_that_are_named_exist() -> None:
    from quantwise.core.recipe import parse_recipe

    named = [text for claim in claims() for text in re.findall(r"[a-z0-9+]+:[a-z0-9_.-]+(?=@| |$)", claim.use)]
    assert named  # a pattern that finds none would pass everything
    assert all(parse_recipe(text).name for text in named)


def test_a_case_filters() -> None:
    assert chosen() == list(claims())
    hopper = chosen(hardware="hopper", need="prompt")
    assert "int4-tensor-cores-on-hopper" in {c.name for c in hopper}
    assert all(not c.hardware or "hopper" in c.hardware for c in hopper)
    assert all(not c.need or "prompt" in c.need for c in hopper)
    assert {c.status for c in chosen(status="contradicted")} == {"contradicted"}
    assert "tensor-parallel-within-a-node" not in {c.name for c in chosen(size="small")}


@pytest.mark.parametrize("case", [{"hardware": "tpu"}, {"size": "tiny"}, {"need": "speed"}, {"status": "true"}])
def test_unknown_words_are_refused(case: dict[str, str]) -> None:
    with pytest.raises(InputError, match="allowed: "):
        chosen(**case)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"why": "x"}, "unknown field 'why'"),
        ({"status": "proved"}, "unknown status 'proved'"),
        ({"status": "supported"}, "say by which finding"),
        ({"hardware": ["tpu"]}, "unknown word 'tpu'"),
        ({"need": ["speed"]}, "unknown word 'speed'"),
    ],
)
def test_broken_claims_are_refused(change: dict[str, object], message: str) -> None:
    assert claim_of("x", CLAIM).name == "x"
    with pytest.raises(InputError, match=message):
        claim_of("x", CLAIM | change)
