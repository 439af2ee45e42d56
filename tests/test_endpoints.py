"""Answers that do not end, refuse or change their script, and how long they are: found, paired, named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import BASE, certify, fake, question, task
from quantwise.core.endpoint import endpoint_margins
from quantwise.core.errors import InputError
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item
from quantwise.core.question import Question
from quantwise.endpoints import endpoints
from quantwise.settle.floor import floor_verdicts
from quantwise.settle.pair import verdicts
from quantwise.store import Store
from quantwise.tasks.answer_signs import refuses, scripts, switches_script, written

SMALL = "small@fake"


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide this information.",
        "As an AI language model, I don't have opinions.",
        "I am not able to answer that",
        "Es tut mir leid, das kann ich nicht beantworten.",
        "Lo siento, no puedo ayudar con eso.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "很抱歉，我无法回答这个问题。",
    ],
)
def test_refusals_are_known_by_their_words(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    ["Paris", "", "You can't divide by zero, so x is 3.", '{"name": "sorry"}', "x" * 300 + " I cannot", "I can help."],
)
def test_answers_are_no_refusals(answer: str) -> None:
    assert not refuses(answer)


@pytest.mark.parametrize(
    ("answer", "asked", "switched"),
    [
        ("The answer is 42", "What is it?", False),
        ("答案是四十二", "What is it?", True),
        ("The answer is 答案是四十二个苹果", "What is it?", True),
        ("The letter α and 42 more words of English", "What is it?", False),
        ("Ответ", "Переведи: answer", False),
        ("Ответ", "Translate into Russian: answer\nответ", False),
        ("42 + 1 = 43", "What is it?", False),
        ("東京", "日本の首都は？", False),
        ("とうきょう", "What is the capital of Japan?", True),
        ("Das ist Deutsch", "In English, please", False),
        ("𝑥 = 𝑦", "Solve it", False),
        ("words", "1 + 1 =", False),
    ],
)
def test_another_script_is_one_that_nobody_asked_in(answer: str, asked: str, switched: bool) -> None:
    assert switches_script(answer, asked) is switched


def test_scripts_are_counted_by_letters() -> None:
    assert scripts("aб1 漢かカ-") == {"LATIN": 1, "CYRILLIC": 1, "HAN": 1, "KANA": 2}


def row(name: str, item: int, repeat: int = 0, **more: Any) -> Measurement:
    plain: dict[str, Any] = {"score": 1.0, "finish": "stop", "output": "fine", "output_tokens": 10} | more
    return Measurement(name, "certify", "copy", f"i{item:03d}", repeat, 0, **plain)


def measured(folder: Path, ours: list[Measurement], theirs: list[Measurement]) -> tuple[Store, Question]:
    store = Store(folder, create=True)
    asked = question()
    ids = sorted({r.item for r in (*ours, *theirs)})
    things = [Item(id=i, task="copy", target="fine", scorer="exact", prompt="Say it") for i in ids]
    store.add_block(things, theirs)
    store.add_block([], ours)
    return store, asked


def test_a_clear_worsening_is_named_and_noise_is_not(tmp_path: Path) -> None:
    ours = [row(SMALL, i, finish="length" if i % 4 == 0 else "stop", output_tokens=14) for i in range(200)]
    ours[7] = row(SMALL, 7, output="I'm sorry, but I can't do that.", output_tokens=14)
    theirs = [row(BASE.name, i, finish="length" if i == 100 else "stop") for i in range(200)]
    store, asked = measured(tmp_path, ours, theirs)
    with store:
        found = endpoints(store, asked)
    (pair,) = found["pairs"]
    assert pair["non_termination"]["candidate"] == pytest.approx(0.25)
    assert pair["non_termination"]["difference"] == pytest.approx(0.245)
    low, high = pair["non_termination"]["interval"]
    assert 0 < low < 0.245 < high
    assert pair["refusal"]["candidate"] == pytest.approx(1 / 200)
    assert not pair["refusal"]["worse"]
    assert pair["length"]["ratio"] == pytest.approx(1.4)
    assert [said.split(": ")[1].split(" ")[0] for said in found["worse"]] == ["answers", "answers"]
    assert "do not end 25.0% against 0.5%" in found["worse"][0]
    assert "1.40 times as long" in found["worse"][1]
    assert found["arms"][0] == {
        "candidate": BASE.name, "answers": 200, "non_termination": 1 / 200, "refusal": 0.0, "language_switch": 0.0,
        "tokens": 10.0, "thinking_tokens": None,
    }  # fmt: skip


def test_better_is_not_worse_and_repeats_are_one_item(tmp_path: Path) -> None:
    theirs = [row(BASE.name, i, k, finish="length") for i in range(40) for k in range(5)]
    ours = [row(SMALL, i, k, output_tokens=4) for i in range(40) for k in range(5)]
    store, asked = measured(tmp_path, ours, theirs)
    with store:
        found = endpoints(store, asked)
    (pair,) = found["pairs"]
    assert pair["non_termination"]["items"] == pair["length"]["items"] == 40
    assert pair["non_termination"]["difference"] == -1.0
    assert found["worse"] == []


def test_a_cluster_that_grows_in_later_blocks_counts_by_its_first(tmp_path: Path) -> None:
    """As in `settle.pair`: wealth that was staked on a cluster's mean is not paid out again."""
    theirs = [row(BASE.name, i, cluster=f"c{i % 20}") for i in range(40)]
    ours = [row(SMALL, i, cluster=f"c{i % 20}", finish="length" if i >= 20 else "stop") for i in range(40)]
    store = Store(tmp_path, create=True)
    things = [Item(id=r.item, task="copy", target="fine", scorer="exact", prompt="Say it") for r in theirs]
    for block in range(2):
        part = slice(20 * block, 20 * (block + 1))
        store.add_block(things[part], [replace(r, block=block) for r in theirs[part]])
        store.add_block([], [replace(r, block=block) for r in ours[part]])
    with store:
        found = endpoints(store, question())
    (pair,) = found["pairs"]
    assert (pair["non_termination"]["items"], pair["non_termination"]["difference"]) == (20, 0.0)
    assert found["arms"][1]["non_termination"] == 0.5, "of all answers"


