"""The interactive page of ``quantwise plan --open``: a server for this machine alone, which calls the same planner."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from quantwise import planning
from quantwise.core.errors import InputError, QuantwiseError
from quantwise.plan.wanted import SCHEMES, Wanted, usual_schemes
from quantwise.plan.what_if import CACHES
from quantwise.planning import PlanRequest
from quantwise.scenarios.sites import sites

_FILES = {name: name[1:] for name in ("/plan_page.css", "/planner.js", "/plan_page.js", "/frontier_page.js")}
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'"
_LONGEST_QUERY = 2048


_GIB = 1 << 30
_MEMORIES = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192)


class Page(Protocol):
    """A page and what it asks."""

    first: str
    """Its file."""
    asks: str
    """The path below which it asks with other settings."""

    def options(self) -> dict[str, Any]:
        """The settings of the command that opened the page, and what each may be set to."""
        ...

    def plan(self, given: dict[str, str]) -> dict[str, Any]:
        """The record with some settings changed, or ``error``, one line."""
        ...


def reply(page: Page, target: str) -> tuple[int, str, bytes]:
    """Status, media type and body of a path with its query."""
    if len(target) > _LONGEST_QUERY:
        return 414, "text/plain", b"the query is too long"
    parts = urlsplit(target)
    name = page.first if parts.path == "/" else _FILES.get(parts.path)
    if name is not None:
        text = files("quantwise.report").joinpath(name).read_bytes()
        return 200, f"{_KINDS[name.rpartition('.')[2]]}; charset=utf-8", text
    if parts.path == "/options":
        return 200, "application/json", json.dumps(page.options()).encode()
    if parts.path == page.asks:
        given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return 200, "application/json", json.dumps(page.plan(given)).encode()
    return 404, "text/plain", b"not here"


class PlanPage:
    """Plans of one model."""

    first, asks = "plan_page.html", "/plan"

    def __init__(self, request: PlanRequest) -> None:
        # Simulating a trace takes seconds; sliders want an answer at once.
        self._request = replace(request, trace=None)
        # Read once: of a hub id every reading asks the network.
        self._models = planning.models_of(request)
        self._wanted = planning.wanted_of(request)

    def options(self) -> dict[str, Any]:
        """The settings of the command that opened the page, and what each may be set to."""
        model, wanted = self._models[0], self._wanted
        own, layers = model.decoder.context, len(model.decoder.layers) + 1
        contexts = sorted({wanted.context, own, *(256 << i for i in range(16) if 256 << i < own)})
        schemes = {runtime: list(usual_schemes(model, runtime)) for runtime in SCHEMES}
        kinds = {name: site.kind for name, site in sites().items()} | {wanted.site.name: wanted.site.kind}
        # What the command named stands among the rest, all of several as one entry.
        scheme = ",".join(wanted.schemes)
        if scheme and scheme not in schemes[wanted.runtime]:
            schemes[wanted.runtime].insert(0, scheme)
        return {
            "context": wanted.context,
            "contexts": contexts,
            **_concurrencies(wanted),
            "gpu_layers": layers if wanted.gpu_layers is None else min(wanted.gpu_layers, layers),
            "layers": layers,
            "runtime": wanted.runtime,
            "caches": _caches(wanted),
            "cache": wanted.cache,
            "schemes": schemes,
            "scheme": scheme,
            "site": wanted.site.name,
            "sites": list(dict.fromkeys([wanted.site.name, *sites()])),
            "processors": [name for name, kind in kinds.items() if kind == "cpu"],
        }

    def plan(self, given: dict[str, str]) -> dict[str, Any]:
        """The record of a plan with some settings changed, or ``error``, one line."""
        try:
            return planning.plan(self._turned(given), self._models)
        except QuantwiseError as error:
            return {"error": str(error)}

    def _turned(self, given: dict[str, str]) -> PlanRequest:
        turned: dict[str, Any] = _numbers(given, ("context", "concurrency", "gpu_layers"))
        turned |= {name: given[name] for name in ("cache", "runtime") if name in given}
        if given.get("scheme"):
            turned["schemes"] = tuple(given["scheme"].split(","))
        elif "scheme" in given:
            turned["schemes"] = ()
        site = given.get("site")
        if site and site != self._wanted.site.name:
            if site not in sites():
                raise InputError(f"unknown site {site!r:.40}; sites: {', '.join(sites())}")
            turned |= {"site": site, "memory_bytes": None}
            if sites()[site].kind != "gpu":
                turned |= {"host": None, "tensor_parallel": 1, "pipeline_parallel": 1}
        asked = replace(self._request, **turned)
        if asked.runtime != "llamacpp" or self._kind(asked) == "cpu":
            # There the slider stands still.
            asked = replace(asked, gpu_layers=None, experts_on_cpu=0)
        return asked

    def _kind(self, asked: PlanRequest) -> str | None:
        return sites().get(asked.site or "", self._wanted.site).kind


class FrontierPage:
    """What fits of several models."""

    first, asks = "frontier_page.html", "/frontier"

    def __init__(self, request: PlanRequest) -> None:
        if request.trace is not None:
            raise InputError("a trace is served by one model; name one")
        self._request, self._wanted = request, planning.wanted_of(request)
        self._models = planning.models_of(request)
        limit = self._wanted.limit_bytes or self._wanted.site.limit_bytes
        if limit is None:
            raise InputError("a frontier needs a memory budget; give --memory, such as --memory 12GB, or a --site")
        self._limit = limit

    def options(self) -> dict[str, Any]:
        """As ``Page`` says; ``memories`` in bytes."""
        return {
            "memory": self._limit,
            "memories": sorted({self._limit, *(count * _GIB for count in _MEMORIES)}),
            **_concurrencies(self._wanted),
            "runtime": self._wanted.runtime,
            "caches": {runtime: list(caches) for runtime, caches in CACHES.items()},
        }

    def plan(self, given: dict[str, str]) -> dict[str, Any]:
        """As ``Page`` says."""
        try:
            numbers = _numbers(given, ("memory", "concurrency"))
            turned: dict[str, Any] = {"concurrency": numbers["concurrency"]} if "concurrency" in numbers else {}
            if numbers.get("memory", self._limit) != self._limit:
                turned["memory_bytes"] = numbers["memory"]
            if "runtime" in given:
                turned["runtime"] = given["runtime"]
            return planning.plan(replace(self._request, **turned), self._models)
        except QuantwiseError as error:
            return {"error": str(error)}


def _concurrencies(wanted: Wanted) -> dict[str, Any]:
    return {
        "concurrency": wanted.concurrency,
        "concurrencies": sorted({wanted.concurrency, *(1 << i for i in range(9))}),
    }


def _caches(wanted: Wanted) -> dict[str, list[str]]:
    """The usual types of each runtime, and the one that was asked for."""
    found = {runtime: list(caches) for runtime, caches in CACHES.items()}
    if wanted.cache not in found[wanted.runtime]:
        found[wanted.runtime].append(wanted.cache)
    return found


def _numbers(given: dict[str, str], names: Sequence[str]) -> dict[str, int]:
    for name in names:
        # isdecimal alone takes digits of all scripts, and isdigit superscripts that int does not read.
        if name in given and not (given[name].isascii() and given[name].isdecimal() and len(given[name]) <= 14):
            raise InputError(f"{name} must be a whole number, not {given[name]!r:.40}")
    return {name: int(given[name]) for name in names if name in given}


def plan_server(request: PlanRequest, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet running. Raises InputError where the request can not be planned."""
    page: Page = FrontierPage(request) if len(request.models) > 1 else PlanPage(request)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer this machine's own pages, and no others."""
            # A page of another origin that resolves its name to this machine must not read from here.
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            status, kind, body = (
                reply(page, self.path) if host in ("127.0.0.1", "localhost") else (403, "text/plain", b"not from there")
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
