"""An answer has to be whole within a time and a size; what a status and headers say is kept."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from fault_server import FaultServer
from quantwise.core.errors import InputError
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.runtimes import whole_answer
from quantwise.runtimes.openai import OpenAI, server_artifact
from quantwise.runtimes.server_address import model_ids
from quantwise.runtimes.server_metrics import metrics_text
from quantwise.runtimes.whole_answer import asked


def client(answer: httpx.Response) -> httpx.Client:
    return httpx.Client(base_url="http://here", transport=httpx.MockTransport(lambda request: answer))


def blanks() -> Iterator[bytes]:
    for _ in range(200):
        yield b"\n"
        time.sleep(0.01)


def test_an_item_whose_answer_dribbles_is_lost_in_time_and_those_beside_it_are_not(options: RuntimeOptions) -> None:
    options = replace(options, timeout_s=0.4, retry_s=0.0)
    with (
        FaultServer(lambda prompt, time: "dribble" if prompt == "say w1" else "") as server,
        OpenAI().open(server_artifact(server.url), options) as session,
    ):
        began = time.monotonic()
        first, lost = session.ask([Ask(text="say w0"), Ask(text="say w1")])
        waited = time.monotonic() - began
    assert (first.text, first.finish) == ("w0", "stop")
    assert (lost.text, lost.finish) == ("", "timeout")
    assert 0.4 <= float(lost.seconds or 0.0) <= waited < 2.0


def test_an_answer_without_an_end_is_given_up_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_answer, "_MOST_BYTES", 1000)

    def endless() -> Iterator[bytes]:
        for _ in range(30):
            yield b" " * 100
        raise AssertionError("read on and on")

    with client(httpx.Response(200, content=endless())) as http, pytest.raises(ValueError, match="1100 bytes so far"):
        asked(http, "GET", "/")


def test_lists_of_models_and_counters_that_dribble_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantwise.runtimes.server_metrics._PATIENCE_S", 0.1)
    with client(httpx.Response(200, content=blanks())) as http:
        assert metrics_text(http) == ""
    with client(httpx.Response(200, content=blanks())) as http:
        http.timeout = httpx.Timeout(0.1)
        with pytest.raises(InputError, match="no server answers at http://here"):
            model_ids(http, "http://here")


def test_headers_are_kept_and_what_was_packed_is_unpacked() -> None:
    headers = {"retry-after": "7", "content-encoding": "gzip", "content-type": "application/json"}
    with client(httpx.Response(503, content=gzip.compress(b'{"a": 1}'), headers=headers)) as http:
        told = asked(http, "POST", "/", {})
    assert (told.status_code, told.headers["retry-after"], told.json()) == (503, "7", {"a": 1})
