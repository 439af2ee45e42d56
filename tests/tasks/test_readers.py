from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.core.item import Message
from quantwise.tasks import SUITES
from quantwise.tasks.readers import read_all, read_tasks
from quantwise.tasks.scorers import SCORERS, check_item, score, score_choice
from quantwise.tasks.task import Task

GOOD: dict[str, Any] = {"id": "a", "prompt": "Capital of France?", "target": "Paris", "scorer": "exact"}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def only(path: Path | str) -> Task:
    (task,) = read_tasks(str(path))
    return task


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        read_tasks(str(path))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_own_items(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        GOOD,
        {"id": 2, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}],
         "target": 4, "scorer": "numeric", "options": {"tolerance": 0.5}, "cluster": 7, "max_tokens": 8, "stop": "\n"},
        "",
        {"id": "c", "prompt": "", "target": "yes", "scorer": "choice", "choices": ["no", "yes"]},
        {"id": "d", "prompt": "x", "scorer": "regex", "pattern": "^a"},
        {"id": "e", "prompt": "x", "scorer": "json_schema", "schema": {"type": "array"}, "stop": ["a", "b"]},
    )  # fmt: skip
    task = only(path)
    assert (task.name, task.kind, task.source) == ("mine", "other", str(path))
    assert task.scorer == "choice, exact, json_schema, numeric, regex"
    assert isinstance(task.items, tuple)
    first, second, third, fourth, fifth = task.items
    assert first.text == "Capital of France?"
    assert second.id == "2"
    assert second.messages == (Message("system", "Be brief."), Message("user", "2+2?"))
    assert (second.options, second.cluster, second.max_tokens, second.stop) == ({"tolerance": 0.5}, "7", 8, ("\n",))
    assert third.target == 1
    assert fourth.options == {"pattern": "^a"}
    assert fifth.stop == ("a", "b")
    assert score(second, "It is 4.") == 1


def test_items_of_code_only_are_of_kind_code(tmp_path: Path) -> None:
    record = {"id": 1, "prompt": "double x", "scorer": "code", "target": [4], "options": {"inputs": [{"x": 2}]}}
    assert only(write(tmp_path / "c.jsonl", record)).kind == "code"
    assert only(write(tmp_path / "d.jsonl", record, GOOD)).kind == "other"


def without(field: str) -> dict[str, Any]:
    return {k: v for k, v in GOOD.items() if k != field}


