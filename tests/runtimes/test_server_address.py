"""Addresses, models, keys and certificates as users get them wrong: each works, or is one clear line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.runtime import Ask, RuntimeOptions
from quantwise.runtimes import server_address
from quantwise.runtimes.openai import OpenAI, server_artifact
from quantwise.runtimes.server_address import split_url
from quantwise.runtimes.streaming import find_server
from stub_server import MODEL, MODELS, serving, stub


def test_of_several_models_one_has_to_be_named() -> None:
    with stub({"/v1/models": MODELS}) as url:
        for ask in (server_artifact, find_server):
            with pytest.raises(
                InputError, match=rf"has several models \(m1, m2\); say which one is meant, as {url}#m1"
            ):
                ask(url)
        assert find_server(f"{url}#m2").model == "m2"


@pytest.mark.parametrize(
    "end", ["", "/", "/v1", "/v1/", "//", "/v1/models", "/v1/chat/completions", "/v1/completions/"]
)
@pytest.mark.parametrize("path", ["", "/deep/er"])
def test_what_an_endpoint_adds_to_the_address_is_taken_off(path: str, end: str) -> None:
    with stub({f"{path}/v1/models": MODEL}) as url:
        assert split_url(f"{url}{path}{end}") == (f"{url}{path}", None)
        assert server_artifact(f"{url}{path}{end}#m1").bytes is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:secret@nas:8080", "holds a password; leave it out, and set QUANTWISE_API_KEY"),
        ("http://nas:8080/v1?api-version=1", "without what follows the question mark"),
        ("http://nas:80800", "no URL of a server"),
        ("nas:8080", "no URL of a server"),
    ],
)
def test_an_address_that_cannot_be_asked_is_said_so(url: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        server_artifact(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_that_sends_elsewhere_names_the_other() -> None:
    with (
        redirecting("https://nas/v1/models") as url,
        pytest.raises(InputError, match="sends to: https://nas/v1/models"),
    ):
        server_artifact(url)


@contextmanager
def redirecting(target: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(308)
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_missing_is_said_and_one_that_is_there_is_sent(
    options: RuntimeOptions, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"choices": [{"text": "!", "finish_reason": "stop"}]}
    routes = {"/v1/models": MODEL, "/v1/completions": (200, plain)}
    with stub(routes, key="k1", refusal=status) as url:
        monkeypatch.delenv("QUANTWISE_API_KEY", raising=False)
        with pytest.raises(InputError, match=f"{url}/v1/models says status {status}.*set QUANTWISE_API_KEY to the key"):
            server_artifact(url)
        monkeypatch.setenv("QUANTWISE_API_KEY", "k1")
        with OpenAI().open(server_artifact(url), options) as session:
            assert session.ask([Ask(text="x")])[0].text == "!"


def test_a_key_that_is_good_for_the_list_alone_ends_the_run_and_refuses_no_item(options: RuntimeOptions) -> None:
    """As a llama-server with ``--api-key``, whose list of models is for everybody."""
    refused = (401, {"error": {"message": "Invalid API Key"}})
    with (
        stub({"/v1/models": MODEL, "/v1/completions": refused}) as url,
        OpenAI().open(server_artifact(url), options) as session,
        pytest.raises(EnvironmentFailure, match="401: Invalid API Key; set QUANTWISE_API_KEY") as caught,
    ):
        session.ask([Ask(text="x"), Ask(text="y")])
    assert "\n" not in str(caught.value)


def test_a_prompt_that_a_gateway_bars_is_refused_and_the_others_are_answered(options: RuntimeOptions) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "bad" in body["prompt"]:
            return 403, {"error": {"message": "flagged by policy"}}
        return {"choices": [{"text": "!", "finish_reason": "stop"}]}

    with (
        stub({"/v1/models": MODEL, "/v1/completions": (200, answer)}) as url,
        OpenAI().open(server_artifact(url), options) as session,
    ):
        replies = session.ask([Ask(text="good"), Ask(text="bad"), Ask(text="fine")])
    assert [reply.finish for reply in replies] == ["stop", "refused", "stop"]
    assert "flagged by policy" in (replies[1].error or "")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_server_that_refuses_seeds_is_asked_without(options: RuntimeOptions, temperature: float) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "seed" in body:
            return {"error": {"message": "unknown field 'seed'"}}
        return {"choices": [{"text": "!", "finish_reason": "stop"}]}

    seen: list[dict[str, Any]] = []
    asks = [Ask(text=f"x{i}", temperature=temperature, seed=7) for i in range(5)]
    with (
        stub({"/v1/models": MODEL, "/v1/completions": (200, answer)}, seen) as url,
        OpenAI().open(server_artifact(url), replace(options, parallel=1)) as session,
    ):
        replies = session.ask(asks)
    assert [(r.text, r.finish, r.error) for r in replies] == [("!", "stop", None)] * 5
    assert sum("seed" in body for body in seen) == 1, "found out once"


def test_encryption_that_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = self_signed(tmp_path)
    with (
        stub({"/v1/models": MODEL}) as url,
        pytest.raises(InputError, match="it may not be encrypted: try http://"),
    ):
        server_artifact(url.replace("http:", "https:"))
    with stub({"/v1/models": MODEL}, certificate=certificate) as url:
        server_address._certificates.cache_clear()
        with pytest.raises(InputError, match=r"CERTIFICATE_VERIFY_FAILED.*in SSL_CERT_FILE"):
            server_artifact(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        server_address._certificates.cache_clear()
        assert server_artifact(url).hash
    server_address._certificates.cache_clear()


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    path = folder / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {path}.key -out {path}"
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl, which makes the certificate")
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.mark.parametrize("said", ["[" * 100_000, {"data": [{"id": None}]}, {"data": [{"id": ""}]}, {"data": {"id": 1}}])
def test_what_lists_no_models_by_name_is_no_such_server(said: Any) -> None:
    with stub({"/v1/models": (200, said)}) as url:
        for ask in (server_artifact, find_server):
            with pytest.raises(InputError, match="answers, but not as an OpenAI-compatible server does"):
                ask(url)
