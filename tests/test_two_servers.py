"""Two servers by URL through the whole of ``decide``: identical ones do not FAIL, a broken template is caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_server import Break, ChatServer, Tells
from quantwise import workbench
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.progress import Silent
from quantwise.prompts import check as prompt_check
from quantwise.question.pose import Request
from quantwise.report.page import render
from quantwise.report.terminal import print_screen

ITEMS = 192


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_check, "_PAUSE_S", 0.001)


def written(folder: Path, every: int) -> Path:
    """Items whose answer stands in the system turn alone, in one of so many; in the others the user says it."""
    path = folder / "obeying.jsonl"
    lines = []
    for i in range(ITEMS + 96):
        asked = "Do as you were told." if i % every == 0 else f"Please say w{i} ."
        turns = [{"role": "system", "content": f"Always say w{i} ."}, {"role": "user", "content": asked}]
        row = {"id": f"{i:05d}", "messages": turns, "target": f"w{i}", "scorer": "exact"}
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return written(tmp_path, every=1)


def decided(
    task: Path, base: ChatServer, *others: ChatServer, run: str = "run", seed: int = 0, scenario: str = "laptop"
) -> dict[str, Any]:
    request = Request(
        scenario=scenario, tasks=(str(task),), candidates=tuple(o.url for o in others), baseline=base.url,
        margins={"obeying": 0.05}, parallel=4, run=task.parent / run, seed=seed, items=ITEMS,
    )  # fmt: skip
    return workbench.decide(request, Silent(), retry_seconds=1.0)


def why_out(record: dict[str, Any]) -> str:
    return "; ".join(row["why"] for row in record["decision"]["ruled_out"])


def screen_of(record: dict[str, Any], path: Path) -> str:
    with path.open("w+") as shown:
        print_screen(record, shown)
        shown.seek(0)
        return " ".join(shown.read().split())


def no_fail(task: Path, seeds: range) -> list[str]:
    found, regressions, improvements = [], 0, 0
    for seed in seeds:
        with ChatServer(right=0.8, seed=2 * seed) as base, ChatServer(right=0.8, seed=2 * seed + 1) as ours:
            record = decided(task, base, ours, run=f"run{seed}", seed=seed)
        (verdict,) = record["verdicts"]
        # Of 0.32 expected; a run that ends early may have few of one kind.
        assert verdict["flips"] > 0.2 * verdict["n"], "the servers are noisy, each in its own way"
        regressions, improvements = regressions + verdict["regressions"], improvements + verdict["improvements"]
        found.append(verdict["verdict"])
    assert min(regressions, improvements) > 20 * len(seeds)
    return found


def test_identical_noisy_servers_do_not_fail(task: Path) -> None:
    assert "FAIL" not in no_fail(task, range(2))


@pytest.mark.long
def test_identical_noisy_servers_do_not_fail_over_20_seeds(task: Path) -> None:
    """A FAIL has at most alpha where the candidate is worse by the whole margin, and far less where it is equal."""
    assert "FAIL" not in no_fail(task, range(20))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("double", "a beginning token that comes twice"),
        ("no system", "a lost system turn"),
        ("default", "a system prompt that is added by default"),
        ("stripped", "white space that one of them takes off or adds"),
        ("other", "another template"),
    ],
)
@pytest.mark.parametrize("tells", ["ids", "tokenize"])
def test_a_broken_template_is_caught_by_token_ids_before_anything_is_measured(
    task: Path, broken: Break, reason: str, tells: Tells
) -> None:
    with ChatServer(tells=tells) as base, ChatServer(broken, tells) as ours:
        record = decided(task, base, ours)
        asked = ours.answers
    assert reason in why_out(record) or (broken == "double" and "begins with" in why_out(record))
    assert f"{ours.url}@openai: it does not read what {base.url}@openai reads" in why_out(record) or broken == "double"
    assert asked < 40, "nothing but probes"
    assert record["verdicts"][0]["verdict"] == "UNKNOWN"
    assert [row["compared"] for row in record["prompts"]] == ["nothing", "token ids"]


@pytest.mark.parametrize("broken", ["double", "no system"])
def test_where_only_counts_are_told_counts_are_compared_and_it_is_said(
    task: Path, broken: Break, tmp_path: Path
) -> None:
    with ChatServer(tells="counts") as base, ChatServer(broken, "counts") as ours, ChatServer(tells="counts") as good:
        record = decided(task, base, ours, good)
    assert "(only counts could be compared)" in why_out(record)
    verdicts = {v["candidate"]: v["verdict"] for v in record["verdicts"]}
    assert verdicts == {f"{ours.url}@openai": "UNKNOWN", f"{good.url}@openai": "PASS"}
    assert "only the numbers of prompt tokens could be compared with" in screen_of(record, tmp_path / "screen")


@pytest.mark.parametrize("tells", ["nothing", "cached counts"])
def test_a_lost_system_turn_that_is_hidden_fails_by_its_verdict(tmp_path: Path, tells: Tells) -> None:
    with ChatServer(tells=tells) as base, ChatServer("no system", tells) as ours:
        record = decided(written(tmp_path, every=3), base, ours)
    assert record["verdicts"][0]["verdict"] == "FAIL"
    said = screen_of(record, tmp_path / "screen")
    assert "its prompts could not be compared with" in said
    assert "its prompts could not be compared with" in render(record)


def test_a_baseline_that_reads_a_doubled_beginning_ends_the_run_in_one_line(task: Path) -> None:
    with (
        ChatServer("double", "tokenize") as base,
        ChatServer() as ours,
        pytest.raises(EnvironmentFailure, match="begins with '<s>' twice") as caught,
    ):
        decided(task, base, ours)
    assert "\n" not in str(caught.value)
    assert base.url in str(caught.value)


def test_a_server_that_comes_back_with_another_template_is_noticed(task: Path) -> None:
    with ChatServer() as base, ChatServer() as ours:
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"
        for server in (base, ours):
            server.broken = "stripped"
        with pytest.raises(EnvironmentFailure, match="reads other prompts than when this run began") as caught:
            decided(task, base, ours)
        assert "white space that one of them takes off or adds; start it as it was then" in str(caught.value)
        for server in (base, ours):
            server.broken = ""
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("tells", "says"),
    [
        (
            "counts",
            r"told token ids \(prompt_token_ids\) when this run began and tells only the number of prompt tokens",
        ),
        ("nothing", "tells neither the token ids of its prompts nor their number now, so whether it still reads"),
    ],
)
def test_a_server_that_tells_less_than_it_did_is_not_said_to_read_other_prompts(
    task: Path, tells: Tells, says: str
) -> None:
    with ChatServer() as base, ChatServer() as ours:
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"
        base.tells = ours.tells = tells
        with pytest.raises(EnvironmentFailure, match=says) as caught:
            decided(task, base, ours)
        assert "other prompts" not in str(caught.value)
        assert "\n" not in str(caught.value)
        base.tells = ours.tells = "ids"
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"


def test_a_server_that_tells_more_than_it_did_goes_on_where_that_agrees(task: Path) -> None:
    with ChatServer(tells="counts") as base, ChatServer(tells="counts") as ours:
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"
        base.tells = ours.tells = "ids"
        assert [row["compared"] for row in decided(task, base, ours)["prompts"]] == ["nothing", "token ids"]
        base.broken = ours.broken = "default"
        with pytest.raises(EnvironmentFailure, match="reads other prompts than when this run began"):
            decided(task, base, ours)


def test_a_template_that_was_mended_is_measured_by_the_same_command(task: Path) -> None:
    with ChatServer() as base, ChatServer("double") as ours:
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "UNKNOWN"
        ours.broken = ""
        assert decided(task, base, ours)["verdicts"][0]["verdict"] == "PASS"


def test_what_servers_lack_is_in_the_record_the_screen_and_the_page(task: Path, tmp_path: Path) -> None:
    can = ("logprobs", "schema", "seeds", "tools", "stream", "metrics")
    with ChatServer(can=can) as base, ChatServer(can=("strict",)) as ours:
        record = decided(task, base, ours)
    able, lacking = (row for s in (base, ours) for row in record["servers"] if row["candidate"] == f"{s.url}@openai")
    assert able["candidate"] == f"{base.url}@openai"
    assert able["told"] == {"max_model_len": 4096, "quantization": "awq"}
    assert all(able[name] for name in ("log_probabilities", "json_schema", "seeds", "tools", "streaming", "metrics"))
    assert not any(lacking[name] for name in ("log_probabilities", "json_schema", "tools", "streaming", "metrics"))
    said = screen_of(record, tmp_path / "screen")
    assert f"{ours.url}@openai this server gives no log-probabilities" in said
    assert "divergence is unknown" in said
    assert "no JSON Schema" in render(record)


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """A scenario in which models are told not to think."""
    path = tmp_path / "quick.toml"
    path.write_text('base = "laptop"\n[template_arguments]\nenable_thinking = false\n')
    return str(path)


@pytest.mark.parametrize("tells", ["ids", "tokenize", "counts"])
def test_a_server_whose_template_is_told_and_does_not_heed_is_caught(task: Path, quick: str, tells: Tells) -> None:
    with ChatServer(tells=tells, can=("think",)) as base, ChatServer(tells=tells) as ours:
        record = decided(task, base, ours, scenario=quick)
    assert f"{ours.url}@openai: it does not read what {base.url}@openai reads" in why_out(record)


def test_servers_that_heed_are_told_with_every_item(task: Path, quick: str) -> None:
    with ChatServer(can=("think",)) as base, ChatServer(can=("think",)) as ours:
        record = decided(task, base, ours, scenario=quick)
        prompts = [prompt for prompt in (*base.words, *ours.words) if "Always say w" in prompt]
    assert record["verdicts"][0]["verdict"] == "PASS"
    assert len(prompts) > 2 * 64
    assert all(prompt.endswith("<think></think>") for prompt in prompts)
    assert [row["notes"] for row in record["prompts"]] == [[], []]


@pytest.mark.parametrize(
    ("tells", "says"),
    [
        (
            "ids",
            "it reads the same prompt with enable_thinking and without: that is its template's default, or it is ign",
        ),
        ("counts", "it reads the same prompt with enable_thinking and without"),
        ("nothing", "whether its template heeds enable_thinking cannot be seen"),
    ],
)
def test_that_nobody_heeds_is_said(task: Path, quick: str, tells: Tells, says: str, tmp_path: Path) -> None:
    with ChatServer(tells=tells) as base, ChatServer(tells=tells) as ours:
        record = decided(task, base, ours, scenario=quick)
    assert record["verdicts"][0]["verdict"] == "PASS"
    assert all(row["notes"][0].startswith(says) for row in record["prompts"])
    assert says in screen_of(record, tmp_path / "screen")
