"""Calibration sets: what is taken, from where, and what is kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.core.item import Item
from quantwise.tasks import SUITES
from quantwise.tasks.calibration import CalibrationSet, gathered
from quantwise.tasks.suite import items, split_of

STORIES = [f"Story {i}. " + "It was a long way to the sea. " * 10 for i in range(90)]


@pytest.fixture
def prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "some.txt").write_text("<|endoftext|>".join(STORIES))
    monkeypatch.setenv("QUANTWISE_DATA", str(tmp_path))


@pytest.mark.parametrize("count", [16, 100, 1000])
def test_as_many_samples_as_were_asked_for(count: int) -> None:
    found = gathered(CalibrationSet(samples=count), None)
    assert len(found) == len(set(found)) == count


@pytest.mark.usefixtures("prose")
def test_mixed_is_half_of_either_and_several_sources_share() -> None:
    mixed = gathered(CalibrationSet(("mixed",), 40), None)
    stories = {story.strip() for story in STORIES}
    assert len(mixed) == 40
    assert sum(text in stories for text in mixed) == 20
    assert {split_of(text) for text in mixed if text in stories} <= {"train", "calibration"}
    assert set(gathered(CalibrationSet(("in-domain", "general"), 40), None)) == set(mixed)


@pytest.mark.usefixtures("prose")
@pytest.mark.parametrize("source", ["in-domain", "general", "mixed", None])
@pytest.mark.parametrize("count", [20, None])
def test_the_seed_decides_which_and_nothing_else(source: str | None, count: int | None) -> None:
    sources = () if source is None else (source,)
    one, again, other = (gathered(CalibrationSet(sources, count, seed), None) for seed in (1, 1, 2))
    assert one == again
    all_of_it = source == "general" and count is None
    assert (set(one) != set(other)) is not all_of_it


def test_a_file_with_an_item_that_would_be_measured_is_refused(tmp_path: Path) -> None:
    file, suite = tmp_path / "texts.txt", SUITES[0]
    asked = max((item.text for item in items(suite, "certify", 40)), key=len)
    file.write_text("Some text.\n\nAnd " + " ".join(asked.upper().split()) + " too.\n\nMore text.")
    with pytest.raises(InputError, match=r"hold 1 of the .* items that would be measured \(" + suite.name):
        gathered(CalibrationSet((str(file),)), None)
    seen = max((item.text for item in items(suite, "calibration", 40)), key=len)
    file.write_text("Some text.\n\nAnd " + " ".join(seen.split()) + " too.\n\nMore text.")
    assert len(gathered(CalibrationSet((str(file),)), None)) == 3


def test_what_stands_in_the_choices_alone_is_looked_for(tmp_path: Path) -> None:
    """BLiMP asks nothing: two sentences, of which one is good."""
    file = tmp_path / "texts.txt"
    good, bad = "The patients that Sara has helped were tired.", "The patients that Sara has helped was tired."
    pair = Item("blimp-1", "blimp", 0, "choice", prompt="", choices=(good, bad))
    file.write_text(f"Some text.\n\nAnd {bad.upper()} too.\n\nMore text.")
    with pytest.raises(InputError, match=r"hold 1 of the 1 items .*blimp blimp-1"):
        gathered(CalibrationSet((str(file),)), None, [pair])
    short = replace(pair, choices=("some text", "more"))
    assert len(gathered(CalibrationSet((str(file),)), None, [short])) == 3


def test_a_build_looks_for_as_many_items_as_a_decision_certifies_with(tmp_path: Path) -> None:
    file, suite = tmp_path / "texts.txt", SUITES[0]
    last = max((item.text for item in items(suite, "certify", 512)[-20:]), key=len)
    file.write_text(f"Some text.\n\nAnd {last} too.\n\nMore text.")
    with pytest.raises(InputError, match=r"hold 1 of the"):
        gathered(CalibrationSet((str(file),)), None)


def test_the_default_set_holds_no_item_that_would_be_measured() -> None:
    whole = "\n".join(gathered(CalibrationSet(samples=400), None))
    for suite in SUITES:
        for item in (*items(suite, "screen", 64), *items(suite, "certify", 64)):
            assert len(item.text) < 24 or item.text not in whole


def test_too_few_samples_name_the_source(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"few\.txt has 2 calibration samples, not 16"):
        gathered(CalibrationSet((str(tmp_path / "few.txt"),), 16), None)
