"""A server of ours in a process of its own: started, waited for, measured, stopped, and never left behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from quantwise.core.errors import RuntimeFailure

_LOG_MOST = 16 << 20  # bytes
_TROUBLE = re.compile(r"error|failed|fatal|exception|cannot", re.IGNORECASE)


def free_port() -> int:
    """A loopback port that nobody listens on now. Another process may take it; who talks to it must know its server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A command that serves HTTP on loopback, as a context manager.

    ``url`` answers ``GET /health`` with status 200 once the server is ready. Standard output and error go to ``log`` (a
    temporary file, removed at the end, when None). Entering raises RuntimeFailure, with the log's last word, when the
    process ends or is not ready within ``start_timeout_s`` seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 300.0,
    ) -> None:
        self.command = list(command)
        self.url = url
        self._keep_log = log is not None
        self.log = log if log is not None else _temporary_log()
        self._env = {**os.environ, **(env or {})}
        self._start_timeout_s = start_timeout_s
        self._leash: subprocess.Popen[bytes] | None = None
        self._peak_bytes: int | None = None

    def __enter__(self) -> ServerProcess:
        leashed = [sys.executable, "-P", "-m", "quantwise.runtimes.leash", *self.command]
        with self.log.open("ab") as log:  # appending, so that trimming it leaves no hole
            # A session of its own: an interrupt at the terminal is for us to handle, and we then stop the server.
            self._leash = subprocess.Popen(
                leashed,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + self._start_timeout_s
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while time.monotonic() < end:
                if not self.alive():
                    raise RuntimeFailure(f"{self._name} ended while starting: {self.last_word()}")
                try:
                    if client.get(f"{self.url}/health").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.03)
        raise RuntimeFailure(f"{self._name} was not ready after {self._start_timeout_s:.0f} s: {self.last_word()}")

    @property
    def _name(self) -> str:
        module = self.command[self.command.index("-m") + 1] if "-m" in self.command[:4] else self.command[0]
        return Path(module).name

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._leash is not None and self._leash.poll() is None

    def pids(self) -> list[int]:
        """The server's processes, without the leash."""
        if self._leash is None:
            return []
        try:
            return [p.pid for p in psutil.Process(self._leash.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def peak_bytes(self) -> int | None:
        """Peak resident bytes of the process tree so far: the sum of the processes' own peaks, or None if unknown.

        Pages of a memory-mapped file count as far as they were touched.
        """
        peaks = [peak for pid in self.pids() if (peak := _peak_resident_bytes(pid)) is not None]
        if peaks:
            self._peak_bytes = max(self._peak_bytes or 0, sum(peaks))
        return self._peak_bytes

    def log_text(self) -> str:
        """Everything the server has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def trim_log(self) -> None:
        """Empty the log once it is long: a server may print kilobytes for every request."""
        if not self._keep_log and self.log.exists() and self.log.stat().st_size > _LOG_MOST:
            os.truncate(self.log, 0)

    def last_word(self) -> str:
        """The last line of the log that speaks of trouble, else its last line."""
        lines = [" ".join(line.split()) for line in self.log_text().splitlines()[-60:] if line.strip()]
        return next(
            (line for line in reversed(lines) if _TROUBLE.search(line)), lines[-1] if lines else "it said nothing"
        )

    def stop(self) -> None:
        """End the server and forget its log. Calling it again does nothing."""
        if self._leash is None:
            return
        self.peak_bytes()
        leash, self._leash = self._leash, None
        if leash.stdin is not None:
            leash.stdin.close()
        try:
            leash.wait(10.0)
        except subprocess.TimeoutExpired:
            leash.kill()
            leash.wait()
        if not self._keep_log:
            self.log.unlink(missing_ok=True)


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="quantwise-server-", suffix=".log")
    os.close(handle)
    return Path(name)


def _peak_resident_bytes(pid: int) -> int | None:
    """VmHWM of proc(5), in bytes; where there is no /proc, what is resident now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error:
            return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
