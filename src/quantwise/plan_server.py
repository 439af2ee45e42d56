"""The interactive page of ``quantwise plan --open``: a server for this machine alone, which calls the same planner."""

from __future__ import annotations

import json
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from quantwise import planning
from quantwise.core.errors import InputError, QuantwiseError
from quantwise.plan.wanted import SCHEMES
from quantwise.plan.what_if import CACHES
from quantwise.planning import PlanRequest
from quantwise.scenarios.sites import sites

_FILES = {"/": "plan_page.html", "/plan_page.css": "plan_page.css", "/plan_page.js": "plan_page.js"}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'"
_LONGEST_QUERY = 2048


class PlanPage:
    """What the page asks: its files, the settings that there are, and plans."""

    def __init__(self, request: PlanRequest) -> None:
        if len(request.models) > 1:
            raise InputError("the page shows one model at a time; name one")
        # Simulating a trace takes seconds; sliders want an answer at once.
        self._request = replace(request, trace=None)
        self._model = planning.model_of(request)
        self._wanted = planning.wanted_of(request)

    def reply(self, target: str) -> tuple[int, str, bytes]:
        """Status, media type and body of a path with its query."""
        if len(target) > _LONGEST_QUERY:
            return 414, "text/plain", b"the query is too long"
        parts = urlsplit(target)
        if parts.path in _FILES:
            name = _FILES[parts.path]
            text = files("quantwise.report").joinpath(name).read_bytes()
            return 200, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8", text
        if parts.path == "/options":
            return 200, "application/json", json.dumps(self.options()).encode()
        if parts.path == "/plan":
            given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            return 200, "application/json", json.dumps(self.plan(given)).encode()
        return 404, "text/plain", b"not here"

    def options(self) -> dict[str, Any]:
        """The settings of the command that opened the page, and what each may be set to."""
        own, wanted, layers = self._model.decoder.context, self._wanted, len(self._model.decoder.layers) + 1
        contexts = sorted({wanted.context, own, *(256 << i for i in range(16) if 256 << i < own)})
        names = ("stored",) if self._model.is_file else None
        return {
            "context": wanted.context,
            "contexts": contexts,
            "concurrency": wanted.concurrency,
            "gpu_layers": layers if wanted.gpu_layers is None else wanted.gpu_layers,
            "layers": layers,
            "runtime": wanted.runtime,
            "caches": {runtime: list(caches) for runtime, caches in CACHES.items()},
            "cache": wanted.cache,
            "schemes": {runtime: list(names or schemes) for runtime, schemes in SCHEMES.items()},
            "scheme": wanted.schemes[0] if len(wanted.schemes) == 1 else "",
            "site": wanted.site.name,
            "sites": list(dict.fromkeys([wanted.site.name, *sites()])),
        }

    def plan(self, given: dict[str, str]) -> dict[str, Any]:
        """The record of a plan with some settings changed, or ``error``, one line."""
        try:
            return planning.plan(self._turned(given))
        except QuantwiseError as error:
            return {"error": str(error)}

    def _turned(self, given: dict[str, str]) -> PlanRequest:
        turned: dict[str, Any] = {}
        for name in ("context", "concurrency", "gpu_layers"):
            if name in given:
                if not given[name].isdigit() or len(given[name]) > 12:
                    raise InputError(f"{name} must be a whole number, not {given[name]!r:.40}")
                turned[name] = int(given[name])
        turned |= {name: given[name] for name in ("cache", "runtime") if name in given}
        if given.get("scheme"):
            turned["schemes"] = (given["scheme"],)
        elif "scheme" in given:
            turned["schemes"] = ()
        site = given.get("site")
        if site and site != self._wanted.site.name:
            if site not in sites():
                raise InputError(f"unknown site {site!r:.40}; sites: {', '.join(sites())}")
            turned |= {"site": site, "memory_bytes": None}
            if sites()[site].kind != "gpu":
                turned |= {"host": None, "tensor_parallel": 1, "pipeline_parallel": 1}
        return replace(self._request, **turned)


def plan_server(request: PlanRequest, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet running. Raises InputError where the request can not be planned."""
    page = PlanPage(request)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another origin that resolves its name to this machine must not read from here.
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            status, kind, body = (
                page.reply(self.path) if host in ("127.0.0.1", "localhost") else (403, "text/plain", b"not from there")
            )
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the terminal shows the plan."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
