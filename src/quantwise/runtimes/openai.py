"""Any OpenAI-compatible server by its URL: llama-server, Ollama, vLLM, TensorRT-LLM.

What a server can do is asked of it, never assumed from its name: a llama-server (it answers ``/props`` and
``/tokenize``) is used through its native interface; every other one through ``/v1/completions`` for rendered prompts,
through its echoed log-probabilities for choices and its ``prompt_logprobs`` for distributions (as vLLM gives them), and
through ``/v1/chat/completions`` for messages. QUANTWISE_API_KEY, where set, is sent as the bearer token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from quantwise.core.artifact import Artifact
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, CacheUse, Footprint, Reply, RuntimeOptions
from quantwise.runtimes import capabilities
from quantwise.runtimes.forced_tokens import Refused
from quantwise.runtimes.llama_server import UNREADABLE, KeyRefused, LlamaServer, ask_all
from quantwise.runtimes.openai_api import OpenAIServer
from quantwise.runtimes.openai_prompts import prompt_tokens
from quantwise.runtimes.patience import Patience
from quantwise.runtimes.server_address import KEY, chosen_model, http_client, split_url, why
from quantwise.runtimes.server_metrics import CacheWatch
from quantwise.runtimes.whole_answer import asked

_PROBE_S = 15.0


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
                raise RuntimeFailure(f"{root} does not answer as a llama-server: {why(error)}") from error
            server = native or OpenAIServer(http, model)
            watch = CacheWatch(http)
            http.timeout = httpx.Timeout(options.timeout_s)
            self._patience = self._patience or Patience(options.retry_s)
            told = (found, model, http, server, options.parallel, self._patience)
            yield PagedSession(watch, *told) if watch.tells else OpenAISession(*told)


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
            raise EnvironmentFailure(f"{self._url} says {error}; {KEY}, and run the same command again") from error
        if reply.error is not None and reply.finish in ("stop", "length"):
            self._check_same()
        return reply

    def _lists_models(self) -> bool:
        try:
            with self._http.stream("GET", "/v1/models") as response:
                return response.is_success
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
            raise RuntimeFailure(f"{self._url} does not tell what it reads: {why(error)}") from error

    def capabilities(self) -> dict[str, Any]:
        """As in `TellsCapabilities`; it takes a dozen short requests."""
        native = isinstance(self._server, LlamaServer)
        return capabilities.probe(self._http, self._model, native=native).to_json()

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in the protocol, from a llama-server or a vLLM. Raises InputError for servers that do not tell them."""
        try:
            return self._server.next_token_logprobs(text, top)
        except Refused as error:
            raise InputError(
                f"{self._url} does not tell next-token distributions by token id ({why(error)}); llama-server and "
                "vLLM do"
            ) from error
        except (httpx.HTTPError, *UNREADABLE) as error:
            raise RuntimeFailure(f"{self._url} gave no distributions: {why(error)}") from error

    def _gone(self) -> str | None:
        try:
            with self._http.stream("GET", "/v1/models", timeout=_PROBE_S):
                return None
        except httpx.TransportError as error:
            return f"{self._url} no longer answers ({why(error)})"


class PagedSession(OpenAISession):
    """One whose server counts what its cache does. Requests of others to the same server are counted too."""

    def __init__(self, watch: CacheWatch, *told: Any) -> None:
        super().__init__(*told)
        self._watch = watch

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """As in `OpenAISession`, with a look at the blocks now and then."""
        with self._watch:
            return super().ask(asks)

    def cache_use(self) -> CacheUse:
        """What its ``/metrics`` say since it was opened."""
        return self._watch.use()


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


def _props(http: httpx.Client) -> dict[str, Any] | None:
    """The ``/props`` of a llama-server that also tokenizes; None where that is not to be had."""
    try:
        response = asked(http, "GET", "/props")
        props = response.json() if response.is_success else None
        told = asked(http, "POST", "/tokenize", {"content": "a"}) if isinstance(props, dict) else None
        return props if told is not None and told.is_success and "tokens" in told.json() else None
    except (httpx.HTTPError, ValueError):
        return None
