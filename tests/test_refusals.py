"""A server that refuses what a task needs: its own words in one line before anything is certified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chat_server import ChatServer
from quantwise import workbench
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.progress import Silent
from quantwise.question.request import Request

NAME = {
    "type": "function",
    "function": {
        "name": "name_bird",
        "parameters": {"type": "object", "properties": {"bird": {"type": "string"}}, "required": ["bird"]},
    },
}
CALL = [{"name": "name_bird", "arguments": {"bird": "gull"}}]


def written(folder: Path, name: str, row: dict[str, Any]) -> Path:
    path = folder / f"{name}.jsonl"
    lines = [{"id": f"{i:05d}", **row} for i in range(160)]
    turns = [{"role": "user", "content": "Name bird {}, please, by the function."}]
    for i, line in enumerate(lines):
        if "prompt" in line:
            line["prompt"] = f"{line['prompt']} {i}:"
        else:
            line["messages"] = [turns[0] | {"content": turns[0]["content"].format(i)}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def calling(tmp_path: Path) -> Path:
    return written(tmp_path, "calling", {"scorer": "tool_call", "tools": [NAME], "target": CALL})


@pytest.fixture
def choosing(tmp_path: Path) -> Path:
    return written(
        tmp_path, "choosing", {"prompt": "One, two", "choices": [" three", " x"], "target": 0, "scorer": "choice"}
    )


def decided(task: Path, base: ChatServer, ours: ChatServer) -> dict[str, Any]:
    request = Request(
        scenario="laptop", tasks=(str(task),), candidates=(ours.url,), baseline=base.url, parallel=4, items=96,
        margins={task.stem: 0.1}, run=task.parent / f"run-{task.stem}",
    )  # fmt: skip
    return workbench.decide(request, Silent(), retry_seconds=0.5)


def able(record: dict[str, Any], server: ChatServer) -> dict[str, Any]:
    return next(row for row in record["servers"] if row["candidate"] == f"{server.url}@openai")


def test_a_candidate_that_refuses_tools_is_unknown_in_its_own_words_until_it_takes_them(calling: Path) -> None:
    with ChatServer(can=("tools",)) as base, ChatServer(can=("no tools",)) as ours:
        record = decided(calling, base, ours)
        (out,) = record["decision"]["ruled_out"]
        assert out["why"].startswith(f"{ours.url}@openai refuses every item of calling: status 400: tools need")
        assert "\n" not in out["why"]
        assert (record["verdicts"][0]["verdict"], record["verdicts"][0]["n"]) == ("UNKNOWN", 0)
        assert ours.answers < 64, "probes and one screen of items"
        assert "no tool calls (status 400: tools need --enable-auto-tool-choice)" in able(record, ours)["missing"]
        ours.can = ("tools",)
        record = decided(calling, base, ours)
    assert record["verdicts"][0]["verdict"] == "PASS"
    assert able(record, ours)["tools"]


def test_where_both_refuse_nothing_passes(calling: Path, choosing: Path) -> None:
    for task, says in ((calling, "status 400: tools need"), (choosing, "does not score a given text")):
        with (
            ChatServer(can=("no tools",)) as base,
            ChatServer(can=("no tools",)) as ours,
            pytest.raises(EnvironmentFailure, match=f"refuses every item of {task.stem}: .*{says}") as caught,
        ):
            decided(task, base, ours)
        assert "\n" not in str(caught.value)
        assert base.url in str(caught.value)


@pytest.mark.parametrize("name", ["top_k", "min_p"])
def test_a_server_that_refuses_what_is_not_openais_is_refused_in_its_words(tmp_path: Path, name: str) -> None:
    task = written(tmp_path, "saying", {"scorer": "exact", "prompt": "say gull", "target": "gull"})
    with ChatServer(can=("no further",)) as base, ChatServer() as ours:
        request = Request(
            scenario="laptop", tasks=(str(task),), candidates=(ours.url,), baseline=base.url, parallel=4, items=96,
            margins={"saying": 0.1}, decoding={"temperature": 0.7, name: 1}, run=tmp_path / "run",
        )  # fmt: skip
        with pytest.raises(EnvironmentFailure, match=f"Unrecognized request argument supplied: {name}") as caught:
            workbench.decide(request, Silent(), retry_seconds=60)
    assert "\n" not in str(caught.value)
    assert base.url in str(caught.value)


def test_a_temperature_that_a_server_refuses_is_said_in_its_words_and_not_asked_again(tmp_path: Path) -> None:
    task = written(tmp_path, "saying", {"scorer": "exact", "prompt": "say gull", "target": "gull"})
    with ChatServer(can=("no heat",)) as base, ChatServer() as ours:
        request = Request(
            scenario="laptop", tasks=(str(task),), candidates=(ours.url,), baseline=base.url, parallel=4, items=96,
            margins={"saying": 0.1}, decoding={"temperature": 3.0}, run=tmp_path / "run",
        )  # fmt: skip
        with pytest.raises(
            EnvironmentFailure, match=r"status 400: temperature must be in \[0, 2\], got 3\.0"
        ) as caught:
            workbench.decide(request, Silent(), retry_seconds=60)
        asked = base.answers
    assert "\n" not in str(caught.value)
    assert asked < 120, "probes and one screen of items, each once"
