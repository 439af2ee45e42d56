"""The plan's page in a real browser: its numbers are the command's, and a slider that is moved changes them."""

from __future__ import annotations

import html
import itertools
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quantwise.plan_server import FrontierPage, Page, PlanPage, reply
from quantwise.planning import PlanRequest, plan
from quantwise.report.plan_screen import print_plan

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists() and os.environ.get("CI") != "true":
    pytest.skip("no /usr/bin/chromium here (Debian: apt-get install chromium)", allow_module_level=True)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--enable-logging=stderr", "--virtual-time-budget=20000",
]  # fmt: skip
ASKED = PlanRequest(models=("llama-3.1-8b",), site="rtx-4090", context=16384, concurrency=8)
# Moves a control as a hand does, once the first answer is there.
MOVE = """
<script>
const wait = setInterval(() => {
  if (!document.body.dataset.answered) return;
  clearInterval(wait);
  const control = document.getElementById("%s");
  control.value = %s;
  control.dispatchEvent(new Event("input", {bubbles: true}));
}, 50);
</script>
"""


def dump(
    tmp_path: Path, extra: str = "", page: Page | None = None, answers: int | None = None
) -> tuple[str, list[str]]:
    """The page as it stands in the end, and its console. After ``answers`` the server is silent."""
    page, asked = page or PlanPage(ASKED), itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith(f"{page.asks}?") and answers is not None and next(asked) > answers:
                self.close_connection = True
                return
            status, kind, body = reply(page, self.path)
            if self.path == "/":
                body = body.replace(b"</html>", extra.encode() + b"</html>")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
             f"http://127.0.0.1:{server.server_address[1]}/"],
            capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        server.shutdown()
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def totals(dom: str) -> dict[str, int]:
    rows = re.findall(r'data-total="(\d+)" data-candidate="([^"]+)"', dom)
    return {candidate: int(total) for total, candidate in rows}


def expected(request: PlanRequest) -> dict[str, int]:
    return {row["candidate"]: row["total_bytes"] for row in plan(request)["candidates"]}


def test_numbers_equal_the_command(tmp_path: Path) -> None:
    dom, console = dump(tmp_path)
    assert console == []
    assert totals(dom) == expected(ASKED)
    assert "q4_k_m@llamacpp fits: 20.9 GiB of 23.6 GiB" in dom


def told(dom: str) -> list[str]:
    """The headline, and what stands in lists below the table."""
    return [html.unescape(text) for text in re.findall(r'<(?:p id="headline"[^>]*|li)>([^<]*)<', dom)]


@pytest.mark.parametrize(
    "asked",
    [
        ASKED,
        replace(ASKED, models=("llama-3.1-70b",), gpu_layers=30, schemes=("q4_k_m",), host="laptop"),
    ],
)
def test_the_page_says_what_the_command_says(
    tmp_path: Path, asked: PlanRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    dom, console = dump(tmp_path, page=PlanPage(asked))
    assert console == []
    record = plan(asked)
    headline, *lines = told(dom)
    print_plan(record, sys.stdout)
    screen = capsys.readouterr().out
    assert headline == screen.splitlines()[1]
    fewer = record["fewer_bits"]
    assert (fewer is not None and bool(fewer["gains"])) == (asked is ASKED)
    gained = [f"with {fewer['candidate']} {'; '.join(fewer['gains'])}"] if asked is ASKED else []
    assert [line for line in lines if line.startswith("with ")] == gained
    assert all(line in " ".join(screen.split()) for line in gained)


@pytest.mark.parametrize(
    ("control", "value", "changed"),
    [
        ("concurrency", "1", {"concurrency": 2}),
        ("gpu_layers", "10", {"gpu_layers": 10}),
        ("cache", '"q8_0"', {"cache": "q8_0"}),
    ],
)
def test_a_control_that_is_moved_changes_the_numbers(
    tmp_path: Path, control: str, value: str, changed: dict[str, object]
) -> None:
    dom, console = dump(tmp_path, MOVE % (control, value))
    assert console == []
    asked = {"models": ASKED.models, "site": ASKED.site, "context": 16384, "concurrency": 8, "gpu_layers": 33} | changed
    found = totals(dom)
    assert found == expected(PlanRequest(**asked))  # type: ignore[arg-type]
    assert found != expected(ASKED)


def test_the_frontier_is_drawn_and_follows_the_memory(tmp_path: Path) -> None:
    asked = PlanRequest(models=("qwen3-4b", "qwen3-8b"), memory_bytes=12_000_000_000)
    page = FrontierPage(asked)
    for memory, extra in (
        (12_000_000_000, ""),
        (8 << 30, MOVE % ("memory", page.options()["memories"].index(8 << 30))),
    ):
        dom, console = dump(tmp_path, extra, page)
        assert console == []
        rows = [row for row in plan(replace(asked, memory_bytes=memory))["frontier"] if row["on_frontier"]]
        keys = ("model", "scheme", "cache", "longest_context", "total_bytes")
        told = [" ".join(str(row[key]) for key in keys) for row in rows]
        assert re.findall(r'data-row="([^"]+)"', dom) == told
        assert dom.count("<title>qwen3-") == len(rows) > 8


@pytest.mark.parametrize(
    "changed",
    [
        {"cache": "q5_0", "concurrency": 6},
        {"cache": "iq4_nl", "schemes": ("iq4_xs",), "concurrency": 250},
        {"schemes": ("q5_k_m", "iq4_xs"), "concurrency": 3, "gpu_layers": 99},
    ],
)
def test_the_page_opens_with_the_settings_of_the_command(tmp_path: Path, changed: dict[str, Any]) -> None:
    asked = replace(ASKED, **changed)
    dom, console = dump(tmp_path, page=PlanPage(asked))
    assert console == []
    assert totals(dom) == expected(asked)
    assert f'<output for="concurrency">{asked.concurrency}</output>' in dom


def test_the_frontier_opens_with_its_requests_at_a_time(tmp_path: Path) -> None:
    asked = PlanRequest(models=("qwen3-4b", "qwen3-8b"), memory_bytes=12_000_000_000, concurrency=6)
    dom, _ = dump(tmp_path, page=FrontierPage(asked))
    assert '<output for="concurrency">6</output>' in dom
    rows = [row for row in plan(asked)["frontier"] if row["on_frontier"]]
    assert [int(row.split()[4]) for row in re.findall(r'data-row="([^"]+)"', dom)] == [r["total_bytes"] for r in rows]


@pytest.mark.parametrize(("page", "control"), [("plan", "gpu_layers"), ("frontier", "memory")])
def test_a_planner_that_is_gone_leaves_no_old_numbers(tmp_path: Path, page: str, control: str) -> None:
    family = PlanRequest(models=("qwen3-4b", "qwen3-8b"), memory_bytes=12_000_000_000)
    asked: Page = PlanPage(ASKED) if page == "plan" else FrontierPage(family)
    before, _ = dump(tmp_path / "before", page=asked, answers=1)
    assert "data-total" in before or "data-row" in before
    dom, _ = dump(tmp_path / "after", MOVE % (control, "1"), asked, answers=1)
    assert "the planner does not answer: start quantwise plan --open again" in dom.partition("<script")[0]
    assert "data-total" not in dom
    assert "data-row" not in dom
