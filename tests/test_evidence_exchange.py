"""Two machines as two folders: a baseline measured in one is compared with in the other, and never opened there."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import Killed, KilledAt, fake, question
from quantwise import evidence_exchange, workbench
from quantwise.cli.main import main
from quantwise.core.artifact import Artifact, Candidate
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.evidence import Measurement
from quantwise.core.progress import Silent
from quantwise.core.question import Question, TaskQuestion
from quantwise.core.runtime import RuntimeOptions
from quantwise.evidence_file import read, written
from quantwise.question.request import Request
from quantwise.report.page import render
from quantwise.report.terminal import print_screen
from quantwise.store import Store
from quantwise.tasks.readers import read_all
from quantwise.testing.blank_gguf import BlankModel, write_blank
from quantwise.testing.fake_runtime import FakeRuntime, FakeSession

BASE, SMALL = "base.gguf", "small.gguf"


@dataclass
class Machine:
    """A folder with both files and the tasks, and a runtime that knows the files by their names alone."""

    home: Path
    build: str = "llama.cpp 7"
    settings: dict[str, Any] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    name: str = "llamacpp"

    def version(self) -> str:
        return self.build

    def refuses(self, artifact: Artifact) -> str | None:
        return None

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[FakeSession]:
        file = Path(artifact.location).name
        self.opened.append(file)
        inner: FakeRuntime = fake(delay_s=0.0, **self.settings)
        with inner.open(replace(artifact, location=file), options) as session:
            yield session

    def asks(self, count: int = 400, **changes: Any) -> Request:
        words = self.home / "mine.jsonl"
        lines = [{"id": i, "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} for i in range(count)]
        words.write_text("\n".join(map(json.dumps, lines)))
        plain = Request(
            tasks=(str(words),), candidates=(str(self.home / SMALL),), baseline=str(self.home / BASE),
            margins={"mine": 0.05}, run=self.home / "run", context=64,
        )  # fmt: skip
        return replace(plain, **changes)


Makes = Callable[..., Machine]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blank")
    tiny = BlankModel(hidden=64, layers=1, heads=2, kv_heads=1, dim=32, feed_forward=96, vocab=64, context=64)
    write_blank(folder / BASE, replace(tiny, mix="q8_0"))
    write_blank(folder / SMALL, tiny)
    return folder


@pytest.fixture
def machine(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Makes:
    """Makes a machine; what is decided from then on is decided there."""

    def make(name: str, **settings: Any) -> Machine:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        for file in (BASE, SMALL):
            shutil.copy(files / file, home / file)
        build = settings.pop("build", "llama.cpp 7")
        made = Machine(home, build, settings)
        monkeypatch.setattr("quantwise.question.pose.runtime_named", lambda runtime: made)
        return made

    return make


def decide(request: Request) -> dict[str, Any]:
    return workbench.decide(request, Silent())


def frozen(request: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze a question whose baseline has no room, as `decide` does before it refuses."""
    with monkeypatch.context() as patched:
        needed = Path(str(request.baseline)).stat().st_size
        patched.setattr("quantwise.plan.candidate_fit.available_bytes", lambda: needed // 2)
        with pytest.raises(
            EnvironmentFailure, match=rf"needs .*; `quantwise evidence import {request.run} FILE` brings"
        ):
            decide(request)


@pytest.fixture
def brought(machine: Makes, tmp_path: Path) -> Path:
    """A file of the baseline's rows, from a machine that measured all items of both."""
    large = machine("large", errors={BASE: 0.02, SMALL: 0.02})
    decide(large.asks(fixed=True, items=352))
    evidence_exchange.export(large.home / "run", tmp_path / "rows.evidence")
    return tmp_path / "rows.evidence"


def edited(path: Path, change: Callable[[dict[str, Any], list[dict[str, Any]]], None]) -> Path:
    """The file with something changed by a person who knows how to make its digest right again."""
    found = read(path)
    header, rows = dict(found.header), [dict(row) for row in found.rows]
    change(header, rows)
    header.pop("quantwise_evidence")
    out = path.with_name("edited.evidence")
    out.write_text(written(header, rows))
    return out


def verdict(record: dict[str, Any]) -> dict[str, Any]:
    (found,) = record["verdicts"]
    return dict(found)


def test_an_imported_baseline_gives_the_verdict_of_one_measured_here_and_is_never_opened(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    whole = decide(here.asks(run=here.home / "all-here"))
    here.opened.clear()
    frozen(here.asks(), monkeypatch)
    taken = evidence_exchange.take_in(here.home / "run", brought)
    assert (taken["items"], taken["left_out"], taken["degradation"]) == ({"mine": 352}, {}, None)
    record = decide(here.asks())
    assert set(here.opened) == {SMALL}
    same = ("verdict", "n", "regressions", "improvements", "e_pass", "e_fail", "delta")
    assert {k: verdict(record)[k] for k in same} == {k: verdict(whole)[k] for k in same}
    assert verdict(record)["verdict"] == "PASS"
    assert record["noise"] == [{"runtime": "llamacpp", "task": "mine", "n": 40, "flips": 0}]
    assert decide(here.asks())["verdicts"] == record["verdicts"]
    assert set(here.opened) == {SMALL}


def test_every_verdict_says_where_its_baseline_was_measured(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    evidence_exchange.take_in(here.home / "run", brought)
    record = decide(here.asks())
    said = verdict(record)["caveats"]
    assert len(said) == 1
    assert f"{BASE}@llamacpp was measured on another machine" in said[0]
    assert said[0] in verdict(record)["explanation"]
    screen, page = io.StringIO(), render(record, workbench.flips(here.home / "run"))
    print_screen(record, screen, width=400)
    assert said[0] in screen.getvalue()
    assert page.count("was measured on another machine") >= 2  # above the table and at the verdict
    assert verdict(workbench.reread(here.home / "run"))["caveats"] == said


def test_times_and_memory_of_another_machine_are_unknown_here(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    evidence_exchange.take_in(here.home / "run", brought)
    costs = {c["candidate"]: c for c in decide(here.asks())["costs"]}
    (base,) = (c for name, c in costs.items() if BASE in name)
    (small,) = (c for name, c in costs.items() if SMALL in name)
    timed = ("memory_bytes", "seconds_per_item", "p99_over_p50", "tokens_per_s")
    assert [base[name] for name in timed] == [None] * 4
    assert base["artifact_bytes"] == (here.home / BASE).stat().st_size
    assert small["seconds_per_item"] is not None
    assert "seconds" not in brought.read_text()


def test_partial_evidence_leaves_the_rest_unknown_and_more_of_it_goes_on(
    machine: Makes, tmp_path: Path, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [row["item"] for row in read(brought).rows if row["stage"] == "certify"]
    part = edited(brought, lambda h, rows: rows.__delitem__(slice(len(rows) - len(order) + 70, None)))
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    taken = evidence_exchange.take_in(here.home / "run", part)
    assert (taken["items"]["mine"] % 32, taken["items"]["mine"] + taken["left_out"]["mine"]) == (0, 70)
    first = decide(here.asks())
    assert (verdict(first)["verdict"], verdict(first)["reason"]) == ("UNKNOWN", "items_exhausted")
    assert verdict(first)["n"] == taken["items"]["mine"]
    assert f"ends after {taken['items']['mine']} items; measure more there" in verdict(first)["caveats"][1]
    assert first["decision"]["status"] == "unknown"
    with Store(here.home / "run") as store:  # nothing was asked that cannot be compared
        assert len(store.rows("certify", f"{here.home / SMALL}@llamacpp")) == taken["items"]["mine"]
    assert evidence_exchange.take_in(here.home / "run", brought)["items"] == {"mine": 352}
    assert verdict(decide(here.asks()))["verdict"] == "PASS"
    assert set(here.opened) == {SMALL}


def test_items_in_the_middle_that_are_gone_end_the_evidence_there(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop")
    request = here.asks()
    frozen(request, monkeypatch)
    with Store(here.home / "run") as store:
        question = store.question()
    second = {i.id for i in read_all(request.tasks)[0].supply("certify", 40, question.seed)[32:]}

    def lose(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        rows[:] = [r for r in rows if r["stage"] != "certify" or r["item"] not in second]

    taken = evidence_exchange.take_in(here.home / "run", edited(brought, lose))
    assert (taken["items"], taken["left_out"]) == ({"mine": 32}, {"mine": 352 - 8 - 32})


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.999])
def test_a_file_that_was_cut_short_or_changed_is_refused_whole(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch, cut: float
) -> None:
    here = machine("laptop")
    frozen(here.asks(), monkeypatch)
    text = brought.read_text()
    brought.write_text(text[: int(cut * len(text))] if cut else text.replace('"score":0.0', '"score":1.0', 1))
    with pytest.raises(InputError, match=r"cut short or changed"):
        evidence_exchange.take_in(here.home / "run", brought)
    with Store(here.home / "run") as store:
        assert (store.imported(), store.rows("certify"), store.rows("screen")) == ({}, [], [])


def better(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    next(r for r in rows if r["score"] == 0.0)["score"] = 1.0


def other_item(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[-1]["item_hash"] = "0" * 32


def other_bytes(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["artifact"]["hash"] = "0" * 32


def other_context(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["asked"]["context"] = 4096


def other_requests(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["asked"]["requests at a time"] = 99


def other_template(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["asked"]["template_hash"] = "0" * 32


def other_tasks(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["tasks"]["mine"]["source_hash"] = "0" * 32


def another_schema(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    header["surprise"] = 1


def twice(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows.append(rows[-1])


def no_output(header: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    rows[3]["output"] = None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (better, "item .* of mine says 1, which its output does not get"),
        (other_item, "item .* of mine is another one here"),
        (other_bytes, "with content 000000000000, which no candidate of this run is"),
        (other_context, "measured with another context .4096, here 64."),
        (other_requests, "measured with another requests at a time"),
        (other_template, "measured with another template hash"),
        (other_tasks, "its items of mine are not those of this run"),
        (another_schema, "its header is wrong in surprise"),
        (twice, "holds one row twice"),
        (no_output, "line 5: output is wrong"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_refused_in_one_line(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch, change: Any, complaint: str
) -> None:
    here = machine("laptop", errors={BASE: 0.02})
    frozen(here.asks(), monkeypatch)
    with pytest.raises(InputError, match=complaint) as refused:
        evidence_exchange.take_in(here.home / "run", edited(brought, change))
    assert "\n" not in str(refused.value)
    with Store(here.home / "run") as store:
        assert (store.imported(), store.rows("certify")) == ({}, [])


def test_evidence_expires_with_the_build_unless_that_is_accepted_and_recorded(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02}, build="llama.cpp 8")
    frozen(here.asks(), monkeypatch)
    with pytest.raises(InputError, match=r"by llama\.cpp 7, this run uses llama\.cpp 8, so it has expired"):
        evidence_exchange.take_in(here.home / "run", brought)
    assert evidence_exchange.take_in(here.home / "run", brought, accept_build=True)["degradation"]
    record = decide(here.asks())
    assert "its rows come from llama.cpp 7 and this run uses llama.cpp 8" in verdict(record)["caveats"][0]
    (base,) = (c for c in record["candidates"] if c["baseline"])
    assert [d["where"] for d in base["artifact"]["degradations"]] == ["evidence"]
    # The runtime is replaced once more: what was frozen does not hold any longer.
    machine("laptop", build="llama.cpp 9")
    with pytest.raises(InputError, match=r"decide again into a new --run|holds another question"):
        workbench.extend(here.home / "run", 32, None, Silent())


def test_rows_come_from_one_place_and_are_not_passed_on(
    machine: Makes, brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    decide(here.asks(run=here.home / "own"))
    with pytest.raises(InputError, match=r"has measured .* itself"):
        evidence_exchange.take_in(here.home / "own", brought)
    frozen(here.asks(), monkeypatch)
    evidence_exchange.take_in(here.home / "run", brought)
    assert evidence_exchange.take_in(here.home / "run", brought)["rows"] == 0  # again does no harm
    other = edited(brought, lambda header, rows: header.update(runtime_build="llama.cpp 6"))
    with pytest.raises(InputError, match=r"holds rows of .* by llama\.cpp 7 already"):
        evidence_exchange.take_in(here.home / "run", other, accept_build=True)
    with pytest.raises(InputError, match=r"was imported into .*; export it where it was measured"):
        evidence_exchange.export(here.home / "run", tmp_path / "again.evidence")
    decide(here.asks())
    done = evidence_exchange.export(here.home / "run", tmp_path / "small.evidence", f"{here.home / SMALL}@llamacpp")
    assert done["items"]["mine"] > 0


def test_an_imported_candidate_is_compared_with_the_baseline_that_is_here(
    machine: Makes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = machine("large", errors={BASE: 0.02, SMALL: 0.4})
    decide(large.asks(fixed=True, items=352))
    name = f"{large.home / SMALL}@llamacpp"
    evidence_exchange.export(large.home / "run", tmp_path / "rows.evidence", name)
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.4})
    frozen(here.asks(), monkeypatch)
    evidence_exchange.take_in(here.home / "run", tmp_path / "rows.evidence")
    record = decide(here.asks())
    assert verdict(record)["verdict"] == "FAIL"
    assert set(here.opened) == {BASE}


@pytest.mark.parametrize("wrong", [None, 7, "x", [], {}, True])
def test_a_header_of_other_types_is_refused_by_name(brought: Path, wrong: Any) -> None:
    names = [name for name in read(brought).header if name not in ("quantwise_evidence", "asked", "tasks")]
    for name in names:
        if isinstance(wrong, type(read(brought).header[name])) and wrong != {}:
            continue
        with pytest.raises(InputError, match=r"its header is wrong in "):
            read(edited(brought, lambda header, rows, name=name: header.update({name: wrong})))  # type: ignore[misc]
    for part in ("hash", "bytes", "bits_per_weight"):
        if wrong is None or (part == "hash" and wrong == "x") or (part != "hash" and wrong == 7):
            continue
        with pytest.raises(InputError, match=rf"its header is wrong in {part}"):
            read(edited(brought, lambda header, rows, part=part: header["artifact"].update({part: wrong})))  # type: ignore[misc]


@pytest.mark.parametrize("words", [1, 3, 5])
def test_killed_after_an_import_the_same_command_goes_on(
    machine: Makes, brought: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    evidence_exchange.take_in(here.home / "run", brought)
    with pytest.raises(Killed):
        workbench.decide(here.asks(), KilledAt(words))
    assert verdict(decide(here.asks()))["verdict"] == "PASS"
    assert set(here.opened) == {SMALL}


def test_killed_while_it_writes_there_is_a_whole_file_or_none_and_all_rows_or_none(
    machine: Makes, brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("quantwise.store.os.replace", killed)
        with pytest.raises(Killed):
            evidence_exchange.export(tmp_path / "large" / "run", tmp_path / "new.evidence")
    assert not (tmp_path / "new.evidence").exists()
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr("quantwise.store._put", killed)  # after the rows, before the mark that says whose they are
        with pytest.raises(Killed):
            evidence_exchange.take_in(here.home / "run", brought)
    with Store(here.home / "run") as store:
        assert (store.imported(), store.rows("certify")) == ({}, [])
    assert evidence_exchange.take_in(here.home / "run", brought)["items"] == {"mine": 352}


def test_the_verb_says_what_it_wrote_and_took(
    machine: Makes, brought: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.evidence"
    assert main(["evidence", "export", str(tmp_path / "large" / "run"), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == {"mine": 352}
    assert out.read_text() == brought.read_text()
    here = machine("laptop", errors={BASE: 0.02, SMALL: 0.02})
    frozen(here.asks(), monkeypatch)
    assert main(["evidence", "import", str(here.home / "run"), str(out)]) == 0
    assert "certification items: mine 352" in capsys.readouterr().out
    assert main(["evidence", "import", str(here.home / "run"), str(tmp_path / "none")]) == 2
    assert main(["evidence", "export", str(here.home / "run"), "--out", str(out), "--candidate", "x"]) == 2


def by_hand(folder: Path, words: Path, *, model: str = "m1", built: dict[str, str] | None = None) -> Question:
    """A run of recipes: what was ``built`` by name to its hash has answered the first block of the file."""
    (task,) = read_all([str(words)])
    asked = TaskQuestion(task.name, task.source, task.source_hash, task.kind, 0.05, 320, 0, task.available)
    bare = question("q8_0", tasks=[asked], model_hash=model, runtimes={"llamacpp": "b1"})
    found = replace(bare, candidates=(Candidate("16bit", "llamacpp", baseline=True), Candidate("q8_0", "llamacpp")))
    recipes = {"16bit@llamacpp": "f16", "q8_0@llamacpp": "rtn:q8_0"}
    items = task.supply("certify", 32, found.seed)
    with Store(folder, create=True) as store:
        store.freeze(found)
        for name, content in (built or {}).items():
            made = Artifact(str(folder), "gguf", content, 10, recipes[name])
            store.put("artifact", name, asdict(made))
            row = Measurement(name, "certify", task.name, "", 0, 0, 1.0, "stop", "")
            store.add_block(items, [replace(row, item=i.id, output=str(i.target)) for i in items])
    return found


def test_16_bit_converted_here_and_there_is_the_same_but_no_other_recipe_is(machine: Makes, tmp_path: Path) -> None:
    machine("words").asks()
    words = tmp_path / "words" / "mine.jsonl"
    built = {"16bit@llamacpp": "aa", "q8_0@llamacpp": "bb"}
    by_hand(tmp_path / "large", words, built=built)
    files = {name: tmp_path / f"{name[:3]}.evidence" for name in built}
    for name, file in files.items():
        evidence_exchange.export(tmp_path / "large", file, name)
    by_hand(tmp_path / "small", words)
    assert evidence_exchange.take_in(tmp_path / "small", files["16bit@llamacpp"])["items"] == {"mine": 32}
    with pytest.raises(InputError, match=r"holds rows of q8_0@llamacpp with content bb, which no candidate"):
        evidence_exchange.take_in(tmp_path / "small", files["q8_0@llamacpp"])
    by_hand(tmp_path / "other", words, model="m2")
    with pytest.raises(InputError, match=r"holds rows of 16bit@llamacpp with content aa, which no candidate"):
        evidence_exchange.take_in(tmp_path / "other", files["16bit@llamacpp"])


@pytest.mark.parametrize("name", ["", "folder", "nowhere/rows", "pipe"])
def test_what_is_no_place_for_a_file_is_refused_and_left_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="name a file in a folder that is there"):
        evidence_exchange.export(tmp_path / "run", Path(name))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "pipe").is_fifo()
