"""A server of ours in a process of its own: started, waited for, measured, stopped, and never left behind."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx
import psutil

from quantwise.core.errors import RuntimeFailure
from quantwise.runtimes.last_words import last_words

_LOG_MOST = 16 << 20  # bytes
_KEPT_MOST = 1 << 18  # bytes
_END_TOLD_S = 3.0


def free_port() -> int:
    """A loopback port that nobody listens on now. Another process may take it; who talks to it must know its server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A command that serves HTTP on loopback, as a context manager.

    ``url`` answers ``GET /health`` with status 200 once the server is ready. Standard output and error go to a log
    without a name, so that nothing stays on disk however we end; where the server fails, ``last_word`` keeps it.
    Entering raises RuntimeFailure, with that word, when the process ends or is not ready within ``start_timeout_s``
    seconds. ``troubles`` say where this server's log tells why it failed, the plainest words first.
    """

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 300.0,
        troubles: Sequence[re.Pattern[str]] = (),
    ) -> None:
        self.command = list(command)
        self.url = url
        self._log: IO[bytes] | None = None
        self._kept: Path | None = None
        self._keeping = threading.Lock()
        self._env = {**os.environ, **(env or {})}
        self._start_timeout_s = start_timeout_s
        self._troubles = troubles
        self._leash: subprocess.Popen[bytes] | None = None
        self._peak_bytes: int | None = None

    def __enter__(self) -> ServerProcess:
        leashed = [sys.executable, "-P", "-m", "quantwise.runtimes.leash", *self.command]
        self._log = _nameless_log()
        # A session of its own: an interrupt at the terminal is for us to handle, and we then stop the server.
        self._leash = subprocess.Popen(
            leashed,
            stdin=subprocess.PIPE,
            stdout=self._log,
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
        with httpx.Client(timeout=5.0, trust_env=False, verify=False) as client:
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

    def gone(self) -> str | None:
        """The last word of a server that has ended, None of one that runs: asked when a connection to it broke.

        Sockets of a server that is killed are closed some time before its end is told, so this waits for that.
        """
        if self._leash is not None:
            try:
                self._leash.wait(_END_TOLD_S)
            except subprocess.TimeoutExpired:
                return None
        return self.last_word()

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
        """Everything the server has printed since it was started or its log was emptied; nothing once it is stopped."""
        return self._log_bytes().decode("utf-8", errors="replace")

    def _log_bytes(self) -> bytes:
        if self._log is None:
            return b""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    def trim_log(self) -> None:
        """Empty the log once it is long: a server may print kilobytes for every request."""
        if self._log is not None and os.fstat(self._log.fileno()).st_size > _LOG_MOST:
            os.truncate(self._log.fileno(), 0)

    def last_word(self, *troubles: re.Pattern[str]) -> str:
        """Of a server that failed: why, by its log and by how it ended (`last_words`; a line that one of ``troubles``
        knows goes before others), and where the end of the log is kept from now on.
        """
        log = self.log_text()
        word = last_words(log, None if self.alive() else self._status(), (*troubles, *self._troubles))
        return f"{word} (its log is {self._keep_log()})" if log.strip() else word

    def _status(self) -> int | None:
        status = None if self._leash is None else self._leash.returncode
        return None if status is None or status < 0 else status  # a leash that was killed knows nothing of its server

    def _keep_log(self) -> Path:
        with self._keeping:  # every request that waited asks for the word
            if self._kept is None:
                handle, name = tempfile.mkstemp(prefix="quantwise-server-", suffix=".log")
                with open(handle, "wb") as kept:
                    kept.write(self._log_bytes()[-_KEPT_MOST:])
                self._kept = Path(name)
            return self._kept

    def stop(self) -> None:
        """End the server and forget its log. Calling it again does nothing."""
        if self._leash is None:
            return
        self.peak_bytes()
        if self._log is not None:  # before it ends: one that we stop has no last word to be kept
            self._log.close()
            self._log = None
        leash, self._leash = self._leash, None
        if leash.stdin is not None:
            leash.stdin.close()
        try:
            leash.wait(10.0)
        except subprocess.TimeoutExpired:
            leash.kill()
            leash.wait()


def _nameless_log() -> IO[bytes]:
    log = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115  (it lives as long as the server)
    # Who writes appends, so that emptying it leaves no hole.
    fcntl.fcntl(log.fileno(), fcntl.F_SETFL, fcntl.fcntl(log.fileno(), fcntl.F_GETFL) | os.O_APPEND)
    return log


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
