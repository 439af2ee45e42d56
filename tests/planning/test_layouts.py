"""A trace in a plan: three layouts of one memory, from a file or drawn, and one line for what cannot be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.planning import PlanRequest, plan


def planned(**asked: Any) -> dict[str, Any]:
    settings = {"site": "rtx-3090", "schemes": ("16bit",), "context": 8192} | asked
    return plan(PlanRequest(models=("llama-3.1-8b",), **settings))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Forty requests of a long common prefix that arrive at once."""
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt,output,group,prefix\n" + "0,1100,60,0,1024\n" * 40)
    return path


def test_blocks_waste_less_and_shared_prefixes_least(trace: Path) -> None:
    found = planned(trace=str(trace))["layouts"]
    contiguous, paged, shared = found["rows"]
    assert [row["layout"] for row in found["rows"]] == ["contiguous", "paged", "paged + shared prefixes"]
    # Of 8,192 reserved tokens a request uses 1,100 to 1,160.
    assert 1 - 1160 / 8192 <= contiguous["waste"] <= 1 - 1100 / 8192
    assert paged["waste"] < 16 / 1100
    assert contiguous["wait_p95_s"] > paged["wait_p95_s"] > shared["wait_p95_s"]
    assert (found["requests"], found["mean_prompt"], found["mean_output"]) == (40, 1100, 60)


def test_the_cache_is_what_weights_and_scratch_leave(trace: Path) -> None:
    found = planned(trace=str(trace))
    scratch = found["compute_bytes"][1] + found["overhead_bytes"]
    room = found["limit_bytes"] - found["weights_bytes"] - scratch
    assert found["layouts"]["pool_tokens"] == room * 8192 // found["kv_cache_bytes"]


def test_a_drawn_trace_is_the_same_each_time_and_fills_the_room() -> None:
    first, again = (planned(trace="drawn")["layouts"] for _ in range(2))
    assert first == again
    assert first["rows"][0]["utilization"] > 0.3
    assert first["mean_prompt"] + first["mean_output"] < 8192


def test_without_a_trace_nothing_is_simulated() -> None:
    assert planned()["layouts"] is None


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"trace": "no-such.csv"}, "cannot be read"),
        ({"trace": "drawn", "site": None, "memory_bytes": 24 << 30}, "needs the speed"),
        ({"trace": "drawn", "context": 200_000}, "none is drawn"),
        ({"trace": "drawn", "gpu_layers": 20}, "needs the speed"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        planned(**asked)


def test_a_request_longer_than_the_context(trace: Path) -> None:
    with pytest.raises(InputError, match="more than 1024 tokens"):
        planned(trace=str(trace), context=1024)


def test_the_screen_shows_a_table(capsys: pytest.CaptureFixture[str], trace: Path) -> None:
    words = ["plan", "llama-3.1-8b", "--site", "rtx-3090", "--context", "8192", "--trace", str(trace)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "paged + shared prefixes" in out
    assert max(map(len, out.splitlines())) <= 110
    assert main([*words, "--train", "lora"]) == 2
    assert main(["plan", "qwen3-8b", *words[1:]]) == 2
