"""HTTP/1.1 as lean as a load generator needs it: a connection for each request, bodies in portions as they come.

httpx looks through its whole pool for every request, and again for every answer: with 200 streams under way that is
milliseconds each, which a latency would be charged for. Connections are not kept: llama-server closes some without
notice, and idle ones occupy its threads. So a first token's time includes the connection's; ``vllm bench serve`` keeps
idle ones for a minute. A proxy named in the environment is not used. Sources: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx

_PORTION = 1 << 16


class NotHttp(Exception):
    """What came is no HTTP/1.1."""


class Response:
    """Status and headers (names in lower case) of an answer whose body is still to come."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader

    async def portions(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises NotHttp for bad framing, EOFError where it ends too early."""
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            while size := await self._chunk_size():
                async for data in self._counted(size):
                    yield data
                await self._line()
            while await self._line():  # trailers
                pass
        elif (length := self.headers.get("content-length")) is not None:
            if not length.isdigit():
                raise NotHttp(f"content-length {length[:20]!r}")
            async for data in self._counted(int(length)):
                yield data
        else:
            while data := await self._reader.read(_PORTION):
                yield data

    async def _counted(self, size: int) -> AsyncIterator[bytes]:
        while size:
            data = await self._reader.read(min(size, _PORTION))
            if not data:
                raise EOFError("the connection was closed in the middle of the answer")
            size -= len(data)
            yield data

    async def _chunk_size(self) -> int:
        line = await self._line()
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise NotHttp(f"size of a chunk {line[:20]!r}") from error
        if size < 0:
            raise NotHttp(f"size of a chunk {line[:20]!r}")
        return size

    async def _line(self) -> bytes:
        return await _line(self._reader)


class LeanHttp:
    """A client of the server at ``root``, an address with or without a path."""

    def __init__(self, root: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(root)
        self._host = parts.hostname or ""
        self._tls: ssl.SSLContext | None = httpx.create_ssl_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        all_headers = {"Host": parts.netloc.rpartition("@")[2], "Connection": "close"} | dict(headers)
        self._head = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Response]:
        """Send a request; the response's body is read in the body of ``with``.

        Raises OSError where no connection is to be had or it breaks, EOFError where it ends too early, NotHttp.
        """
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            head = f"POST {self._path}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            yield await _response(reader)
        finally:
            writer.transport.abort()
            with suppress(OSError):  # it was broken already
                await writer.wait_closed()


async def _response(reader: asyncio.StreamReader) -> Response:
    status = 100
    headers: dict[str, str] = {}
    while status < 200:  # 100 and 103 only announce the answer
        version, _, rest = (await _line(reader)).partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise NotHttp(f"no status line: {(version + b' ' + rest)[:60]!r}")
        status = int(rest[:3])
        headers = {}
        while line := await _line(reader):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
    return Response(status, headers, reader)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """A line without its end."""
    try:
        line = await reader.readline()
    except ValueError as error:  # longer than the reader's limit of 64 KiB
        raise NotHttp("a line of more than 64 KiB where a header or the size of a chunk should stand") from error
    if not line.endswith(b"\n"):
        raise EOFError("the connection was closed before the answer was complete")
    return line.rstrip(b"\r\n")
