"""The record is a function of the run folder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from fake_arms import arms, certify, fake, question, task
from quantwise.core.artifact import Artifact, Degradation
from quantwise.core.runtime import Footprint
from quantwise.record.assemble import assemble
from quantwise.record.flips import flips
from quantwise.record.held import artifact_from
from quantwise.store import Store

ASKED = question("small", "broken", tasks=[task(items=96), task("more", 0.01, 64)])
RUNTIME = fake(shared_errors=0.1, errors={"small": 0.05, "broken": 0.5}, timeouts={"small": 0.04})


def assembled(folder: Path) -> dict[str, object]:
    certify(folder, ASKED, RUNTIME)
    with Store(folder) as store:
        for name, arm in arms(ASKED, RUNTIME).items():
            store.put("artifact", name, asdict(arm.artifact))
        found = assemble(store, ASKED)
    found.pop("created")
    return found


def test_it_is_plain_json_and_the_same_whenever_it_is_assembled(tmp_path: Path) -> None:
    found = assembled(tmp_path)
    assert json.loads(json.dumps(found, allow_nan=False))["question_hash"] == ASKED.hash
    with Store(tmp_path) as store:
        again = assemble(store, store.question())
    again.pop("created")
    assert json.dumps(again) == json.dumps(found)


def test_the_verdict_rows_hold_what_is_promised(tmp_path: Path) -> None:
    promised = {"candidate", "task", "verdict", "reason", "n", "delta", "interval", "flips", "e_pass", "e_fail"}
    found = json.loads(json.dumps(assembled(tmp_path)))
    assert [(v["candidate"], v["task"]) for v in found["verdicts"]] == [
        (f"{source}@fake", name) for source in ("small", "broken") for name in ("copy", "more")
    ]
    for row in found["verdicts"]:
        assert promised | {"n_more"} <= set(row)
        assert row["flips"] == row["regressions"] + row["improvements"]
        assert row["interval"][0] <= row["delta"] <= row["interval"][1]
    assert found["question"]["multiplicity"] == {"rule": "bonferroni", "m": 2, "pass_threshold": 40.0}


def test_accuracy_is_over_the_certification_items_that_were_asked(tmp_path: Path) -> None:
    found = json.loads(json.dumps(assembled(tmp_path)))
    by_name = {c["source"]: c["accuracy"]["copy"] for c in found["candidates"]}
    with Store(tmp_path) as store:
        scores = [r.score for r in store.rows("certify", "broken@fake", "copy")]
    assert by_name["broken"] == {"n": len(scores), "mean": sum(s or 0.0 for s in scores) / len(scores), "lost": 0}
    assert by_name["base"]["mean"] > by_name["broken"]["mean"]


def test_memory_of_what_was_dequantized_is_nobodys(tmp_path: Path) -> None:
    certify(tmp_path, ASKED, RUNTIME)
    with Store(tmp_path) as store:
        for name, how in (("small@fake", "dequantized"), ("broken@fake", "packed")):
            store.put("footprint", name, asdict(Footprint(70, 20, peak_process_bytes=100, executes=how)))
        found = assemble(store, ASKED)
    rows = {row["name"]: row for row in found["candidates"]}
    assert [rows[n]["executes"] for n in ("base@fake", "small@fake", "broken@fake")] == [None, "dequantized", "packed"]
    assert rows["small@fake"]["footprint"] == asdict(Footprint(executes="dequantized"))
    assert rows["broken@fake"]["footprint"]["peak_process_bytes"] == 100


def test_flips_show_both_outputs_and_what_failed(tmp_path: Path) -> None:
    found = assembled(tmp_path)
    with Store(tmp_path) as store:
        found_flips = flips(store, ASKED)
    small = [f for f in found_flips if f["candidate"] == "small@fake" and f["task"] == "copy"]
    row = next(v for v in found["verdicts"] if (v["candidate"], v["task"]) == ("small@fake", "copy"))  # type: ignore[attr-defined]
    assert len(small) == row["flips"]
    for flip in small:
        assert flip["prompt"].endswith(flip["target"])
        assert flip["baseline_output"] == flip["target"]
        assert flip["candidate_output"] in ("this is not the answer", "[timeout] too slow, as told")
    assert {f["candidate_output"] for f in small} >= {"[timeout] too slow, as told"}


def test_an_empty_folder_is_all_unknown_and_never_zero(tmp_path: Path) -> None:
    with Store(tmp_path, create=True) as store:
        store.freeze(ASKED)
        found = assemble(store, ASKED)
    assert {(v["verdict"], v["reason"], v["delta"]) for v in found["verdicts"]} == {("UNKNOWN", "not_measured", None)}
    assert found["candidates"][0]["accuracy"]["copy"] == {"n": 0, "mean": None, "lost": 0}
    assert found["costs"] == []
    assert found["decision"]["status"] == "unknown"


def test_an_artifact_survives_its_record() -> None:
    made = Artifact("a", "gguf", "h", 5, "q4_0", 4.5, 1.0, (Degradation("layer 3", "left in 16 bit"),))
    assert artifact_from(json.loads(json.dumps(asdict(made)))) == made


def test_a_row_says_whose_candidate_it_is_where_there_are_several_models(tmp_path: Path) -> None:
    theirs = replace(ASKED, candidates=tuple(replace(c, model="big") for c in ASKED.candidates))
    with Store(tmp_path, create=True) as store:
        assert {row["model"] for row in assemble(store, theirs)["candidates"]} == {"big"}
        assert {row.get("model") for row in assemble(store, ASKED)["candidates"]} == {None}


def test_an_infinite_percentile_is_null_and_said_to_be_infinite(tmp_path: Path) -> None:
    """So many of one time out that its p95 falls on them; nobody was asked often enough for a p99."""
    runtime = fake(timeouts={"small": 0.2})
    certify(tmp_path, ASKED, runtime)
    with Store(tmp_path) as store:
        for name, arm in arms(ASKED, runtime).items():
            store.put("artifact", name, asdict(arm.artifact))
        found = json.loads(json.dumps(assemble(store, ASKED), allow_nan=False))
    late, base = ({row["candidate"]: row for row in found["costs"]}[f"{source}@fake"] for source in ("small", "base"))
    for term in ("p95_seconds", "p95_first_token_seconds"):
        assert (late[term], late[f"{term}_infinite"]) == (None, True)
        assert (base[term], base[f"{term}_infinite"]) == (0.0, False)
    assert [(row["p99_seconds"], row["p99_seconds_infinite"]) for row in (late, base)] == [(None, False)] * 2
