"""Counters of vLLM and llama.cpp by one name; what is not told is unknown."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import httpx
import pytest

from known_server import known_server
from quantwise.runtimes.process import free_port
from quantwise.runtimes.server_metrics import (
    COUNTERS,
    Blocks,
    BlockWatch,
    blocks,
    cache_use,
    counts,
    difference,
    read_metrics,
)
from quantwise.runtimes.streaming import Server, find_server

VLLM = """# HELP vllm:prefix_cache_queries_total Prefix cache queries
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="a {b} c"} 100.0
vllm:prefix_cache_queries_total{engine="1",model_name="m"} 60.0
vllm:prefix_cache_hits_total{engine="0"} 40.0
vllm:prefix_cache_hits_created{engine="0"} 1.7e9
vllm:num_preemptions_total{engine="0"} 2
vllm:generation_tokens_total{engine="0"} 1e3
vllm:request_success_total{finished_reason="stop"} NaN
"""
PAGED = """vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.1
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",enable_prefix_caching="False",num_gpu_blocks="201"} 1.0
vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="1",enable_prefix_caching="False",num_gpu_blocks="201"} 1.0
"""  # noqa: E501
LLAMA = "llamacpp:prompt_tokens_total 12\nllamacpp:tokens_predicted_total 34\nllamacpp:requests_processing 1\n"


def test_names_of_both_become_ours() -> None:
    assert counts(VLLM) == {
        "prefix_cache_queries": 160.0,
        "prefix_cache_hits": 40.0,
        "preemptions": 2.0,
        "generation_tokens": 1000.0,
    }
    assert counts(LLAMA) == {"prompt_tokens": 12.0, "generation_tokens": 34.0}
    assert counts("<html>no\nvllm:num_preemptions_total many\n") == {}


def test_a_difference_is_what_came_between() -> None:
    after = dict(counts(VLLM)) | {"prefix_cache_queries": 260.0, "prefix_cache_hits": 65.0}
    got = difference(counts(VLLM), after)
    assert (got["prefix_cache_queries"], got["prefix_cache_hits"], got["preemptions"]) == (100.0, 25.0, 0.0)
    assert got["prefix_cache_hit_rate"] == pytest.approx(0.25)
    assert got["prompt_tokens"] is None


def test_a_server_that_tells_nothing_or_began_anew_is_unknown() -> None:
    assert set(difference({}, counts(VLLM)).values()) == {None}
    anew = difference(counts(VLLM), dict.fromkeys(COUNTERS, 0.0))
    assert anew["preemptions"] is None
    assert anew["prefix_cache_hit_rate"] is None
    url = f"http://127.0.0.1:{free_port()}"
    assert read_metrics(Server(url, url, "m")) == ({}, None)


def test_they_are_read_from_a_server() -> None:
    with known_server() as url:
        assert set(read_metrics(find_server(url))[0]) == set(COUNTERS)


def test_blocks_are_those_of_all_engines() -> None:
    assert blocks(PAGED) == Blocks(total=400, tokens=128, used=120, prefixes=False)
    for missing in ("vllm:kv_cache_usage_perc", "block_size", "num_gpu_blocks"):
        assert blocks(PAGED.replace(missing, "another")) is None
    assert blocks(PAGED.replace('"201"', '"None"')) is None
    assert blocks(PAGED.replace('"False"', '"None"')) == Blocks(400, 128, 120, None)


def test_the_most_blocks_of_several_looks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.server_metrics._FIRST_LOOK_S", 0.001)
    monkeypatch.setattr("quantwise.runtimes.server_metrics._LOOK_S", 0.001)
    looks, third = iter(["0.5", "0.9", "0.2"]), threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        if (share := next(looks, None)) is None:
            third.set()
        return httpx.Response(200, text=PAGED.replace("0.5", share or "0.2"))

    with httpx.Client(base_url="http://paged", transport=httpx.MockTransport(answer)) as http:
        watch = BlockWatch(lambda: nullcontext(http))
        with watch:
            assert third.wait(10)
    told = cache_use(difference(counts(VLLM), counts(VLLM)), watch, None)
    # 0.9 of one engine's blocks and 0.1 of the other's.
    assert (told.blocks, told.block_tokens, told.most_blocks_seen, told.prefix_caching) == (400, 128, 200, False)
    assert (told.preemptions, told.prefix_cache_hit_rate) == (0, None)


def test_a_server_without_blocks_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.server_metrics._FIRST_LOOK_S", 0.001)
    looked = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        assert not looked.is_set()
        looked.set()
        return httpx.Response(200, text=LLAMA)

    with httpx.Client(base_url="http://unpaged", transport=httpx.MockTransport(answer)) as http:
        watch = BlockWatch(lambda: nullcontext(http))
        with watch:
            assert looked.wait(10)
    told = cache_use(difference({}, {}), watch, None)
    assert (told.blocks, told.most_blocks_seen, told.preemptions) == (None, None, None)
