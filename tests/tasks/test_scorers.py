from __future__ import annotations

import math
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantwise.core.errors import InputError, RuntimeFailure
from quantwise.core.item import Item
from quantwise.tasks import SUITES
from quantwise.tasks.json_answers import read_json, same_value
from quantwise.tasks.number_answers import read_number
from quantwise.tasks.scorers import SCORERS, check_item, parsed, score, score_choice
from quantwise.tasks.suite import solved_items


def item(scorer: Any, target: Any = None, choices: tuple[str, ...] = (), **options: Any) -> Item:
    return Item("i", "t", target, scorer, prompt="p", choices=choices, options=options)


def test_the_table_is_what_the_item_may_ask_for() -> None:
    names = ["exact", "contains", "regex", "numeric", "json_schema", "json_equal", "choice", "code", "tool_call"]
    assert list(SCORERS) == names


@pytest.mark.parametrize(
    ("output", "expected"), [("Paris", 1), ("  Paris\n", 1), ("paris", 0), ("Paris.", 0), ("", 0), ("Par is", 0)]
)
def test_exact(output: str, expected: float) -> None:
    assert score(item("exact", "Paris"), output) == expected


def test_case_is_folded_only_where_asked() -> None:
    assert score(item("exact", "Straße", case_sensitive=False), "STRASSE") == 1
    assert score(item("contains", "Paris"), "in paris") == 0
    assert score(item("contains", "Paris", case_sensitive=False), "in paris") == 1


def test_contains() -> None:
    assert score(item("contains", "42"), "it is 42, surely") == 1
    assert score(item("contains", "42"), "4 2") == 0


def test_regex_searches_and_compares_its_group_with_the_target() -> None:
    assert score(item("regex", None, pattern=r"\bB\b"), "answer: B") == 1
    assert score(item("regex", None, pattern=r"\bB\b"), "Because") == 0
    graded = item("regex", "B", pattern=r"answer: (\w)")
    assert score(graded, "I think answer: B") == 1
    assert score(graded, "I think answer: C, not B") == 0
    assert score(item("regex", "x", pattern=r"(a)|b"), "b") == 0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", "18"),
        ("so 3 + 4 = 7", "7"),
        ("16-3", "3"),
        ("f(2)-5", "5"),
        ("x is -5.", "-5"),
        ("minus −5", "-5"),
        ("it costs $1,234,567.50 now", "1234567.50"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("1 000 000", None),
        ("1\u202f000\u202f000 €", "1000000"),
        ("1'000", "1000"),
        ("1.5e3", "1500"),
        (".5", "0.5"),
        ("5%", "5"),
        ("١٨", "18"),
        ("#### 5 because 3 + 2 = 5, then 8", "5"),
        ("#### none, 9", "9"),
        ("#### 5\nQuestion: ...\n#### 6", "5"),
        ("3.5.2", "2"),
        ("1,23", "23"),
    ],
)
def test_numbers_in_text(text: str, number: str | None) -> None:
    wanted = Decimal("0") if number is None else Decimal(number)
    assert read_number(text) == wanted


def test_texts_without_a_number_are_unreadable() -> None:
    for text in ("", "none", "####", "-", "$", ",", "e5x"[0]):
        assert read_number(text) is None, text
    assert not parsed(item("numeric", 3), "no idea")
    assert parsed(item("numeric", 3), "4")
    assert score(item("numeric", 3), "no idea") == 0


@pytest.mark.parametrize("target", [2125, 2125.0, "2,125", "so 5*425\n#### 2,125"])
def test_numeric_targets_may_be_written_in_any_way(target: Any) -> None:
    assert score(item("numeric", target), "The answer is 2125.0") == 1
    assert score(item("numeric", target), "The answer is 2,126") == 0


def test_tolerance_is_absolute_and_inclusive() -> None:
    near = item("numeric", 0.3, tolerance=0.1)
    assert score(near, "0.4") == 1
    assert score(near, "0.41") == 0
    assert score(near, "1e9999") == 0


def test_numbers_are_compared_exactly_not_as_floats() -> None:
    assert score(item("numeric", "9007199254740993"), "9007199254740992") == 0
    assert score(item("numeric", 0.1), "0.1") == 1


@given(st.integers(-(10**30), 10**30), st.text(alphabet="abc .,:=\n", max_size=20))
def test_any_integer_is_read_back_with_and_without_separators(value: int, lead: str) -> None:
    assert read_number(f"{lead} {value}") == value
    assert read_number(f"{lead} {value:,}.") == value


@given(st.text(max_size=200))
def test_no_scorer_ever_raises_on_an_output(output: str) -> None:
    cases = [
        item("exact", "a"),
        item("contains", "a"),
        item("regex", None, pattern="a+"),
        item("numeric", 1, tolerance=0.5),
        item("json_schema", None, schema={"type": "object"}, fenced=True),
        item("json_equal", {"a": 1}),
        item("code", [1], inputs=[{"x": 1}]),
    ]
    for case in cases:
        assert score(case, output) in (0.0, 1.0)
        assert parsed(case, output) in (True, False)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("output", "valid", "readable"),
    [
        ('{"name": "A", "age": 3}', 1, True),
        (' \n{"age": 3, "name": "A"}\n', 1, True),
        ('{"name": "A", "age": "3"}', 0, True),
        ('{"name": "A"}', 0, True),
        ('{"name": "A", "age": 3, "x": 1}', 0, True),
        ('{"name": "A", "age": 3} done', 0, False),
        ('```json\n{"name": "A", "age": 3}\n```', 0, False),
        ('{"name": "A", "age": 3', 0, False),
        ("{'name': 'A', 'age': 3}", 0, False),
        ('{"name": "A", "age": NaN}', 0, False),
        ('{"name": "A", "age": 1e999}', 0, False),
        ('{"name": "A", "age": 3, "age": 3}', 0, False),
        ("[" * 100_000, 0, False),
        ("", 0, False),
    ],
)
def test_json_schema(output: str, valid: float, readable: bool) -> None:
    assert score(item("json_schema", None, schema=SCHEMA), output) == valid
    assert parsed(item("json_schema", None, schema=SCHEMA), output) is readable


def test_a_schema_with_a_target_wants_both() -> None:
    both = item("json_schema", {"name": "A", "age": 3}, schema=SCHEMA)
    check_item(both)
    assert score(both, '{"name": "A", "age": 3}') == 1
    assert score(both, '{"name": "B", "age": 3}') == 0


@pytest.mark.parametrize(
    "output", ['```json\n{"a": 1}\n```', 'Here:\n```\n{"a": 1}\n```\nDone.', '```json\n{"a": 1}', '{"a": 1}']
)
def test_fences_are_read_where_the_item_says_so(output: str) -> None:
    assert score(item("json_equal", {"a": 1}, fenced=True), output) == 1
    assert score(item("json_equal", {"a": 1}), output) == (output == '{"a": 1}')


@pytest.mark.parametrize(
    ("output", "equal"),
    [
        ('{"b": [1, 2], "a": null}', 1),
        ('{"a": null, "b": [1.0, 2]}', 1),
        ('{"a": null, "b": [2, 1]}', 0),
        ('{"a": null, "b": ["1", 2]}', 0),
        ('{"a": null, "b": [true, 2]}', 0),
        ('{"a": false, "b": [1, 2]}', 0),
        ('{"a": null, "b": [1, 2], "c": 0}', 0),
    ],
)
def test_json_equal(output: str, equal: float) -> None:
    assert score(item("json_equal", {"a": None, "b": [1, 2]}), output) == equal


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_json_values_equal_themselves_and_the_relation_is_symmetric(left: Any, right: Any) -> None:
    import json

    assert same_value(left, read_json(json.dumps(left)))
    assert same_value(left, right) == same_value(right, left)
    assert not same_value(left, [left])
    if same_value(left, right):
        assert left == right


def test_a_schema_with_enormous_numbers_does_not_crash() -> None:
    assert score(item("json_schema", None, schema={"multipleOf": 0.1}), "1" + "0" * 400) == 0


def test_choice() -> None:
    two = item("choice", 1, ("no", "yes"))
    assert score_choice(two, (-2.0, -1.0)) == 1
    assert score_choice(two, (-1.0, -2.0)) == 0
    assert score_choice(two, (-1.0, -1.0)) == 0
    assert score_choice(two, (-math.inf, -math.inf)) == 0
    assert score_choice(two, (-math.inf, -5.0)) == 1
    assert score_choice(two, (math.nan, -5.0)) == 0


