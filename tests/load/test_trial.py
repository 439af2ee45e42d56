"""Servers in turns: the record, its ratios, and the order of the blocks."""

from __future__ import annotations

import json
from itertools import groupby

import pytest

from known_server import known_server
from quantwise.core.errors import InputError
from quantwise.core.progress import Silent
from quantwise.core.runtime import Ask
from quantwise.load.arrivals import Arrivals
from quantwise.load.latency import ServiceLevels
from quantwise.load.trial import Trial, run_trial
from quantwise.load.workload import Items, MadeUp, read_items

OF_VLLM = {
    *("date", "endpoint_type", "model_id", "num_prompts", "request_rate", "burstiness", "max_concurrency", "duration"),
    *("completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput"),
    *("output_throughput", "total_token_throughput", "max_concurrent_requests"),
    *(f"{kind}_{name}_ms" for kind in ("mean", "median", "std", "p99") for name in ("ttft", "tpot", "itl", "e2el")),
}
"""Names in the results of `vllm bench serve`."""


class Remembered(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done: list[int] = []
        self.notes: list[str] = []
        self.at_most: list[float | None] = []

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        self.total = total
        self.done, self.notes, self.at_most = [], [], []

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        self.done.append(n)
        self.notes.append(note)
        self.at_most.append(at_most_s)


def test_servers_take_turns_and_the_slower_one_is_told_by_how_much() -> None:
    with known_server(ttft=0.1, tpot=0.01, tokens=4) as fast, known_server(ttft=0.2, tpot=0.01, tokens=4) as slow:
        seen = Remembered()
        trial = Trial((fast, slow), 8, MadeUp(30, 4), requests=48, blocks=6, warm_up=2)
        record = run_trial(trial, seen)
    order = [note for note, _ in groupby(seen.notes)]
    turns = [url for pair in ((fast, slow), (slow, fast)) * 3 for url in pair]
    assert order == [f"0 failed, block {1 + i // 2} of 6, {url}" for i, url in enumerate(turns)]
    (row,) = record["ratios"]
    assert (row["server"], row["over"]) == (slow, fast)
    got = row["mean_ttft_ms"]
    assert 1 < got["low"] <= got["ratio"] <= got["high"]  # how near to 2 it is, see test_load_in_real_time.py
    assert row["request_goodput"] is None
    for server in record["servers"]:
        assert (server["completed"], server["failed"], len(server["blocks"])) == (48, 0, 6)
        assert server["spread"]["cv_mean_ttft_ms"] > 0
        assert server["warm_up"]["completed"] == 2


def test_a_block_tells_where_it_is_while_it_lasts() -> None:
    with known_server() as url:
        prompts = ['{"ttft": 0.2, "tokens": 2}', '{"fault": "500"}'] * 8
        items = Items(tuple(Ask(text=prompt) for prompt in prompts))
        seen = Remembered()
        run_trial(Trial((url,), 1, items, requests=16, seconds=30, warm_up=0), seen)
    assert seen.total == 16
    assert sum(seen.done) == 16
    assert len([n for n in seen.done if 0 < n < 16]) >= 2  # 1.6 s, told every half second
    assert seen.notes[-1] == "8 failed"
    assert seen.notes[0] == "0 failed"
    left = [s for s in seen.at_most if s is not None]
    assert left == sorted(left, reverse=True)
    assert 30 >= left[0] > 29 > left[-1] > 20


def test_a_closed_loop_that_ends_by_the_clock_says_so() -> None:
    with known_server() as url:
        seen = Remembered()
        items = Items((Ask(text='{"ttft": 0.1, "tokens": 2}'),))
        run_trial(Trial((url,), 1, items, requests=300, seconds=0.5, warm_up=0), seen)
    assert seen.total == 300
    assert seen.notes[-2:] == ["0 failed", "the time is up"]


def test_how_many_an_open_loop_sends_is_known_before() -> None:
    with known_server() as url:
        seen = Remembered()
        (server,) = run_trial(Trial((url,), Arrivals(40), MadeUp(9, 1), 900, 0.5, warm_up=0), seen)["servers"]
    assert seen.total == sum(seen.done) == server["num_prompts"] < 900
    assert set(seen.at_most) == {None}


def test_a_hanging_server_is_told_of_too() -> None:
    with known_server() as url:
        items = Items((Ask(text='{"tokens": 2}'), Ask(text='{"fault": "hang", "tokens": 4}')))
        seen = Remembered()
        run_trial(Trial((url,), 2, items, requests=2, timeout_s=1.2, warm_up=0), seen)
    assert seen.done[0] == 0
    assert 0 in seen.done[1:-1]  # half a second in which nothing came is told of, too
    assert seen.notes[-1] == "1 failed"


def test_the_record_has_vllms_names_and_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.server_metrics._FIRST_LOOK_S", 0.001)
    with known_server(ttft=0.02, tokens=3) as url:
        levels = ServiceLevels(ttft_ms=1000)
        record = run_trial(Trial((url,), Arrivals(100), MadeUp(30, 3), requests=20, levels=levels), Silent())
    (server,) = record["servers"]
    assert set(server) >= OF_VLLM
    assert record["ratios"] == []
    assert json.loads(json.dumps(server, allow_nan=False)) == server
    assert (server["model_id"], server["endpoint_type"], server["loop"]) == ("known", "openai", "open")
    assert (server["num_prompts"], server["total_output_tokens"]) == (20, 60)
    assert server["server_metrics"]["generation_tokens"] == 60
    assert server["server_metrics"]["prefix_cache_hit_rate"] == pytest.approx(0.25, abs=0.02)
    assert server["server_metrics"]["preemptions"] == 0
    assert server["server_metrics"]["prefix_caching"]
    assert (server["server_metrics"]["most_blocks_seen"], server["server_metrics"]["blocks"]) == (25, 100)
    assert server["good_share"] == 1
    assert len(server["requests"]) == 20
    assert all(request["ttft_s"] > 0.02 and len(request["itl_s"]) == 2 for request in server["requests"])


def test_bounds_are_shared_among_the_blocks(tmp_path: object) -> None:
    with known_server() as url:
        trial = Trial((url,), Arrivals(200, float("inf")), MadeUp(9, 1), requests=11, seconds=9, blocks=3, warm_up=0)
        (server,) = run_trial(trial, Silent())["servers"]
        assert (server["num_prompts"], server["burstiness"], server["warm_up"]["requests"]) == (11, "inf", 0)
        trial = Trial((url,), Arrivals(20, float("inf")), MadeUp(9, 1), requests=900, seconds=0.6, blocks=2, warm_up=0)
        (server,) = run_trial(trial, Silent())["servers"]
    assert server["num_prompts"] == 10


def test_a_server_that_dies_under_load_is_a_record_and_not_an_error() -> None:
    prompts = ['{"tokens": 2}'] * 5 + ['{"fault": "exit"}'] + ['{"tokens": 2}'] * 5
    with known_server() as url:
        items = Items(tuple(Ask(text=prompt) for prompt in prompts))
        (server,) = run_trial(Trial((url,), 1, items, requests=11, blocks=11, warm_up=0), Silent())["servers"]
    assert (server["completed"], server["failures"]) == (5, {"broken": 6})
    assert server["server_metrics"]["generation_tokens"] is None
    assert "6 of 11 requests failed (6 broken)" in server["notes"][0]


def test_prompts_that_come_again_are_said() -> None:
    with known_server() as url:
        items = Items(read_items("json_output", 4, 0).asks)
        (server,) = run_trial(Trial((url,), 2, items, requests=6), Silent())["servers"]
    assert server["endpoint_type"] == "openai-chat"
    assert any("more than once" in note for note in server["notes"])


def test_impossible_trials_are_refused() -> None:
    with pytest.raises(InputError, match="blocks"):
        Trial(("http://a",), 1, MadeUp(9, 1), requests=3, blocks=4)
    with pytest.raises(InputError, match="named twice"):
        Trial(("http://a", "http://a"), 1, MadeUp(9, 1))
