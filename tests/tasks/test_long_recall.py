"""Texts that fill a context: the longest that fits, facts at their depths, questions of a chat and of raw text."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.tasks.long_recall import Document, depths, document, sentences_of
from quantwise.tasks.recall import fact_sentence
from quantwise.tasks.scorers import check_item, score

WORDS = 900


def fits(text: str) -> bool:
    return len(text.split()) <= WORDS


def test_the_text_is_as_long_as_fits_and_no_longer() -> None:
    found = document(3, 5, fits)
    assert fits(found.text)
    # No sentence of ours has more than fourteen words, so one more would not have fitted.
    assert len(found.text.split()) > WORDS - 14


def test_facts_stand_in_order_at_even_depths() -> None:
    found = document(0, 4, fits)
    places = [found.text.index(fact_sentence(*fact)) / len(found.text) for fact in found.facts]
    assert places == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.02)
    assert found.depths == depths(4) == (0.125, 0.375, 0.625, 0.875)
    assert all(found.text.count(fact_sentence(*fact)) == 1 for fact in found.facts)


def test_number_and_seed_are_all_that_a_text_depends_on() -> None:
    assert document(7, 3, fits) == document(7, 3, fits)
    assert document(7, 3, fits).facts != document(8, 3, fits).facts
    assert document(7, 3, fits).facts != document(7, 3, fits, seed=1).facts


def test_a_longer_context_begins_with_the_same_sentences() -> None:
    short, long = document(1, 1, fits), document(1, 1, lambda text: len(text.split()) <= 4 * WORDS)
    assert len(long.text) > 3.5 * len(short.text)
    assert long.text[:200] == short.text[:200]


@pytest.mark.parametrize("chat", [True, False])
def test_every_question_has_one_right_answer(chat: bool) -> None:
    found = Document(2, "Some text.", (("Toven", "617"), ("Bado", "100")))
    items = found.items(chat)
    for item in items:
        check_item(item)
    right = ["The code is Toven617.", "Bado100"] if chat else [" 617. The", "100"]
    assert [score(i, answer) for i, answer in zip(items, right, strict=True)] == [1.0, 1.0]
    wrong = ["Bado100", "Toven617"] if chat else ["100", "6170"]
    assert [score(i, answer) for i, answer in zip(items, wrong, strict=True)] == [0.0, 0.0]
    assert {item.cluster for item in items} == {"text-00002"}
    assert len({item.id for item in items}) == 2


def test_a_raw_prompt_ends_within_the_fact() -> None:
    (item,) = Document(0, "Some text.", (("Toven", "617"),)).items(chat=False)
    assert item.prompt == "Some text. The code is Toven"


def test_a_context_that_holds_no_facts_is_refused() -> None:
    with pytest.raises(InputError, match="longer --context, or fewer --questions"):
        document(0, 3, lambda text: len(text) < 100)


def test_the_text_of_a_user_fills_it_from_some_sentence_on(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("\n".join(f"This is sentence {i}, and  it goes\non." for i in range(400)), encoding="utf-8")
    prose = sentences_of(file)
    assert len(prose) == 400
    assert prose[3] == "This is sentence 3, and it goes on."
    one, two = document(0, 2, fits, prose), document(1, 2, fits, prose)
    assert one.text.split(",")[0] != two.text.split(",")[0]
    with pytest.raises(InputError, match="does not fill the context"):
        document(0, 2, lambda text: len(text.split()) < 8 * 400 * 2, prose)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a text file"):
        sentences_of(tmp_path / "none.txt")
    (tmp_path / "short.txt").write_text("One. Two.", encoding="utf-8")
    with pytest.raises(InputError, match="has 2 sentences"):
        sentences_of(tmp_path / "short.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no UTF-8"):
        sentences_of(tmp_path / "bytes.txt")
