"""``quantwise load`` on the real llama.cpp server, from the command line to its own timings."""

from __future__ import annotations

import json

import pytest

from quantwise.cli.main import main
from quantwise.runtimes.process import ServerProcess


def test_a_real_server_under_an_open_and_a_closed_load(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up = ["--input-tokens", "96", "--output-tokens", "12"]
    shared = ["--warm-up", "4", "--json", "--detailed", "--quiet"]
    assert main(["load", server.url, "--rate", "40", "--requests", "64", *made_up, *shared]) == 0
    opened = json.loads(capsys.readouterr().out)
    assert (opened["completed"], opened["failed"]) == (64, 0)
    assert opened["total_output_tokens"] == 64 * 12
    assert opened["total_input_tokens"] / 64 == pytest.approx(96, rel=0.15)
    assert 0 < opened["median_ttft_ms"] < opened["median_e2el_ms"]
    assert opened["p95_ttft_ms"] is not None
    assert opened["p99_ttft_ms"] is None
    assert opened["server_prefill_tokens_per_s"] > opened["prefill_tokens_per_s"]  # waiting is not in the server's own
    assert opened["cached_input_tokens"] < 0.2 * opened["total_input_tokens"]
    assert {request["outcome"] for request in opened["requests"]} == {"ok"}

    asked = ["--users", "4", "--requests", "12", "--items", "json_output", "--output-tokens", "6"]
    assert main(["load", server.url, *asked, *shared]) == 0
    closed = json.loads(capsys.readouterr().out)
    assert (closed["completed"], closed["endpoint_type"]) == (12, "openai-chat")
    assert all(request["output_tokens"] <= 6 for request in closed["requests"])
    assert closed["server_metrics"]["preemptions"] is None  # it was started without --metrics
