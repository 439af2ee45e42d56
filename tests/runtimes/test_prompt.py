"""Where a choice begins."""

from __future__ import annotations

from quantwise.runtimes.prompt import align


def test_the_split_lies_before_a_merged_token() -> None:
    # "ab" + "c": the tokenizer merges b with c in one choice, so both are conditioned on the first token only.
    assert align([1, 2], [[1, 9], [1, 2, 3]], None) == (1, [[1, 9], [1, 2, 3]])
    assert align([1, 2], [[1, 2, 3], [1, 2, 4, 5]], None) == (2, [[1, 2, 3], [1, 2, 4, 5]])


def test_every_choice_keeps_a_token() -> None:
    assert align([1, 2], [[1, 2], [1, 2, 3]], None)[0] == 1


def test_nothing_before_the_choices_is_the_opening_token() -> None:
    assert align([], [[5, 6], [7]], 0) == (1, [[0, 5, 6], [0, 7]])
    assert align([], [[5, 6], [7]], None) == (0, [[5, 6], [7]])
    assert align([0], [[0, 5], [0, 7]], 0) == (1, [[0, 5], [0, 7]])
