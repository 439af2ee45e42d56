"""Answers of servers, read whole within a time and a size.

httpx counts its time limit anew with every byte that comes (https://www.python-httpx.org/advanced/timeouts/), so a
gateway that sends a blank now and then to keep the connection never meets it, and neither does who writes for ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import httpx

_MOST_BYTES = 64 << 20
"""A text of 8,000 tokens with the 128 likeliest at each place is about as long."""
_AS_SENT = ("content-encoding", "content-length", "transfer-encoding")


def asked(
    http: httpx.Client, method: str, path: str, body: Mapping[str, Any] | None = None, limit_s: float | None = None
) -> httpx.Response:
    """The response of a request, with its body.

    It is given up after ``limit_s`` seconds, those of the client where None. A single silence is limited as httpx does,
    so one that begins just before the end is waited for as long again. Raises what httpx raises, and as `whole`.
    """
    limit = http.timeout.read if limit_s is None else limit_s
    ends = math.inf if limit is None else time.monotonic() + limit
    timeout = httpx.USE_CLIENT_DEFAULT if limit_s is None else limit_s
    with http.stream(method, path, json=body, timeout=timeout) as response:
        return whole(response, ends, _MOST_BYTES)


def whole(response: httpx.Response, ends: float, most_bytes: int, last: bytes = b"") -> httpx.Response:
    """The response with its body, read to its end or, where ``last`` is given, to what ends with that.

    ``ends`` is a time of ``time.monotonic``. Raises httpx.ReadTimeout for a body that is not complete by then, also
    where it is because nobody was there to take it, and ValueError for one of more than ``most_bytes``.
    """
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if last and content[-32:].rstrip().endswith(last):
            break
        so_far = f"an answer without an end: {len(content)} bytes so far"
        if len(content) > most_bytes:
            raise ValueError(so_far)
        if time.monotonic() > ends:
            raise httpx.ReadTimeout(so_far, request=response.request)
    headers = [(name, text) for name, text in response.headers.multi_items() if name not in _AS_SENT]
    return httpx.Response(response.status_code, headers=headers, content=bytes(content), request=response.request)
