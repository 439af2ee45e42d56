"""Counters of vLLM and llama.cpp by one name; what is not told is unknown."""

from __future__ import annotations

import pytest

from known_server import known_server
from quantwise.load.server_metrics import COUNTERS, counts, difference, read_counts
from quantwise.runtimes.process import free_port
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
    assert read_counts(Server(url, url, "m")) == {}


def test_they_are_read_from_a_server() -> None:
    with known_server() as url:
        assert set(read_counts(find_server(url))) == set(COUNTERS)
