"""A hub on loopback that speaks what the real client asks: listings, HEAD with etags, ranges, redirects, refusals."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``repos`` maps owner/name to files; ``gated`` ones only list them. ``sent`` counts body bytes by path."""

    repos: dict[str, dict[str, Path]]
    gated: frozenset[str] = frozenset()
    ranges: bool = True
    url: str = ""
    sent: dict[str, int] = field(default_factory=dict)
    failing: int = 0

    def weight_bytes(self) -> int:
        """Bytes of weight files that left the server."""
        return sum(n for path, n in self.sent.items() if path.endswith((".gguf", ".safetensors")))


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:  # noqa: C901
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.failing:
                return self.refuse(hub.failing, "")
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+)?", path):
                return self.listing(match[1], match[2])
            if match := re.fullmatch(r"(/cdn)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.file(match[2], match[4], body, redirected=bool(match[1]))
            return self.refuse(404, "")

        def listing(self, repo: str, kind: str | None) -> None:
            if repo not in hub.repos:
                return self.refuse(401, "RepoNotFound")
            files = {name: path.stat().st_size for name, path in hub.repos[repo].items()}
            if kind == "tree":
                found: Any = [{"type": "file", "path": n, "size": s, "oid": n} for n, s in files.items()]
            else:
                siblings = [{"rfilename": n, "size": s, "blobId": n} for n, s in files.items()]
                found = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}
            return self.send(json.dumps(found).encode(), {"Content-Type": "application/json"})

        def file(self, repo: str, name: str, body: bool, redirected: bool) -> None:
            if repo in hub.gated:
                return self.refuse(403, "GatedRepo")
            path = hub.repos.get(repo, {}).get(name)
            if path is None:
                return self.refuse(404, "EntryNotFound")
            facts = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            size = path.stat().st_size
            if name.endswith(".gguf") and not redirected:  # as large files are: kept elsewhere
                linked = {"X-Linked-Etag": f'"{etag(path)}"', "X-Linked-Size": str(size), "Content-Length": "0"}
                return self.head(302, facts | linked | {"Location": f"{hub.url}/cdn{self.path}"})
            begin, end = 0, size
            if hub.ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
                begin, end = int(asked[1]), min(size, int(asked[2]) + 1 if asked[2] else size)
                facts["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
            self.head(206 if "Content-Range" in facts else 200, facts | {"Content-Length": str(end - begin)})
            if body:
                with path.open("rb") as stream:
                    stream.seek(begin)
                    try:
                        self.wfile.write(stream.read(end - begin))
                    except OSError:  # the client had enough
                        self.close_connection = True
                hub.sent[f"{repo}/{name}"] = hub.sent.get(f"{repo}/{name}", 0) + end - begin
            return None

        def send(self, body: bytes, headers: dict[str, str]) -> None:
            self.head(200, headers | {"Content-Length": str(len(body))})
            self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            self.head(status, {"X-Error-Code": code, "X-Error-Message": code, "Content-Length": "0"})

        def head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve it on a free port of loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