BAD_LINES: list[tuple[Any, str]] = [
    (
        "{not json",
        "not JSON (Expecting property name enclosed in double quotes at column 2); each line is one JSON object",
    ),
    ('{"id": 1} {"id": 2}', "not JSON (Extra data"),
    ('{"id": NaN}', "not JSON (NaN is not JSON)"),
    ('{"id": 1, "id": 2}', "a key is repeated"),
    ("[" * 100_000, "nested too deeply"),
    ('{"id": "\\ud800"}', "surrogate"),
    ("[1]", "a JSON list, not an object"),
    ("3", "not an object"),
    (without("id"), "field id"),
    (GOOD | {"id": ""}, "field id"),
    (GOOD | {"id": True}, "field id"),
    (GOOD | {"id": 1.5}, "field id"),
    (GOOD | {"answer": "Paris"}, "unknown field 'answer'; fields: id, prompt, messages, target"),
    (without("scorer"), "field scorer is missing; scorers: exact, contains"),
    (GOOD | {"scorer": "match"}, "unknown scorer 'match'; scorers: exact, contains"),
    (GOOD | {"scorer": ["exact"]}, "unknown scorer"),
    (without("target"), "field target is missing"),
    (GOOD | {"target": None}, "target must be a text"),
    (without("prompt"), "exactly one of prompt"),
    (GOOD | {"messages": []}, "exactly one of prompt"),
    (GOOD | {"prompt": 3}, "prompt must be a text"),
    (GOOD | {"prompt": ""}, "prompt must be a text"),
    (without("prompt") | {"messages": []}, "messages must be a list"),
    (without("prompt") | {"messages": "hi"}, "messages must be a list"),
    (without("prompt") | {"messages": ["hi"]}, "exactly the fields role and content"),
    (without("prompt") | {"messages": [{"role": "user", "content": "a", "x": 1}]}, "exactly the fields"),
    (
        without("prompt") | {"messages": [{"role": "human", "content": "a"}]},
        "unknown role 'human'; roles: system, user",
    ),
    (without("prompt") | {"messages": [{"role": "user", "content": ["a"]}]}, "content of a message"),
    (without("prompt") | {"messages": [{"role": "assistant", "content": "a"}]}, "last message"),
    (GOOD | {"choices": ["a", "b"]}, "scorer choice needs the field choices"),
    (GOOD | {"scorer": "choice"}, "scorer choice needs the field choices"),
    (GOOD | {"scorer": "choice", "choices": ["a", "b"]}, "0 to 1"),
    (GOOD | {"scorer": "choice", "choices": "ab", "target": 0}, "choices must be a list"),
    (GOOD | {"scorer": "choice", "choices": ["a", ""], "target": 0}, "choices must be a list of texts, none empty"),
    (GOOD | {"options": []}, "options must be"),
    (GOOD | {"options": {"fenced": True}}, "no option 'fenced'"),
    (GOOD | {"pattern": "a"}, "no option 'pattern'"),
    (GOOD | {"scorer": "regex", "pattern": "a", "options": {"pattern": "b"}}, "given twice"),
    (GOOD | {"scorer": "regex", "pattern": "a("}, "not a regular expression"),
    (GOOD | {"cluster": []}, "cluster must be"),
    (GOOD | {"max_tokens": 0}, "max_tokens must be"),
    (GOOD | {"max_tokens": True}, "max_tokens must be"),
    (GOOD | {"max_tokens": "8"}, "max_tokens must be"),
    (GOOD | {"stop": 3}, "stop must be"),
    (GOOD | {"stop": [""]}, "stop must be"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_broken_line_17_is_named(tmp_path: Path, line: Any, message: str) -> None:
    before = [GOOD | {"id": n} for n in range(16)]
    path = write(tmp_path / "t.jsonl", *before, line, GOOD)
    found = refused(path)
    assert found.startswith(f"{path}:17: ")
    assert message in found


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD, GOOD | {"id": "b"}, GOOD | {"prompt": "other"})
    assert refused(path) == f"{path}:3: id 'a' is already on line 1; ids must differ"


def test_numbers_and_texts_are_the_same_id(tmp_path: Path) -> None:
    assert "already on line 1" in refused(write(tmp_path / "t.jsonl", GOOD | {"id": 1}, GOOD | {"id": "1"}))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    assert refused(path) == f"{path}: no items; a task file has one item on each line"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    assert refused(path).startswith(f"{path}:2: not UTF-8 at byte 0")
    path.write_bytes(b"\x1f\x8b\x08\x00")
    assert "t.jsonl:1: not UTF-8" in refused(path)


def test_windows_files_and_line_separators_inside_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record = json.dumps(GOOD | {"target": "a\u2028b"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + record.encode() + b"\r\n")
    (item,) = only(path).items  # type: ignore[misc]
    assert item.target == "a\u2028b"


def test_paths_that_are_no_task(tmp_path: Path) -> None:
    missing = refused(tmp_path / "missing.jsonl")
    assert "neither a suite nor a file" in missing
    assert all(suite.name in missing for suite in SUITES)
    assert "no .jsonl or .tsv file in this folder" in refused(tmp_path)
    assert "neither a suite nor a file" in refused("gsm9k:x.jsonl")
    assert "neither a suite nor a file" in refused("")


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.jsonl", GOOD)

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refused(path) == f"{path}: cannot be read: Permission denied; give a readable .jsonl or .tsv file"


def test_two_tasks_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    paths = [write(tmp_path / "t.jsonl", GOOD), write(tmp_path / "sub" / "t.jsonl", GOOD)]
    with pytest.raises(InputError, match="two tasks are named 't'"):
        read_all([str(p) for p in paths])
    assert [t.name for t in read_all([str(paths[0]), "code"])] == ["t", "code"]


def test_a_folder_is_one_task_for_each_file(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", GOOD)
    write(tmp_path / "a.tsv", "How many?\t3")
    write(tmp_path / "README.md", "not a task")
    assert [t.name for t in read_tasks(str(tmp_path))] == ["a", "b"]


def test_formats_are_told_apart_by_their_first_line_or_forced(tmp_path: Path) -> None:
    blimp = write(tmp_path / "b.jsonl", {"sentence_good": "A b.", "sentence_bad": "B a.", "pairID": "5", "UID": "u"})
    gsm8k = write(tmp_path / "g.jsonl", {"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 2"})
    mgsm = write(tmp_path / "m.tsv", "Wie viele?\t5,600")
    assert [only(p).scorer for p in (blimp, gsm8k, mgsm)] == ["choice", "numeric", "numeric"]
    assert [only(p).kind for p in (blimp, gsm8k, mgsm)] == ["other", "reasoning", "reasoning"]
    forced = only(f"mgsm:{mgsm}")
    assert forced.source == f"mgsm:{mgsm}"
    assert only(forced.source).source_hash == forced.source_hash
    assert refused(f"jsonl:{gsm8k}").startswith(f"{gsm8k}:1: unknown field 'answer'")
    assert "a GSM8K line needs" in refused(f"gsm8k:{blimp}")
    assert "a BLiMP line needs" in refused(f"blimp:{gsm8k}")
    assert "not JSON" in refused(f"gsm8k:{mgsm}")
    assert "unknown field" in refused(
        write(tmp_path / "x.jsonl", {"question": "1+1?", "answer": "2", "scorer": "exact"})
    )


def test_broken_published_files(tmp_path: Path) -> None:
    gsm8k = {"question": "1+1?", "answer": "#### 2"}
    assert ":2: the answer of a GSM8K line" in refused(write(tmp_path / "g.jsonl", gsm8k, gsm8k | {"answer": "two"}))
    assert ":2: a GSM8K line needs" in refused(write(tmp_path / "g.jsonl", gsm8k, gsm8k | {"question": " "}))
    for line in ("no tab", "two\ttabs\t3", "no number\tthree", "\t3"):
        assert ":2: an MGSM line is" in refused(write(tmp_path / "m.tsv", "Wie?\t3", line))
    blimp = {"sentence_good": "A.", "sentence_bad": "B."}
    assert ":2: a BLiMP line needs" in refused(write(tmp_path / "b.jsonl", blimp, {"sentence_good": "A."}))


def test_a_pair_of_equal_sentences_is_left_out(tmp_path: Path) -> None:
    pairs = [{"sentence_good": "A.", "sentence_bad": b, "pairID": str(n)} for n, b in enumerate(("B.", "A.", "C."))]
    assert [i.id for i in only(write(tmp_path / "b.jsonl", *pairs)).items] == ["0", "2"]  # type: ignore[union-attr]
    assert "no items" in refused(write(tmp_path / "b.jsonl", pairs[1]))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_built_in_suites(suite: Any) -> None:
    task = only(suite.name)
    assert task.name == task.source == suite.name
    assert task.available is None
    screen, certify = task.supply("screen", 12, 3), task.supply("certify", 12, 3)
    assert not {i.text for i in screen} & {i.text for i in certify}
    assert task.supply("certify", 20, 3)[:12] == certify
    assert task.supply("certify", 5, 3) == certify[:5]
    assert task.supply("certify", 12, 4) != certify
    assert only(suite.name).source_hash == task.source_hash


def test_suites_have_hashes_and_margins_of_their_own() -> None:
    tasks = read_all([suite.name for suite in SUITES])
    assert len({t.source_hash for t in tasks}) == len(tasks)
    assert {t.name: t.kind for t in tasks if t.kind != "other"} == {
        "arithmetic": "reasoning", "code": "code", "instructions": "instructions",
    }  # fmt: skip


def test_the_hash_is_of_bytes_and_format(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", GOOD)
    before = only(path).source_hash
    assert only(write(tmp_path / "u.jsonl", GOOD)).source_hash == before
    assert only(write(path, GOOD | {"target": "Lyon"})).source_hash != before


BLIMP = {
    "anaphor_gender_agreement": 1000,
    "anaphor_number_agreement": 1000,
    "determiner_noun_agreement_1": 1000,
    "determiner_noun_agreement_2": 1000,
    "irregular_past_participle_verbs": 1000,
    "npi_present_1": 1000,
    # Lines 325 and one more hold the same sentence twice.
    "passive_1": 998,
    "regular_plural_subject_verb_agreement_1": 1000,
}


def test_blimp_as_it_comes(shared_data: Path) -> None:
    tasks = read_tasks(str(shared_data / "tasks" / "blimp"))
    assert {t.name: len(t.items) for t in tasks} == BLIMP  # type: ignore[arg-type]
    item = tasks[0].supply("certify", 1, 0)[0]
    assert item.prompt == ""
    assert len(item.choices) == 2
    assert score_choice(item, (-10.0, -11.0)) == 1
    assert score_choice(item, (-11.0, -10.0)) == 0


def test_gsm8k_as_it_comes(shared_data: Path) -> None:
    task = only(shared_data / "tasks" / "gsm8k" / "test.jsonl")
    assert (task.name, task.kind, len(task.items)) == ("gsm8k-test", "reasoning", 1319)  # type: ignore[arg-type]
    path = shared_data / "tasks" / "gsm8k" / "test.jsonl"
    answers = [json.loads(line)["answer"] for line in path.read_text().splitlines()]
    for item, answer in zip(task.items, answers, strict=True):  # type: ignore[arg-type]
        check_item(item)
        assert score(item, answer) == 1
        assert score(item, f"So the answer is ${item.target}.") == 1
        assert score(item, f"#### {item.target}7") == 0
    assert sum("," in item.target for item in task.items) > 5  # type: ignore[union-attr]


@pytest.mark.parametrize("language", ["en", "de", "sw"])
def test_mgsm_as_it_comes(shared_data: Path, language: str) -> None:
    task = only(shared_data / "tasks" / "mgsm" / f"mgsm_{language}.tsv")
    assert (task.name, task.kind, len(task.items)) == (f"mgsm_{language}", "reasoning", 250)  # type: ignore[arg-type]
    for item in task.items:  # type: ignore[union-attr]
        check_item(item)
        assert score(item, f"#### {item.target}") == 1
        assert "\t" not in item.text


def test_a_benchmark_we_do_not_read_is_refused_clearly(shared_data: Path) -> None:
    assert ":1: unknown field 'instruction_id_list'" in refused(shared_data / "tasks" / "ifeval" / "input_data.jsonl")


def test_the_page_about_tasks_shows_items_that_work(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    example = page.split("```jsonl\n")[1].split("```")[0]
    task = only(write(tmp_path / "page.jsonl", *example.splitlines()))
    assert task.scorer == "choice, code, contains, json_schema, numeric, regex, tool_call"
    assert all(f"`{suite.name}`" in page for suite in SUITES)
    assert all(f"| `{name}` |" in page for name in SCORERS)
