"""The page's server: the numbers of the command, for this machine alone, and one line for what it cannot plan."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from quantwise import planning
from quantwise.core.errors import InputError
from quantwise.plan.model import Model, find_model
from quantwise.plan_server import FrontierPage, PlanPage, plan_server, reply
from quantwise.planning import PlanRequest, plan

ASKED = PlanRequest(models=("llama-3.1-8b",), site="rtx-4090", context=16384, concurrency=8)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with plan_server(ASKED) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def get(port: int, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def test_numbers_are_those_of_the_command(port: int) -> None:
    status, _, body = get(port, "/plan?context=8192&concurrency=2&cache=q8_0&gpu_layers=33&runtime=llamacpp")
    assert status == 200
    same = PlanRequest(models=ASKED.models, site=ASKED.site, context=8192, concurrency=2, cache="q8_0", gpu_layers=33)
    assert json.loads(body) == json.loads(json.dumps(plan(same)))


def test_a_page_of_elsewhere_reads_nothing(port: int) -> None:
    assert get(port, "/plan", host="planner.example:80")[0] == 403
    assert get(port, "/plan", host="127.0.0.1.example")[0] == 403
    assert "default-src 'none'" in get(port, "/")[1]["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/plan?context=-1", "context must be a whole number"),
        ("/plan?context=0", "context must be a whole number of at least 1"),
        ("/plan?context=%C2%B2", "context must be a whole number"),
        ("/plan?context=%D9%A3", "context must be a whole number"),
        ("/plan?context=999999999999", "context must be at most 2,147,483,647, not 999,999,999,999"),
        ("/plan?concurrency=99999999999999", "concurrency must be at most 100,000, not 99,999,999,999,999"),
        ("/plan?cache=nonsense", "unknown cache"),
        ("/plan?site=nowhere", "unknown site"),
        ("/plan?runtime=nothing", "unknown runtime"),
    ],
)
def test_what_cannot_be_planned_is_told_in_a_line(port: int, path: str, told: str) -> None:
    status, _, body = get(port, path)
    assert status == 200
    assert json.loads(body)["error"].startswith(told)


def test_several_gpus_and_a_host_are_left_where_there_is_no_gpu() -> None:
    page = PlanPage(replace(ASKED, host="x86-avx512", pipeline_parallel=2))
    assert page.plan({"site": "h100"})["devices"]["count"] == 2
    alone = page.plan({"site": "m4-max"})
    assert (alone["devices"], alone["host"]) == (None, None)


def test_other_paths_are_not_there(port: int) -> None:
    assert get(port, "/../../etc/passwd")[0] == 404
    assert get(port, "/plan?" + "x" * 5000)[0] == 414


def test_options_start_where_the_command_was() -> None:
    options: dict[str, Any] = PlanPage(ASKED).options()
    assert options["contexts"][options["contexts"].index(16384)] == options["context"]
    assert (options["concurrency"], options["site"], options["gpu_layers"]) == (8, "rtx-4090", 33)


def test_several_models_have_the_frontier() -> None:
    asked = PlanRequest(models=("qwen3-4b", "qwen3-8b"), memory_bytes=12_000_000_000)
    page = FrontierPage(asked)
    assert page.options()["memory"] == 12_000_000_000
    status, kind, body = reply(page, f"/frontier?memory={8 << 30}&concurrency=2")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == json.loads(json.dumps(plan(replace(asked, memory_bytes=8 << 30, concurrency=2))))
    assert b"frontier_page.js" in reply(page, "/")[2]
    assert page.plan({"memory": "all"})["error"].startswith("memory must be a whole number")
    assert page.plan({"runtime": "nothing"})["error"].startswith("unknown runtime")
    with plan_server(asked):
        pass


def test_a_frontier_page_needs_models_that_are_there() -> None:
    with pytest.raises(InputError, match="served by one model"):
        FrontierPage(PlanRequest(models=("qwen3-4b", "qwen3-8b"), memory_bytes=1 << 34, trace="drawn"))


def test_settings_of_the_command_are_among_the_controls() -> None:
    asked = replace(ASKED, cache="q5_0", schemes=("q4_k_m", "iq4_xs"), concurrency=6)
    options = PlanPage(asked).options()
    assert options["cache"] in options["caches"]["llamacpp"]
    assert "q5_0" not in options["caches"]["vllm"]
    assert options["scheme"] == "q4_k_m,iq4_xs"
    assert options["scheme"] in options["schemes"]["llamacpp"]
    assert options["concurrencies"][options["concurrencies"].index(6) - 1] == 4
    found = PlanPage(asked).plan({"scheme": options["scheme"], "cache": "q5_0", "concurrency": "6"})
    assert [row["scheme"] for row in found["candidates"]] == ["q4_k_m", "iq4_xs"]
    assert found == plan(asked)


def test_a_model_is_read_once_however_often_the_page_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(name: str) -> Model:
        read.append(name)
        return find_model(name)

    monkeypatch.setattr(planning, "find_model", counted)
    one, many = PlanPage(ASKED), FrontierPage(replace(ASKED, models=("qwen3-4b", "qwen3-8b")))
    for context in ("4096", "8192", "2048"):
        assert "error" not in one.plan({"context": context})
    assert "error" not in many.plan({"concurrency": "2"})
    assert read == ["llama-3.1-8b", "qwen3-4b", "qwen3-8b"]
