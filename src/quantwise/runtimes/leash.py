"""A short parent for a server of ours, so that the server never outlives us, not even after ``kill -9``.

``python -m quantwise.runtimes.leash COMMAND ...`` runs COMMAND and holds our end of a pipe as its standard input. When
the pipe closes, because we asked or because we died, the server is told to stop and killed after a grace of 3 s. Should
the leash itself be killed, Linux kills the server (PR_SET_PDEATHSIG, prctl(2)). That call follows the *thread* that
started the process, which is why it is made from this process with its one lasting thread and not from ours.

A server that ends, however it does, leaves nothing behind either: workers that it started fall to the leash
(PR_SET_CHILD_SUBREAPER) and are killed. vLLM's, whose engine had failed, otherwise went on with every core.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import psutil

GRACE_S = 3.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _die_with_parent() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what the leash ignores, the server would ignore too
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_when_let_go(server: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        pass
    server.terminate()
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _inherit_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _kill_what_is_left() -> None:
    """Everything that descends from the server, which has ended; again, for a process may start others meanwhile."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=GRACE_S)


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or standard input closes; returns its exit status (128 + signal if killed)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _inherit_orphans()
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    except OSError as error:
        print(f"error: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    threading.Thread(target=_stop_when_let_go, args=(server,), daemon=True).start()
    status = server.wait()
    _kill_what_is_left()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # the watching thread may sit in read(); there is nothing to flush
