"""A server by URL that fails as it is told: for each prompt and each time that it comes, a fault by name, or none.

Without a fault it answers with the last word of the prompt. It can be taken away and come back at the same port.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Plan = Callable[[str, int], str]
BODIES: dict[str, Any] = {
    "html": "<html>oops</html>",
    "half a json": '{"choices": [{"te',
    "list": [1, 2],
    "deep": "[" * 100_000,
    "no choices": {"choices": []},
    "odd choice": {"choices": ["text"]},
    "text is a number": {"choices": [{"text": 7}]},
    "error with 200": {"error": {"message": "out of blocks"}},
    "broken events": 'data: {"choices": [{"text": "w\n\ndata: [DONE]\n\n',
    "aborted": {"choices": [{"text": "w", "finish_reason": "abort"}]},
}


def never(prompt: str, time: int) -> str:
    return ""


class FaultServer:
    """Use as a context manager. ``asked`` counts how often each prompt came; ``times`` is the plan's second argument,
    from 0 on; ``later`` is what Retry-After says; answers name their model where ``says_model``."""

    def __init__(self, plan: Plan = never, model: str = "m", later: str = "") -> None:
        self.plan, self.model, self.later = plan, model, later
        self.says_model = True
        self.asked: Counter[str] = Counter()
        self._end = threading.Event()
        self._port = 0

    def __enter__(self) -> FaultServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._end.clear()
        outer = self

        class Handler(_Handler):
            server_of_faults = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for_the_end(self, seconds: float = 30) -> bool:
        return self._end.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    server_of_faults: FaultServer

    def do_GET(self) -> None:
        known = self.path == "/v1/models"
        self._send(200 if known else 404, {"data": [{"id": self.server_of_faults.model}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path not in ("/v1/completions", "/v1/chat/completions"):
            return self._send(404, "not here")
        outer = self.server_of_faults
        prompt = asked.get("prompt") or asked["messages"][-1]["content"]
        outer.asked[prompt] += 1
        fault = outer.plan(prompt, outer.asked[prompt] - 1)
        if fault.isdigit():
            return self._send(int(fault), {"error": {"message": "no"}}, {"Retry-After": outer.later})
        if fault in BODIES:
            return self._send(200, BODIES[fault])
        if fault == "hang":
            outer.wait_for_the_end()
            self.close_connection = True
            return None
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return None
        word = {"text": prompt.split()[-1], "message": {"content": prompt.split()[-1]}, "finish_reason": "stop"}
        model = {"other model": "another", "dated": f"{outer.model}-2026-01-31"}.get(fault, outer.model)
        told = {"choices": [word]} | ({"model": model} if outer.says_model else {})
        if fault == "dribble":
            return self._dribble(json.dumps(told))
        return self._send(200, told, cut=fault == "die")

    def _dribble(self, answer: str) -> None:
        """A blank every 20 ms for three seconds, as a gateway keeps a connection, and the right answer at last."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):  # who asked has gone
            for _ in range(150):
                self.wfile.write(b"\n")
                if self.server_of_faults.wait_for_the_end(0.02):
                    return
            self.wfile.write(answer.encode())

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        data = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, text in (headers or {}).items():
            if text:
                self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def finish(self) -> None:
        if not self.connection._closed:  # type: ignore[attr-defined]
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass
