"""A server by URL that answers each path with what it is told to, with a key or a certificate where it is given one."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = (200, {"data": [{"id": "m1"}]})
MODELS = (200, {"data": [{"id": "m1"}, {"id": "m2"}]})


@contextmanager
def stub(
    routes: dict[str, Any], seen: list[dict[str, Any]] | None = None, *, key: str = "", refusal: int = 401,
    certificate: Path | None = None
) -> Iterator[str]:  # fmt: skip
    """A server that answers each path with (status, text or JSON value); everything else is 404.

    With a ``key`` it lets in nobody who does not send it.
    """

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if seen is not None and body:
                seen.append(json.loads(body))
            status, value = routes.get(self.path, (404, "not here"))
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                status, value = refusal, {"error": {"message": "who are you"}}
            value = value(json.loads(body)) if callable(value) else value
            status, value = value if isinstance(value, tuple) else (status, value)
            if isinstance(value, dict) and "error" in value:
                status = max(status, 400)
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # who hung up
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server) as url:
        yield url.replace("http:", "https:") if certificate is not None else url


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