def test_choice_by_length() -> None:
    choices = ("a long answer", "short")
    assert score_choice(item("choice", 0, choices), (-6.0, -4.0)) == 0
    assert score_choice(item("choice", 0, choices, length_normalized=True), (-6.0, -4.0)) == 1


def test_a_runtime_without_logprobs_is_a_failure_and_not_a_wrong_answer() -> None:
    with pytest.raises(RuntimeFailure, match="0 log-probabilities for 2 choices"):
        score_choice(item("choice", 1, ("no", "yes")), ())
    with pytest.raises(InputError, match="score_choice"):
        score(item("choice", 1, ("no", "yes")), "yes")


BAD_ITEMS = [
    (item("exact", " "), "not blank"),
    (item("exact", 3), "must be a text"),
    (item("contains", ""), "not blank"),
    (item("exact", "a", tolerance=1), "no option 'tolerance'; its options: case_sensitive"),
    (item("exact", "a", case_sensitive="no"), "true or false"),
    (item("regex", None), "option pattern"),
    (item("regex", None, pattern="("), "not a regular expression"),
    (item("regex", 3, pattern="a"), "target"),
    (item("numeric", "many"), "must be a number"),
    (item("numeric", True), "must be a number"),
    (item("numeric", math.inf), "must be a number"),
    (item("numeric", 1, tolerance=-1), "tolerance"),
    (item("numeric", 1, tolerance=True), "tolerance"),
    (item("json_schema", None), "option schema"),
    (item("json_schema", None, schema=[]), "JSON object"),
    (item("json_schema", None, schema={"type": "strin"}), "not a JSON Schema"),
    (item("json_schema", None, schema={"$ref": "https://example.org/s.json"}), "points outside"),
    (item("json_schema", None, schema={"$ref": "#/$defs/a"}), "not in the schema"),
    (item("json_schema", None, schema={"$schema": "http://example.org/draft"}), "not a draft"),
    (item("json_schema", None, schema={"pattern": "("}), "not a JSON Schema at $.pattern"),
    (item("json_schema", None, schema={"patternProperties": {"(": {}}}), "not a JSON Schema"),
    (item("json_schema", 3, schema={"type": "string"}), "target itself is not valid"),
    (item("json_equal", {"a": math.nan}), "JSON value"),
    (item("json_equal", (1, 2)), "JSON value"),
    (item("choice", 0, ("a",)), "at least two"),
    (item("choice", 0, ("a", "a")), "different"),
    (item("choice", 2, ("a", "b")), "0 to 1"),
    (item("choice", True, ("a", "b")), "0 to 1"),
    (item("code", [1]), "option inputs"),
    (item("code", 1, inputs=[{"x": 1}]), "list of the 1 expected"),
    (item("code", [1, 2], inputs=[{"x": 1}]), "list of the 1 expected"),
    (item("code", [1], inputs=[{"x y": 1}]), "named values"),
    (item("code", [1], inputs=[{"x": [[1]]}]), "flat lists"),
    (item("shell", "a"), "unknown scorer 'shell'; scorers: exact, "),
]


@pytest.mark.parametrize(("bad", "message"), BAD_ITEMS, ids=[f"{i.scorer}-{n}" for n, (i, _) in enumerate(BAD_ITEMS)])
def test_items_that_cannot_be_scored_are_refused(bad: Item, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_item(bad)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_local_references_in_a_schema_work() -> None:
    schema = {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}
    check_item(item("json_schema", None, schema=schema))
    assert score(item("json_schema", None, schema=schema), "3") == 1
    assert score(item("json_schema", None, schema=schema), '"3"') == 0


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_every_suites_items_are_valid_and_their_own_answers_score(suite: Any) -> None:
    for made, answer in solved_items(suite, "screen", 20, seed=1):
        check_item(made)
        assert score(made, answer) == 1
        assert parsed(made, answer)
        assert score(made, "") == 0


def test_scoring_a_long_output_is_quick() -> None:
    began = time.process_time()
    for output in ("9" * 100_000, "9," * 50_000, "-" * 100_000, "```\n" * 25_000, "{" * 100_000, "1e" * 50_000):
        for case in (item("numeric", 1), item("json_equal", 1, fenced=True), item("code", [1], inputs=[{"x": 1}])):
            score(case, output)
    assert time.process_time() - began < 5
