"""A proxy before a real server that loses the system turn of every conversation; it can hide what would tell of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from stub_server import serving

_OPEN = ("/v1/models", "/v1/chat/completions", "/v1/completions")


@contextmanager
def lossy_proxy(target: str, *, loses: bool = True, only_v1: bool = False, usage: bool = True) -> Iterator[str]:
    """Its address. ``only_v1`` hides the server's own endpoints, ``usage`` False how many tokens were read."""
    inner = httpx.Client(base_url=target, timeout=60, trust_env=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(inner.get(self.path) if self._open() else None)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if loses and self.path == "/v1/chat/completions":
                body["messages"] = [m for m in body["messages"] if m["role"] != "system"]
            self._pass(inner.post(self.path, json=body) if self._open() else None)

        def _open(self) -> bool:
            return not only_v1 or self.path in _OPEN

        def _pass(self, response: httpx.Response | None) -> None:
            status = 404 if response is None else response.status_code
            data = b'{"error": {"message": "not here"}}' if response is None else response.content
            plain = response is not None and "json" in response.headers.get("content-type", "")
            if not usage and self.path.endswith("completions") and plain and status == 200:
                told = json.loads(data)
                told.pop("usage", None)
                told.pop("timings", None)
                data = json.dumps(told).encode()
            self.wfile.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    try:
        with serving(server) as url:
            yield url
    finally:
        inner.close()
