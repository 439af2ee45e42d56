"""A Transformers session behind loopback HTTP, in this process: ``python -m quantwise.runtimes.transformers_host``.

It speaks only to ``transformers_process``. The key comes in the environment (QUANTWISE_HOST_KEY); a request without it
is turned away, because a loopback port is open to every user of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from quantwise.core.artifact import Artifact
from quantwise.core.errors import QuantwiseError
from quantwise.core.item import Message
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.runtimes.transformers import Transformers, TransformersSession
from quantwise.runtimes.transformers_device import peak_bytes

KEY_VARIABLE = "QUANTWISE_HOST_KEY"


def ask_from_json(record: Mapping[str, Any]) -> Ask:
    """The ask that ``dataclasses.asdict`` turned into JSON."""
    messages = tuple(Message(**m) for m in record["messages"])
    lists = {name: tuple(record[name]) for name in ("stop", "choices", "tools")}
    return Ask(**{**record, "messages": messages, **lists})


def _reply(session: TransformersSession, path: str, body: Mapping[str, Any]) -> Any:
    if path == "/ask":
        return [asdict(reply) for reply in session.ask([ask_from_json(record) for record in body["asks"]])]
    if path == "/logprobs":
        return [list(p.items()) for p in session.next_token_logprobs(body["text"], body["top"])]
    if path == "/tokenize":
        return session.tokenize(body["text"])
    if path == "/footprint":
        return asdict(replace(session.footprint(), peak_process_bytes=peak_bytes()))
    raise KeyError(path)


def _handler(session: TransformersSession, key: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._send(200 if self.path == "/health" else 404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {key}":
                self._send(401, {"error": "wrong key"})
                return
            try:
                self._send(200, _reply(session, self.path, json.loads(body)))
            except (QuantwiseError, KeyError, ValueError) as error:
                self._send(400, {"error": f"{type(error).__name__}: {error}"})

        def log_message(self, format: str, *args: Any) -> None:
            """A line per request would drown the log's last word."""

    return Handler


def main() -> int:
    """Load the folder, serve one request after the other, until killed."""
    parser = argparse.ArgumentParser(prog="transformers_host", allow_abbrev=False)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--format", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", required=True, help="RuntimeOptions as JSON")
    flags = parser.parse_args()
    artifact = Artifact(flags.folder, flags.format, hash="", bytes=None)
    try:
        with Transformers().open(artifact, RuntimeOptions(**json.loads(flags.options))) as session:
            assert isinstance(session, TransformersSession)
            handler = _handler(session, os.environ[KEY_VARIABLE])
            HTTPServer(("127.0.0.1", flags.port), handler).serve_forever()
    except QuantwiseError as error:
        print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
