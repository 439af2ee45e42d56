"""Every built-in suite: the same items again, splits that cannot touch, answers that score, room for a verdict."""

from __future__ import annotations

import random
import re

import pytest

from quantwise.core.errors import InputError
from quantwise.core.item import Item, Message, fingerprint
from quantwise.tasks import SUITES, recall
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.scorers import check_item, score
from quantwise.tasks.suite import SPLITS, Suite, items, solved_items, split_of

EVERY_SUITE = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)


@EVERY_SUITE
def test_the_same_seed_gives_the_same_items_and_more_extend_fewer(suite: Suite) -> None:
    many = items(suite, "screen", 60, seed=3)
    assert items(suite, "screen", 25, seed=3) == many[:25]
    assert items(suite, "screen", 25, seed=4) != many[:25]


@EVERY_SUITE
def test_ids_are_unique_and_name_suite_split_and_seed(suite: Suite) -> None:
    drawn = [item for split in SPLITS for seed in (0, 7) for item in items(suite, split, 20, seed)]
    assert len({item.id for item in drawn}) == len(drawn)
    assert items(suite, "certify", 3)[2].id == f"{suite.name}-certify-0-000002"
    assert {item.task for item in drawn} == {suite.name}


@EVERY_SUITE
def test_a_right_answer_scores_and_a_damaged_one_does_not(suite: Suite) -> None:
    for item, answer in solved_items(suite, "screen", 60, seed=11):
        check_item(item)
        assert score(item, answer) == 1.0
        assert score(item, damaged(answer)) == 0.0, (item.text, damaged(answer))
        assert score(item, "") == 0.0


def damaged(answer: str) -> str:
    """The answer with its last word character replaced by another of its kind, as a flipped token would."""
    place = max(i for i, letter in enumerate(answer) if letter.isalnum())
    old = answer[place]
    new = str((int(old) + 1) % 10) if old.isdecimal() else "Ж"
    return answer[:place] + new + answer[place + 1 :]


@EVERY_SUITE
def test_no_prompt_of_one_split_is_in_another(suite: Suite) -> None:
    # Recall prompts are long, and made up of so many sentences that a small sample shows as much as a large one.
    count = 50 if suite is recall.SUITE else 300
    assert_disjoint(suite, count)


@pytest.mark.long
@EVERY_SUITE
def test_no_prompt_of_one_split_is_in_another_over_large_samples(suite: Suite) -> None:
    assert_disjoint(suite, 2_000 if suite is recall.SUITE else 20_000, least=2_000)


def assert_disjoint(suite: Suite, count: int, least: int = 1) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        wanted = count
        while True:
            try:
                drawn = items(suite, split, wanted)
                break
            except InputError:  # the smaller splits of a finite space hold fewer
                wanted = wanted // 2
                assert wanted >= least
        for item in drawn:
            assert seen.setdefault(fingerprint(item.text), split) == split
        assert len(drawn) == len({fingerprint(item.text) for item in drawn})


@pytest.mark.long
@EVERY_SUITE
def test_twenty_thousand_distinct_certification_items_exist(suite: Suite) -> None:
    assert len(items(suite, "certify", 20_000)) == 20_000


def test_the_splits_have_the_shares_that_they_should() -> None:
    found = [split_of(f"prompt number {i}") for i in range(20_000)]
    shares = {split: found.count(split) / len(found) for split in SPLITS}
    assert shares == pytest.approx({"train": 0.60, "calibration": 0.05, "screen": 0.10, "certify": 0.25}, abs=0.01)


def test_typography_does_not_move_a_prompt_to_another_split() -> None:
    assert split_of("Translate  into GREEK: cat") == split_of("translate into Greek: cat")


def test_an_exhausted_suite_says_how_many_it_has() -> None:
    tiny = Suite("tiny", "ten prompts", _tiny)
    with pytest.raises(InputError, match=r"tiny has about \d distinct train items, not 50; ask for at most"):
        items(tiny, "train", 50)


def _tiny(rng: random.Random) -> tuple[Item, str]:
    text = f"say {rng.randint(0, 9)}"
    return Item(id="", task="tiny", target="x", scorer="exact", messages=(Message("user", text),)), "x"


def test_unknown_splits_and_negative_counts_are_refused() -> None:
    with pytest.raises(InputError, match="unknown split 'test'; allowed are train, calibration, screen, certify"):
        items(SUITES[0], "test", 1)
    with pytest.raises(InputError, match="count must be 0 or more"):
        items(SUITES[0], "train", -1)
    with pytest.raises(InputError, match="count must be 0 or more"):
        held_out_text("screen", -1)


def test_arithmetic_has_more_rare_patterns_at_test_than_in_training() -> None:
    arithmetic = next(suite for suite in SUITES if suite.name == "arithmetic")

    def borrows_across_zeros(split: str) -> float:
        texts = [item.text for item in items(arithmetic, split, 1500)]
        return sum(bool(re.match(r"\d0+\d - ", text)) for text in texts) / len(texts)

    assert borrows_across_zeros("certify") > 2 * borrows_across_zeros("train")


def test_rare_languages_are_rarer_in_training_than_at_test() -> None:
    multilingual = next(suite for suite in SUITES if suite.name == "multilingual")

    def share(split: str, language: str) -> float:
        texts = [item.text for item in items(multilingual, split, 3000)]
        return sum(text.startswith(language) for text in texts) / len(texts)

    assert share("train", "Russian") > 3 * share("train", "Armenian") > 0
    assert share("certify", "Armenian") > 1.2 * share("train", "Armenian")


def test_held_out_documents_belong_to_their_split() -> None:
    documents = held_out_text("screen", 30)
    assert documents == held_out_text("screen", 40)[:30]
    assert {split_of(document) for document in documents} == {"screen"}
    assert not set(documents) & set(held_out_text("train", 200))