def test_choices_and_lost_answers_are_no_written_answers(tmp_path: Path) -> None:
    choice = row(SMALL, 0, output="-1.2345 -inf", output_tokens=None)
    assert not written(choice)
    assert written(row(SMALL, 0, output="-1.2345", output_tokens=None))
    assert not written(row(SMALL, 0, finish="timeout"))
    store, asked = measured(tmp_path, [choice], [row(BASE.name, 0)])
    with store:
        found = endpoints(store, asked)
    assert found["pairs"] == []
    assert found["arms"][1]["refusal"] is None


STRICT = {"name": "laptop", "objective": ["bytes"], "endpoints": {"non_termination": 0.05}}


def test_a_margin_makes_an_endpoint_a_gate_of_its_own(tmp_path: Path) -> None:
    ours = [row(SMALL, i, finish="length" if i % 4 == 0 else "stop") for i in range(200)]
    store, _ = measured(tmp_path, ours, [row(BASE.name, i) for i in range(200)])
    asked = question(scenario=STRICT, tasks=[task(margin=0.05)])
    with store:
        found = {v.task: v for v in verdicts(store, asked)}
    assert [g.name for g in asked.gates] == ["copy", "copy: non-termination"]
    assert found["copy"].verdict == "PASS"
    gate = found["copy: non-termination"]
    assert gate.verdict == "FAIL"
    assert gate.comparison.delta == pytest.approx(-0.25)
    assert gate.comparison.margin == 0.05
    assert "endpoints" not in question().to_json()["scenario"]


