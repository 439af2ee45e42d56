"""Sampled answers with repeats from real llama-servers, and SIGKILL in the middle of a block: rows as undisturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from quantwise import workbench
from quantwise.core.progress import Silent
from quantwise.question.request import Request
from quantwise.runtimes.process import ServerProcess, free_port

pytestmark = pytest.mark.long
NATIVE = os.environ.get("QUANTWISE_LLAMA_SERVER")
SERVER = [NATIVE] if NATIVE else [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host"]
REPEATS = 4
# One request at a time, for what is computed beside an answer changes its last bits, and a drawn token by them.
ASKED = 96


def rows(folder: Path) -> list[tuple[Any, ...]]:
    """Everything that was measured one request at a time, but for its times and what went before an answer."""
    columns = (
        "candidate, stage, task, item, repeat, block, score, finish, output, cluster, prompt_tokens, output_tokens"
    )
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'evidence.sqlite'}?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT {columns} FROM measurements WHERE stage != 'aa' ORDER BY 1, 2, 3, 4, 5").fetchall()


def certified(folder: Path) -> int:
    """Blocks of certification so far; 0 where nothing can be read yet."""
    if not (folder / "evidence.sqlite").exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'evidence.sqlite'}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT COUNT(*) FROM blocks WHERE stage='certify'").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def whole(found: list[tuple[Any, ...]], arms: int) -> None:
    """Every item of every arm, every repeat of it, once."""
    asked = [row[:5] for row in found if row[1] == "certify"]
    assert len(set(asked)) == len(asked)
    repeats = {row[:4]: 0 for row in asked}
    for row in asked:
        repeats[row[:4]] += 1
    assert set(repeats.values()) == {REPEATS}
    assert len(repeats) == arms * ASKED


@pytest.fixture
def question(model: Path, own_words: Path) -> list[str]:
    """Few answers are settled early at this margin, so that all are asked."""
    wanted = ["decide", model, "--candidate", "q8_0@llamacpp", "--tasks", own_words, "--items", ASKED, "--context", 64]
    drawn = ["--temperature", 0.8, "--repeats", REPEATS, "--margin", "words=1%", "--parallel", 1, "--json"]
    return [str(part) for part in (*wanted, *drawn)]


def start(question: list[str], place: Path, run: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "quantwise", *question, "--run", run]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=place, env=environment, **quiet)


def servers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The llama.cpp servers beneath it, without the leashes that hold them."""
    beneath = psutil.Process(process.pid).children(recursive=True)
    return [p for p in beneath if not p.children() and "--ctx-size" in p.cmdline()]


def test_killed_in_the_middle_of_sampled_blocks_both_ways(
    quantwise: Callable[..., Any], question: list[str], tmp_path: Path
) -> None:
    """Our own process twice, and one of its servers twice while it goes on."""
    calm = quantwise(tmp_path, *question, "--run", "calm")
    assert calm.code == 0, calm.err
    whole(rows(tmp_path / "calm"), arms=2)
    folder = tmp_path / "killed"
    for blocks in (1, 3):
        process = start(question, tmp_path, "killed")
        wait_for(lambda: certified(folder) >= blocks)  # noqa: B023
        held = servers_of(process)
        process.kill()
        process.wait()
        assert held
        wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in held))  # noqa: B023
        assert blocks <= certified(folder) < 6
    process = start(question, tmp_path, "killed")
    seen = set()
    wait_for(lambda: certified(folder) >= 3 and len(servers_of(process)) == 2)
    for server in servers_of(process):
        seen.add(server.pid)
        server.kill()
    assert process.wait(120) == 0
    assert len(seen) == 2
    ended = quantwise(tmp_path, *question, "--run", "killed")
    assert ended.code == 0, ended.err
    assert rows(folder) == rows(tmp_path / "calm")
    verdicts = [
        {k: v[k] for k in ("verdict", "n", "delta", "e_pass", "e_fail", "missing")} for v in ended.record["verdicts"]
    ]
    assert verdicts == [{k: v[k] for k in verdicts[0]} for v in calm.record["verdicts"]]


@contextlib.contextmanager
def served(file: Path, port: int) -> Iterator[ServerProcess]:
    flags = ["--model", str(file), "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "256", "--parallel", "2"]
    flags += ["--threads", "1", "--no-webui", "--fit", "off", "--cache-ram", "0"]
    with ServerProcess([*SERVER, *flags], f"http://127.0.0.1:{port}") as process:
        yield process


def test_a_server_by_url_that_is_killed_within_a_block_loses_and_passes_nothing(
    gguf_file: Path, own_words: Path, tmp_path: Path
) -> None:
    ports = free_port(), free_port()
    base, ours = (f"http://127.0.0.1:{port}" for port in ports)

    def decided(run: str) -> dict[str, Any]:
        request = Request(
            scenario="laptop", tasks=(str(own_words),), candidates=(ours,), baseline=base, items=ASKED, context=64,
            margins={"words": 0.01}, parallel=1, run=tmp_path / run,
            decoding={"temperature": 0.8, "repeats": REPEATS},
        )  # fmt: skip
        return workbench.decide(request, Silent(), retry_seconds=0.3)

    with served(gguf_file, ports[0]):
        with served(gguf_file, ports[1]):
            calm = decided("calm")
        with served(gguf_file, ports[1]) as server:
            killer = threading.Thread(target=kill_within_a_block, args=(server, tmp_path / "killed"))
            killer.start()
            record = decided("killed")
            killer.join()
        (out,) = record["decision"]["ruled_out"]
        assert "UNKNOWN, because its server is away" in out["why"]
        assert record["verdicts"][0]["verdict"] == "UNKNOWN"
        assert record["faults"][1]["lost"] == 0
        assert len(rows(tmp_path / "killed")) < len(rows(tmp_path / "calm"))
        with served(gguf_file, ports[1]):
            healed = decided("killed")
    assert rows(tmp_path / "killed") == rows(tmp_path / "calm")
    whole(rows(tmp_path / "killed"), arms=2)
    assert [v["e_fail"] for v in healed["verdicts"]] == [v["e_fail"] for v in calm["verdicts"]]


def kill_within_a_block(server: ServerProcess, folder: Path) -> None:
    """Once something is certified and the server writes an answer."""
    wait_for(lambda: certified(folder) >= 2)
    for pid in server.pids():
        os.kill(pid, signal.SIGKILL)
