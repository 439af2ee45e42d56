"""Any OpenAI-compatible server by its URL: llama-server, Ollama, vLLM, TensorRT-LLM.

What a server can do is asked of it, never assumed from its name: a llama-server (it answers ``/props`` and
``/tokenize``) is used through its native interface; every other one through ``/v1/completions`` for rendered prompts,
through its echoed log-probabilities for choices (as vLLM gives them), and through ``/v1/chat/completions`` for
messages. QUANTWISE_API_KEY, where set, is sent as the bearer token.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from quantwise.core.artifact import Artifact
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions
from quantwise.runtimes import capabilities
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.llama_server import NOT_LET_IN, UNREADABLE, KeyRefused, LlamaServer, ask_all, key_header, said
from quantwise.runtimes.openai_api import OpenAIServer
from quantwise.runtimes.openai_prompts import prompt_tokens
from quantwise.runtimes.patience import Patience

_PROBE_S = 15.0
_KEY = "set QUANTWISE_API_KEY to the key of that server"
_ENDPOINT = re.compile(r"/*(/v1(/(models|(chat/)?completions))?)?/*$")


class OpenAI:
    """The runtime ``openai``."""

    name = "openai"

    def __init__(self) -> None:
        self._patience: Patience | None = None  # one for all servers of a run, which share its budget

    def version(self) -> str:
        """The protocol; the build of each server is part of its artifact's hash."""
        return "OpenAI-compatible HTTP"

    def refuses(self, artifact: Artifact) -> str | None:
        """It takes servers."""
        return (
            None if artifact.format == "server" else f"openai asks servers by URL, it does not load {artifact.format}"
        )

    @contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions) -> Iterator[OpenAISession]:
        """Connect and probe. Raises InputError when the URL is no such server, RuntimeFailure when it changed since."""
        if (reason := self.refuses(artifact)) is not None:
            raise RuntimeFailure(reason)
        if options.cache != "f16":
            raise InputError("the cache scheme of a running server is set where it was started; leave kv= out")
        root, wanted = split_url(artifact.location)
        found = server_artifact(artifact.location)
        if artifact.hash and found.hash != artifact.hash:
            raise RuntimeFailure(f"{artifact.location} serves another model or build than before; decide again")
        with http_client(root, _PROBE_S, options.parallel) as http:
            model = chosen_model(http, root, wanted)
            props = _props(http)
            try:
                native = LlamaServer(http) if props is not None else None
            except (httpx.HTTPError, Refused, *UNREADABLE) as error:
                raise RuntimeFailure(f"{root} does not answer as a llama-server: {_why(error)}") from error
            server = native or OpenAIServer(http, model)
            http.timeout = httpx.Timeout(options.timeout_s)
            self._patience = self._patience or Patience(options.retry_s)
            yield OpenAISession(found, model, http, server, options.parallel, self._patience)


