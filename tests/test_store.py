"""The run folder: nothing twice, nothing by halves."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.evidence import Measurement
from quantwise.core.item import Item
from quantwise.core.question import Question, TaskQuestion
from quantwise.store import Store, write_atomically

QUESTION = Question(
    model="m",
    model_hash="0",
    scenario={"objective": ["bytes"]},
    tasks=(TaskQuestion("code", "code", "0", "code", 0.05, 64, 8),),
    candidates=(Candidate("16bit", "llamacpp", baseline=True), Candidate("q8_0", "llamacpp")),
    calibration={"samples": 4},
    runtimes={"llamacpp": "1"},
    brought={},
    template_hash=None,
    scorers="1",
)


def row(item: str, block: int = 0) -> Measurement:
    return Measurement("q8_0@llamacpp", "certify", "code", item, 0, block, 1.0, "stop", "x")


def item(name: str) -> Item:
    return Item(id=name, task="code", target="x", scorer="exact", prompt=f"say x ({name})")


def test_a_question_survives_its_file_and_its_hash_covers_the_margins(tmp_path: Path) -> None:
    with Store(tmp_path / "run", create=True) as store:
        store.freeze(QUESTION)
        assert store.question() == QUESTION
        assert store.question().hash == QUESTION.hash
    wider = replace(QUESTION, tasks=(replace(QUESTION.tasks[0], margin=0.06),))
    assert wider.hash != QUESTION.hash


def test_another_question_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.freeze(QUESTION)
        with pytest.raises(InputError, match="changed: seed") as caught:
            store.freeze(replace(QUESTION, seed=1))
        assert str(caught.value).endswith(
            f"; decide into another --run; `quantwise report {tmp_path}` still shows what is there"
        )


def test_of_candidates_and_settings_those_are_named_that_differ(tmp_path: Path) -> None:
    first, *others = QUESTION.candidates
    packed = [replace(c, computes_as_stored=not c.computes_as_stored) for c in others[:1]]
    changed = replace(
        QUESTION,
        candidates=(first, *packed, *others[1:], replace(first, source="q2_k", baseline=False)),
        runtimes=dict(QUESTION.runtimes) | {"llamacpp": "of another day"},
    )
    with Store(tmp_path, create=True) as store:
        store.freeze(QUESTION)
        with pytest.raises(InputError) as caught:
            store.freeze(changed)
    names = ", ".join([*(c.name for c in packed), f"q2_k@{first.runtime}"])
    assert f"(changed: candidates ({names}), runtimes (llamacpp))" in str(caught.value)


def test_rows_and_block_marks_come_back(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.add_block([item("a"), item("b")], [row("a"), row("b")])
        store.add_block([item("c")], [row("c", 1)])
    with Store(tmp_path, create=True) as store:
        assert [r.item for r in store.rows("certify", "q8_0@llamacpp", "code")] == ["a", "b", "c"]
        assert store.has_block("q8_0@llamacpp", "certify", "code", 1)
        assert not store.has_block("q8_0@llamacpp", "screen", "code", 1)
        assert store.blocks("certify", "q8_0@llamacpp", "code") == 2
        assert store.asked("code")["c"] == ("say x (c)", "x")


def test_the_same_row_twice_is_refused_and_leaves_nothing_of_its_block(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.add_block([item("a")], [row("a")])
        with pytest.raises(EnvironmentFailure, match="UNIQUE"):
            store.add_block([item("b"), item("a")], [row("b", 1), row("a", 1)])
        assert [r.item for r in store.rows("certify")] == ["a"]


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Store(tmp_path, create=True), pytest.raises(EnvironmentFailure, match="another quantwise"):
        Store(tmp_path, create=True)


def test_no_run_folder_and_a_damaged_question_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question\.json"):
        Store(tmp_path / "nothing")
    with Store(tmp_path, create=True) as store:
        store.freeze(QUESTION)
    (tmp_path / "question.json").write_text('{"schema": 1')
    with Store(tmp_path) as store, pytest.raises(InputError, match="damaged"):
        store.question()
    (tmp_path / "question.json").write_text('{"schema": 99}')
    with Store(tmp_path) as store, pytest.raises(InputError, match=r"question\.json: another version .* \(schema 99"):
        store.question()
    for damage in (b"\xff\xfe{", b"[]", b"null", b'"x"'):
        (tmp_path / "question.json").write_bytes(damage)
        with Store(tmp_path) as store, pytest.raises(InputError, match=r"question\.json is damaged"):
            store.question()
    record = QUESTION.to_json()
    del record["seed"]
    (tmp_path / "question.json").write_text(json.dumps(record | {"sead": 1}))
    with Store(tmp_path) as store, pytest.raises(InputError, match=r"\(fields: sead, seed\); decide again"):
        store.question()


def test_a_full_disk_is_one_line_and_loses_no_earlier_row(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.add_block([item("a")], [row("a")])
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(EnvironmentFailure, match=r"full.*nothing is lost"):
            store.add_block([item(str(i)) for i in range(999)], [row(str(i), 1) for i in range(999)])
        assert [r.item for r in store.rows("certify")] == ["a"]


def test_kill_minus_nine_between_blocks_keeps_every_committed_block(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_store import Store, item, row, Path
        store = Store(Path({str(tmp_path)!r}), create=True)
        for block in range(10**6):
            names = [f"{{block}}-{{i}}" for i in range(8)]
            store.add_block([item(n) for n in names], [row(n, block) for n in names])
            print(block, flush=True)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == 40:
            os.kill(process.pid, signal.SIGKILL)
            break
    last = max([last, *(int(line) for line in process.stdout if line.strip())])
    process.wait()
    process.stdout.close()
    with Store(tmp_path, create=True) as store:
        blocks = store.blocks("certify", "q8_0@llamacpp", "code")
        assert blocks > last
        assert len(store.rows("certify")) == 8 * blocks


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "decision.json"
    write_atomically(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(target, "new \ud800")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