def test_items_are_asked_until_the_endpoint_is_settled_too(tmp_path: Path) -> None:
    """A wide margin for the score is settled early, the narrow one for the endpoint late."""
    tasks = [task(margin=0.4, items=320)]
    asked = {"plain": question(tasks=tasks), "strict": question(tasks=tasks, scenario=STRICT)}
    count = {}
    for name, one in asked.items():
        certify(tmp_path / name, one, fake())
        with Store(tmp_path / name) as store:
            count[name] = len(store.rows("certify", SMALL))
            assert {v.verdict for v in verdicts(store, one)} == {"PASS"}
    assert count["plain"] < count["strict"] < 320


def test_where_floors_alone_decide_the_margin_is_the_largest_share_of_each_arm_by_itself(tmp_path: Path) -> None:
    """The baseline shows the sign as often, so that nothing rises; both are over the ceiling, and FAIL it."""
    ends = [{"finish": "length" if i % 4 == 0 else "stop"} for i in range(200)]
    store, _ = measured(
        tmp_path, [row(SMALL, i, **end) for i, end in enumerate(ends)],
        [row(BASE.name, i, **end) for i, end in enumerate(ends)],
    )  # fmt: skip
    tasks = [replace(task(margin=0.05), floor=0.5)]
    beside, alone = (question(scenario=STRICT | more, tasks=tasks) for more in ({}, {"compare": "floor"}))
    with store:
        assert {v.task: v.verdict for v in verdicts(store, beside)} == {"copy": "PASS", "copy: non-termination": "PASS"}
        assert [v.task for v in verdicts(store, alone)] == ["copy"]
        found = {(v.candidate, v.task): v for v in floor_verdicts(store, alone)}
        assert {(v.candidate, v.task) for v in floor_verdicts(store, beside)} == {
            (name, "copy") for name in (BASE.name, SMALL)
        }
    assert {key: v.verdict for key, v in found.items()} == {
        (BASE.name, "copy"): "PASS", (BASE.name, "copy: non-termination"): "FAIL",
        (SMALL, "copy"): "PASS", (SMALL, "copy: non-termination"): "FAIL",
    }  # fmt: skip
    gate = found[SMALL, "copy: non-termination"]
    assert (gate.floor, gate.mean) == (0.95, 0.75)
    assert gate.explanation.startswith("75.0% of 200 items without it, floor 95.0%: shown to be below it")


def test_a_request_that_was_refused_is_no_answer_without_the_sign(tmp_path: Path) -> None:
    """A fifth of the requests was barred: that all other answers end shows nothing of those."""
    barred = [row(SMALL, i, finish="refused" if i % 5 == 0 else "stop") for i in range(200)]
    store, _ = measured(tmp_path, barred, [row(BASE.name, i) for i in range(200)])
    alone = question(scenario=STRICT | {"compare": "floor"}, tasks=[replace(task(margin=0.05), floor=0.5)])
    with store:
        found = {(v.candidate, v.task): v for v in floor_verdicts(store, alone)}
    gate = found[SMALL, "copy: non-termination"]
    assert (gate.verdict, gate.reason, gate.missing) == ("UNKNOWN", "missing", 40)
    assert found[BASE.name, "copy: non-termination"].verdict == "PASS"


def test_where_floors_alone_decide_items_are_asked_until_the_ceiling_is_settled(tmp_path: Path) -> None:
    tasks = [replace(task(items=320), floor=0.3)]
    count = {}
    for name, scenario in (("plain", {"name": "x", "objective": ["bytes"]}), ("strict", STRICT)):
        asked = question(scenario={**scenario, "compare": "floor"}, tasks=tasks)
        certify(tmp_path / name, asked, fake())
        with Store(tmp_path / name) as store:
            count[name] = len(store.rows("certify", SMALL))
            assert {v.verdict for v in floor_verdicts(store, asked)} == {"PASS"}
    assert count["plain"] < count["strict"] < 320


@pytest.mark.parametrize("given", [{"length": 0.1}, {"refusal": 0}, {"refusal": 1}, {"refusal": True}, 0.1])
def test_margins_that_make_no_sense_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="endpoint"):
        endpoint_margins(given)
