"""Ctrl-C ends the process, also while a server does not answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from fault_server import FaultServer

# Whoever runs the tests in the background may have them ignore interrupts, which a process inherits.
PROGRAM = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from quantwise.cli.main import main; sys.exit(main())"
)


def test_an_interrupt_ends_the_process_while_answers_are_under_way(tmp_path: Path) -> None:
    """A server that hangs does so for 30 s, and Python's exit would wait for that."""
    task = tmp_path / "task.jsonl"
    rows = [{"id": f"{i:05d}", "prompt": f"say w{i}", "target": f"w{i}", "scorer": "exact"} for i in range(160)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with FaultServer(lambda prompt, time: "hang" if prompt.startswith("say w") else "") as server:
        named = ["--baseline", server.url, "--candidate", f"{server.url}/v1", "--task", str(task), "--parallel", "4"]
        command = [sys.executable, "-c", PROGRAM, "decide", *named, "--run", str(tmp_path / "run")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 60
            while sum(prompt.startswith("say w") for prompt in server.asked) < 2 and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said.endswith("quantwise: stopped; the same command goes on where it was\n")
    assert "Traceback" not in said
