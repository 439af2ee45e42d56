"""The address of an OpenAI-compatible server: what a URL may say, who is asked there, and which models are served.

QUANTWISE_API_KEY, where set, is sent as the bearer token.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from urllib.parse import urlsplit

import httpx

from quantwise.core.errors import InputError
from quantwise.runtimes.llama_server import NOT_LET_IN, key_header, said
from quantwise.runtimes.whole_answer import asked

KEY = "set QUANTWISE_API_KEY to the key of that server"
_ENDPOINT = re.compile(r"/*(/v1(/(models|(chat/)?completions))?)?/*$")


def split_url(url: str) -> tuple[str, str | None]:
    """(address without ``/v1`` and what an endpoint adds to it, model after ``#``)."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError as error:  # also what urlsplit says of a port or an address that cannot be
        raise InputError(f"{url!r} is no URL of a server; write http://HOST:PORT or http://HOST:PORT#MODEL") from error
    if "@" in parts.netloc:  # not said again: it would stand in every report
        raise InputError(f"the URL of the server at {parts.hostname} holds a password; leave it out, and {KEY}")
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
        response = asked(http, "GET", "/v1/models")
    except (httpx.HTTPError, ValueError) as error:
        raise InputError(f"no server answers at {root} ({why(error)}); {_encryption(error) or advice}") from error
    if response.status_code in NOT_LET_IN:
        raise InputError(f"{root}/v1/models says {said(response)}; {KEY}")
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


def _encryption(error: Exception) -> str | None:
    """What to do where the two sides did not agree on encryption, or the certificate is not believed."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "name the file of the authority that signed its certificate (or the certificate itself) in SSL_CERT_FILE"
    return "it may not be encrypted: try http://" if "[SSL" in text else None


def why(error: Exception) -> str:
    """One line of what an error says."""
    return " ".join(str(error).split()) or type(error).__name__
