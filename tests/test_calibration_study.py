"""The calibration study: cells, intervals, what is kept apart, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantwise import calibration_study
from quantwise.build.held_out import held_out
from quantwise.calibration_study import GENERAL, IN_DOMAIN, MIXED, Study, in_domain, interval, run, study, table
from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.models import reference
from quantwise.models.config import read_config
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import split_of


def test_the_interval_holds_the_spread_of_seeds_and_of_texts() -> None:
    rng = np.random.default_rng(0)
    positions = np.full(80, 50.0)
    alike = np.tile(positions, (4, 1))
    low, high = interval(alike, positions)
    assert (low, high) == pytest.approx((1, 1))
    seeds_differ = positions * np.array([[0.5], [1.0], [1.0], [1.5]])
    low, high = interval(seeds_differ, positions)
    assert low < 0.8
    assert high > 1.2
    texts_differ = np.tile(positions * rng.exponential(size=80), (4, 1))
    low, high = interval(texts_differ, positions)
    centre, error = texts_differ[0].mean() / 50, texts_differ[0].std() / 50 / np.sqrt(80)
    assert (low, high) == pytest.approx((centre - 1.96 * error, centre + 1.96 * error), abs=0.5 * error)


def test_what_is_measured_on_is_never_calibrated_on() -> None:
    template = ChatTemplate.from_folder(reference.path())
    seen, held = (set(in_domain(split, 90, template)) for split in ("calibration", "screen"))
    assert len(seen) == len(held) == 90
    assert not seen & held


def test_general_prose_is_split_by_the_text_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text").mkdir()
    stories = [f"Story {i}. " + "It was a long way to the sea. " * 10 for i in range(60)]
    (tmp_path / "text" / "some.txt").write_text("<|endoftext|>".join([*stories, "too short"]))
    monkeypatch.setenv("QUANTWISE_DATA", str(tmp_path))
    found = calibration_study.general_prose([])
    assert found == [story.strip() for story in stories]
    pools = calibration_study._pools(reference.path(), 40, found)
    assert set(pools) == {IN_DOMAIN, GENERAL, MIXED}
    assert {split_of(text) for text in pools[GENERAL]} == {"train", "calibration"}
    assert "screen" in map(split_of, found)
    assert len(pools[MIXED]) == len(set(pools[MIXED])) == 2 * min(len(pools[IN_DOMAIN]), len(pools[GENERAL]))


def test_without_general_prose_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTWISE_DATA", raising=False)
    notes: list[str] = []
    assert calibration_study.general_prose(notes) == []
    assert notes == ["general prose was left out: QUANTWISE_DATA is not set (a folder with text/*.txt)"]


@pytest.mark.parametrize("recipe", ["rtn:int4-g64", "16bit", "q8_0"])
def test_a_recipe_without_data_is_refused(recipe: str) -> None:
    with pytest.raises(InputError, match="reads no calibration data"):
        study(reference.path(), parse_recipe(recipe))
    with pytest.raises(InputError, match="takes one recipe, not 2"):
        run(reference.path(), [recipe, "gptq:int4-g64"], as_json=False)


def test_counts_beyond_what_there_is_are_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTWISE_DATA", raising=False)
    monkeypatch.setattr(calibration_study, "_pools", lambda *_: {IN_DOMAIN: ["text"] * 20})
    monkeypatch.setattr(calibration_study, "_cells", lambda *_: [])
    found = study(reference.path(), parse_recipe("gptq:int4-g64"), counts=(16, 64, 256), held_out_texts=9)
    assert found.notes[1:] == ("in-domain has 20 calibration texts, so 64, 256 were left out",)


@pytest.mark.long
def test_more_data_of_the_right_kind_helps(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTWISE_DATA", str(shared_data))
    found = study(reference.path(), parse_recipe("gptq:int4-g64"), counts=(8, 64), seeds=2, held_out_texts=27)
    cells = {(c.held_out, c.domain, c.samples): c for c in found.cells}
    assert len(cells) == 2 * 3 * 2
    for kind, other in ((IN_DOMAIN, GENERAL), (GENERAL, IN_DOMAIN)):
        assert cells[kind, kind, 64].kl < cells[kind, kind, 8].kl
        assert cells[kind, kind, 64].kl < cells[kind, other, 64].kl
        assert cells[kind, other, 64].above
        least = min((c for c in found.cells if c.held_out == kind), key=lambda c: c.kl)
        assert least.overlaps
        assert not least.above
    assert all(c.low <= c.kl <= c.high and min(c.by_seed) <= c.kl <= max(c.by_seed) for c in found.cells)
    lines = table(found).splitlines()
    assert sum("the least" in line and line.startswith(("in-domain", "general")) for line in lines) >= 2


def test_the_table_says_where_intervals_overlap() -> None:
    cell = calibration_study.Cell
    cells = (
        cell(IN_DOMAIN, IN_DOMAIN, 16, 900, (0.2, 0.3), 0.25, 0.2, 0.3, overlaps=True, above=True),
        cell(IN_DOMAIN, IN_DOMAIN, 64, 3600, (0.2, 0.22), 0.21, 0.19, 0.25),
        cell(IN_DOMAIN, GENERAL, 16, 1000, (0.5, 0.6), 0.55, 0.4, 0.7, overlaps=False, above=True),
    )
    lines = table(Study("gptq:int4-g64", 2, cells, ("a note",))).splitlines()
    ends = [line.split("  ")[-1] for line in lines if line.startswith(("in-domain ", "general prose "))]
    assert ends == ["more, intervals overlap", "the least", "more"]
    assert lines[-1] == "a note"


def test_tokens_are_those_that_a_build_reads() -> None:
    """A context shorter than the texts cuts them: the study counts what the artifact's own build was calibrated on."""
    model = reference.path()
    long = " ".join(held_out_text("calibration", 200))
    data = {IN_DOMAIN: held_out(model, held_out_text("screen", 2))}
    found = calibration_study._cells(model, parse_recipe("gptq:int8-channel"), (IN_DOMAIN, 1), [[long]], data)
    assert [cell.tokens for cell, _ in found] == [read_config(model).context]
    assert 0 < found[0][0].kl < 0.01
