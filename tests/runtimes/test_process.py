"""Servers of ours start, speak, stop, and never outlive us."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from quantwise.core.errors import RuntimeFailure
from quantwise.runtimes.process import ServerProcess, free_port

SERVE = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
print("ready", flush=True)
blob = bytearray(64 << 20)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def serving() -> ServerProcess:
    port = free_port()
    return ServerProcess([sys.executable, "-c", SERVE, str(port)], f"http://127.0.0.1:{port}", start_timeout_s=60)


def test_it_starts_is_measured_and_stops(logs: Path) -> None:
    with serving() as server:
        assert server.alive()
        (pid,) = server.pids()
        assert server.log_text().startswith("ready")
        peak = server.peak_bytes()
        assert peak is not None
        assert peak > 64 << 20
    assert not psutil.pid_exists(pid)
    assert server.log_text() == ""
    assert not list(logs.iterdir())
    assert server.peak_bytes() == peak


# Starts a worker that takes memory and gives it back, and then serves.
WORKS = """
import subprocess, sys
grows = "blob = bytearray(64 << 20); del blob; print(flush=True); import time; time.sleep(600)"
subprocess.Popen([sys.executable, "-c", grows], stdout=subprocess.PIPE).stdout.readline()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process tells what it holds now, not its peak")
def test_the_peak_of_a_tree_is_the_sum_of_its_processes_peaks() -> None:
    port = free_port()
    command = [sys.executable, "-c", WORKS + SERVE, str(port)]
    with ServerProcess(command, f"http://127.0.0.1:{port}", start_timeout_s=60) as server:
        assert len(server.pids()) == 2
        peak = server.peak_bytes()
        assert peak is not None
        # An upper bound: the worker has given its 64 MiB back before the server took its own.
        assert 128 << 20 < peak < 256 << 20
    assert server.peak_bytes() == peak


def test_a_long_log_is_emptied_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as server:
        server.trim_log()
        assert server.log_text().startswith("ready")
        monkeypatch.setattr("quantwise.runtimes.process._LOG_MOST", 3)
        server.trim_log()
        assert server.log_text() == ""
        httpx.get(server.url, trust_env=False)
        assert server.log_text().startswith("127.0.0.1")


def test_a_server_that_ends_while_starting_has_the_last_word_and_its_log_is_kept(logs: Path) -> None:
    program = "print('loading'); print('error: no such file: x.gguf'); print('bye'); raise SystemExit(3)"
    with pytest.raises(
        RuntimeFailure, match=r"ended while starting: error: no such file: x\.gguf; it ended with exit code 3"
    ) as caught:
        ServerProcess([sys.executable, "-c", program], "http://127.0.0.1:9", start_timeout_s=60).__enter__()
    (kept,) = logs.iterdir()
    assert str(caught.value).endswith(f"(its log is {kept})")
    assert kept.read_text().splitlines() == ["loading", "error: no such file: x.gguf", "bye"]
    with pytest.raises(RuntimeFailure, match="cannot start /nowhere/llama-server"):
        ServerProcess(["/nowhere/llama-server"], "http://127.0.0.1:9", start_timeout_s=60).__enter__()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGILL])
def test_a_server_that_was_killed_is_gone_as_soon_as_its_connections_break(how: signal.Signals, logs: Path) -> None:
    with serving() as server, socket.create_connection(("127.0.0.1", int(server.command[-1]))) as connection:
        (pid,) = server.pids()
        connection.sendall(b"GET ")
        os.kill(pid, how)
        connection.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        assert (server.gone() or "").startswith(f"it ended by {how.name} (")
    (kept,) = logs.iterdir()
    assert kept.read_text().startswith("ready")
    with serving() as server, pytest.MonkeyPatch.context() as sooner:
        sooner.setattr("quantwise.runtimes.process._END_TOLD_S", 0.1)
        assert server.gone() is None


def test_a_server_that_is_never_ready_is_given_up_and_ended() -> None:
    server = ServerProcess(
        [sys.executable, "-c", "import time; time.sleep(600)"], "http://127.0.0.1:9", start_timeout_s=0.5
    )
    with pytest.raises(RuntimeFailure, match="not ready after"):
        server.__enter__()
    assert not server.alive()


PARENT = f"""
import sys, time
from quantwise.runtimes.process import ServerProcess, free_port
port = free_port()
with ServerProcess([sys.executable, "-c", {SERVE!r}, str(port)], f"http://127.0.0.1:{{port}}") as server:
    print(server._leash.pid, *server.pids(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["parent", "leash"])
def test_nothing_is_left_when_a_parent_is_killed(victim: str, logs: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    leash, server = map(int, parent.stdout.readline().split())
    assert psutil.pid_exists(server)
    psutil.Process(leash if victim == "leash" else parent.pid).kill()
    end = time.monotonic() + 20
    while time.monotonic() < end and _runs(server):
        time.sleep(0.05)
    assert not _runs(server)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert not list(logs.iterdir())


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


WORKER = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setpgid(0, 0); time.sleep(600)"
# Starts a worker that ignores being told to stop and leaves the group, serves, and at a request ends without a word.
CRASHES = f"""
import http.server, os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}])
print(worker.pid, flush=True)
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(1)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are inherited by PR_SET_CHILD_SUBREAPER, of Linux")
@pytest.mark.parametrize("ending", ["crash", "stop"])
def test_workers_of_a_server_end_with_it_however_it_ends(ending: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with ServerProcess([sys.executable, "-c", CRASHES, str(port)], url, start_timeout_s=60) as server:
        worker = int(server.log_text().split()[0])
        assert psutil.pid_exists(worker)
        if ending == "crash":
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{url}/crash", trust_env=False)
            gone = time.monotonic() + 20
            while server.alive() and time.monotonic() < gone:
                time.sleep(0.02)
            assert not server.alive()
            assert not psutil.pid_exists(worker)
    assert not psutil.pid_exists(worker)