class OpenAISession:
    """A connection with a server that somebody else runs."""

    def __init__(
        self, artifact: Artifact, model: str, http: httpx.Client, server: LlamaServer | OpenAIServer, parallel: int,
        patience: Patience,
    ) -> None:  # fmt: skip
        self._url, self._known = artifact.location, artifact.hash
        self._model = model
        self._http = http
        self._server = server
        self._parallel = parallel
        self._patience = patience

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order, each tried again as `patience` has it; RuntimeFailure when the server is gone.

        Raises EnvironmentFailure where another model answers, where the key is not (or no longer) good, or where
        retries have taken the budget of the run.
        """
        return ask_all(asks, self._answer, self._parallel, self._gone, self._patience.give_up)

    def _answer(self, ask: Ask) -> Reply:
        try:
            reply = self._patience.answer(ask, self._server.answer)
        except KeyRefused as error:
            if error.status == httpx.codes.FORBIDDEN and self._lists_models():
                raise Refused(str(error)) from error  # gateways bar single prompts so
            raise EnvironmentFailure(f"{self._url} says {error}; {_KEY}, and run the same command again") from error
        if reply.error is not None and reply.finish in ("stop", "length"):
            self._check_same()
        return reply

    def _lists_models(self) -> bool:
        try:
            return self._http.get("/v1/models").is_success
        except httpx.HTTPError:
            return False

    def _check_same(self) -> None:
        """Raise EnvironmentFailure where the server came back with another model or build than it went with."""
        try:
            now = server_artifact(self._url).hash
        except InputError:
            return  # it fails again; the next answer will be looked at
        if now != self._known:
            raise EnvironmentFailure(
                f"{self._url} came back with another model or build than before; start the one that was measured and "
                "run the same command again, or decide again into a new --run"
            )

    def footprint(self) -> Footprint:
        """Nothing is known of another's process."""
        return Footprint()

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """As in the protocol; a server that is no llama-server is really asked, for one token."""
        try:
            if isinstance(self._server, LlamaServer):
                return self._server.prompt_tokens(ask)
            return prompt_tokens(self._http, self._model, ask)
        except Refused as error:
            return PromptTokens(refused=str(error))
        except (httpx.HTTPError, *UNREADABLE) as error:
            raise RuntimeFailure(f"{self._url} does not tell what it reads: {_why(error)}") from error

    def capabilities(self) -> dict[str, Any]:
        """As in `TellsCapabilities`; it takes a dozen short requests."""
        native = isinstance(self._server, LlamaServer)
        return capabilities.probe(self._http, self._model, distributions=native).to_json()

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in the protocol, from a llama-server. Raises InputError for servers that do not tell token ids."""
        if not isinstance(self._server, LlamaServer):
            raise InputError(f"{self._url} does not tell next-token distributions by token id; only llama-server does")
        try:
            return self._server.next_token_logprobs(text, top)
        except (httpx.HTTPError, Refused, *UNREADABLE) as error:
            raise RuntimeFailure(f"{self._url} gave no distributions: {_why(error)}") from error

    def _gone(self) -> str | None:
        try:
            self._http.get("/v1/models", timeout=_PROBE_S)
        except httpx.TransportError as error:
            return f"{self._url} no longer answers ({_why(error)})"
        return None


def server_artifact(url: str) -> Artifact:
    """The artifact behind a URL, known by model id, build and what else the server tells of itself.

    ``url`` may end in ``/v1`` and may name one of several models after ``#``. Raises InputError naming the URL when
    nothing there speaks this protocol.
    """
    root, wanted = split_url(url)
    with http_client(root, _PROBE_S, 2) as http:
        model = chosen_model(http, root, wanted)
        props = _props(http) or {}
    kept = ("build_info", "model_path", "model_ftype", "chat_template", "total_slots", "bos_token", "eos_token")
    told = {"model": model, **{k: props[k] for k in kept if k in props}}
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()
    return Artifact(url, "server", digest, bytes=None)


def server_props(url: str) -> dict[str, Any] | None:
    """What a llama-server tells at ``/props`` (``chat_template``, ``bos_token`` ...); None for others."""
    root, _ = split_url(url)
    with http_client(root, _PROBE_S, 2) as http:
        return _props(http)


def server_context(url: str) -> int | None:
    """Tokens that a llama-server has for each request; None where a server does not tell."""
    settings = (server_props(url) or {}).get("default_generation_settings")
    tokens = settings.get("n_ctx") if isinstance(settings, dict) else None
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def split_url(url: str) -> tuple[str, str | None]:
    """(address without ``/v1`` and what an endpoint adds to it, model after ``#``)."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError as error:  # also what urlsplit says of a port or an address that cannot be
        raise InputError(f"{url!r} is no URL of a server; write http://HOST:PORT or http://HOST:PORT#MODEL") from error
    if "@" in parts.netloc:  # not said again: it would stand in every report
        raise InputError(f"the URL of the server at {parts.hostname} holds a password; leave it out, and {_KEY}")
    if parts.query:
        raise InputError(f"{url!r}: servers are asked without what follows the question mark; leave it out")
    return f"{parts.scheme}://{parts.netloc}{_ENDPOINT.sub('', parts.path)}", parts.fragment or None


def http_client(root: str, timeout_s: float, parallel: int) -> httpx.Client:
    """A proxy from the environment is for hosts elsewhere, never for this machine."""
    address = urlsplit(root)
    here = address.hostname in ("localhost", "127.0.0.1", "::1")
    headers = key_header(os.environ.get("QUANTWISE_API_KEY"))
    limits = httpx.Limits(max_connections=parallel + 2)
    # Authorities take a tenth of a second to read, and nobody shows a certificate where nothing is encrypted.
    verify = _certificates() if address.scheme == "https" else False
    return httpx.Client(
        base_url=root, timeout=timeout_s, headers=headers, limits=limits, trust_env=not here, verify=verify
    )


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Who is believed: the usual authorities, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx.create_ssl_context()


def chosen_model(http: httpx.Client, root: str, wanted: str | None) -> str:
    """The model that is ``wanted``, or the only one there is. Raises InputError where that is none or several."""
    models = model_ids(http, root)
    named = f"{', '.join(models[:8])}{' ...' if len(models) > 8 else ''}"
    if wanted and wanted not in models:
        raise InputError(f"{root} has no model {wanted!r}; it has {named}")
    if not wanted and len(models) > 1:
        raise InputError(f"{root} has several models ({named}); say which one is meant, as {root}#{models[0]}")
    return wanted or models[0]


def model_ids(http: httpx.Client, root: str) -> list[str]:
    """The models that a server names. Raises InputError naming ``root`` when nothing there speaks this protocol."""
    advice = "give the URL of a running llama-server, Ollama or vLLM"
    try:
        response = http.get("/v1/models")
    except httpx.HTTPError as error:
        raise InputError(f"no server answers at {root} ({_why(error)}); {_encryption(error) or advice}") from error
    if response.status_code in NOT_LET_IN:
        raise InputError(f"{root}/v1/models says {said(response)}; {_KEY}")
    if response.is_redirect:
        advice = f"give the address that it sends to: {response.headers.get('location', 'it does not say')}"
    if not response.is_success:
        raise InputError(f"{root}/v1/models says {said(response)}; {advice}")
    try:
        models = [entry["id"] for entry in response.json()["data"]]
        if not all(isinstance(name, str) and name for name in models):
            raise ValueError("a model without a name")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{root} answers, but not as an OpenAI-compatible server does; {advice}") from error
    if not models:
        raise InputError(f"{root} serves no model; load one there first")
    return models


def _encryption(error: httpx.HTTPError) -> str | None:
    """What to do where the two sides did not agree on encryption, or the certificate is not believed."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "name the file of the authority that signed its certificate (or the certificate itself) in SSL_CERT_FILE"
    return "it may not be encrypted: try http://" if "[SSL" in text else None


def _props(http: httpx.Client) -> dict[str, Any] | None:
    """The ``/props`` of a llama-server that also tokenizes; None where that is not to be had."""
    try:
        response = http.get("/props")
        props = response.json() if response.is_success else None
        told = http.post("/tokenize", json={"content": "a"}) if isinstance(props, dict) else None
        return props if told is not None and told.is_success and "tokens" in told.json() else None
    except (httpx.HTTPError, ValueError):
        return None


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
