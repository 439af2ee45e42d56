"""Servers by URL that fail: what is tried again, how long, and what is written of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from fault_server import BODIES, FaultServer
from quantwise.core.errors import EnvironmentFailure, RuntimeFailure
from quantwise.core.runtime import Ask, Reply, RuntimeOptions
from quantwise.runtimes import patience
from quantwise.runtimes.openai import OpenAI, OpenAISession, server_artifact
from quantwise.runtimes.patience import Patience

QUICK = RuntimeOptions(parallel=4, timeout_s=0.3, retry_s=5.0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits from 10 ms on."""
    monkeypatch.setattr(patience, "FIRST_S", 0.01)


@contextmanager
def session(server: FaultServer, options: RuntimeOptions = QUICK) -> Iterator[OpenAISession]:
    with OpenAI().open(server_artifact(server.url), options) as opened:
        yield opened


def once(fault: str, times: int = 1) -> FaultServer:
    return FaultServer(lambda prompt, time: fault if time < times else "")


def asks(count: int = 1) -> list[Ask]:
    return [Ask(text=f"say w{i}") for i in range(count)]


FAULTS = ["408", "429", "500", "502", "503", "504", "reset", "die", "hang", "dribble", *BODIES]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_tried_again_and_said(fault: str) -> None:
    with once(fault) as server, session(server) as opened:
        replies = opened.ask(asks(2))
    assert [(r.text, r.finish) for r in replies] == [("w0", "stop"), ("w1", "stop")]
    assert all("answered at try 2, after " in str(r.error) for r in replies)
    assert set(server.asked.values()) == {2}


@pytest.mark.parametrize("fault", ["500", "reset", "die", "hang", "dribble", "html"])
def test_what_may_be_the_items_doing_is_tried_four_times_and_lost(fault: str) -> None:
    plan = FaultServer(lambda prompt, time: fault if prompt == "say w1" else "")
    with plan as server, session(server) as opened:
        fine, lost, too = opened.ask(asks(3))
    assert (fine.text, too.text, fine.error) == ("w0", "w2", None)
    assert lost.finish == ("timeout" if fault in ("hang", "dribble") else "crash")
    assert lost.text == ""
    assert "4 tries" in str(lost.error)
    assert server.asked["say w1"] == 4


def test_a_busy_server_is_waited_for_as_long_as_the_budget_lasts_and_no_longer() -> None:
    with once("429", 6) as server, session(server) as opened:
        (reply,) = opened.ask(asks())
    assert (reply.text, server.asked["say w0"]) == ("w0", 7)
    assert "answered at try 7, after status 429: no (6 times)" in str(reply.error)
    with once("503", 10**6) as server, session(server, replace(QUICK, retry_s=0.2)) as opened:
        began = time.monotonic()
        (lost,) = opened.ask(asks())
        assert time.monotonic() - began < 0.4
    assert lost.finish == "crash"
    assert "status 503: no" in str(lost.error)


def test_no_budget_is_no_second_try() -> None:
    with once("500") as server, session(server, replace(QUICK, retry_s=0.0)) as opened:
        (lost,) = opened.ask(asks())
    assert (lost.finish, server.asked["say w0"]) == ("crash", 1)


@pytest.mark.parametrize("later", ["1", format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)])
def test_retry_after_is_kept_and_never_waited_for_in_vain(later: str) -> None:
    with once("429") as server, session(server, replace(QUICK, retry_s=1.5)) as opened:
        server.later = later
        began = time.monotonic()
        (reply,) = opened.ask(asks())
        waited = time.monotonic() - began
    if later == "1":
        assert reply.text == "w0"
        assert 1.0 <= waited < 1.5
    else:
        assert (reply.finish, server.asked["say w0"]) == ("crash", 1)
        assert waited < 0.5


def test_a_refusal_is_the_servers_last_word() -> None:
    with once("400") as server, session(server) as opened:
        (reply,) = opened.ask(asks())
    assert (reply.finish, server.asked["say w0"]) == ("refused", 1)


def test_a_server_that_comes_back_is_waited_for() -> None:
    with FaultServer() as server, session(server) as opened:
        assert opened.ask(asks())[0].text == "w0"
        server.stop()
        back = threading.Timer(0.3, server.start)
        back.start()
        replies = opened.ask(asks(6))
        back.join()
    assert [r.text for r in replies] == [f"w{i}" for i in range(6)]
    assert "Connection refused" in str(replies[0].error)


def test_a_server_that_comes_back_with_another_model_ends_the_run() -> None:
    with once("503") as server, session(server) as opened:
        server.model, server.says_model = "another", False
        with pytest.raises(EnvironmentFailure, match="came back with another model") as caught:
            opened.ask(asks())
    assert not isinstance(caught.value, RuntimeFailure)


def test_a_server_that_stays_away_is_gone_after_the_budget() -> None:
    with FaultServer() as server, session(server, replace(QUICK, retry_s=0.2)) as opened:
        server.stop()
        began = time.monotonic()
        with pytest.raises(RuntimeFailure, match="no longer answers"):
            opened.ask(asks(8))
        assert time.monotonic() - began < 1.0
        server.start()


def test_the_run_has_a_budget_too() -> None:
    with once("503", 10**6) as server, session(server, replace(QUICK, retry_s=0.1)) as opened:
        lost = [opened.ask(asks())[0].finish for _ in range(3)]
        with pytest.raises(EnvironmentFailure, match=r"servers failed for .* status 503: no; mend that") as caught:
            opened.ask(asks(1) * 40)
        assert not isinstance(caught.value, RuntimeFailure)
    assert lost == ["crash"] * 3


def test_another_models_name_ends_the_run_in_one_line() -> None:
    says = "was asked for model 'm' and 'another' answered"
    with (
        once("other model", 9) as server,
        session(server) as opened,
        pytest.raises(EnvironmentFailure, match=says) as caught,
    ):
        opened.ask(asks(3))
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, RuntimeFailure)  # which would be tried once more, and then be rows
    with once("dated", 9) as server, session(server) as opened:
        assert opened.ask(asks())[0].text == "w0"


def test_nobody_is_waited_for_when_the_run_ends() -> None:
    later = {"say w0": "other model"}
    with FaultServer(lambda prompt, time: later.get(prompt, "503"), later="20") as server:
        began = time.monotonic()
        with session(server, replace(QUICK, retry_s=60.0)) as opened, pytest.raises(EnvironmentFailure):
            opened.ask(asks(4))
        assert time.monotonic() - began < 5.0
        server.plan = lambda prompt, time: "503" if time < 3 else ""
        server.later = ""
        with session(server) as opened:
            assert opened.ask(asks(4)[1:])[0].text == "w1"


def test_waits_double_and_are_drawn_from_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.5)
    slept: list[float] = []
    monkeypatch.setattr(Patience, "_pause", lambda self, wait: slept.append(wait))

    def busy_nine_times(ask: Ask) -> Reply:
        if len(slept) % 9 == 0 and slept:
            return Reply("at last")
        request = httpx.Request("POST", "http://here")
        raise httpx.HTTPStatusError("status 503", request=request, response=httpx.Response(503))

    def waits(seed: int) -> list[float]:
        slept.clear()
        assert Patience(1000.0, seed).answer(Ask(text="x"), busy_nine_times).text == "at last"
        return list(slept)

    found = waits(0)
    assert found == waits(0) != waits(1)
    for n, wait in enumerate(found):
        most = min(0.5 * 2**n, 30.0)
        assert most / 2 <= wait <= most
