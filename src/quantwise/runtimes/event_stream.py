"""Server-sent events out of bytes that come in any portions, characters and lines cut anywhere.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (lines that end in a lone CR are not understood).
"""

from __future__ import annotations

_MOST_BYTES = 64 << 20
_FIELDS = (b"event", b"id", b"retry")


class NotEvents(Exception):
    """What came is no stream of events, or has no end."""


class ServerSaid(Exception):
    """The server told an error within the stream."""


class EventStream:
    """Data of server-sent events out of bytes that come in any portions."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that is complete now; raises NotEvents, and ServerSaid."""
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            raise NotEvents(f"more than {_MOST_BYTES >> 20} MiB in one answer")
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            if (event := self._line(line.removesuffix(b"\r"))) is not None:
                found.append(event)
        return found

    def _line(self, line: bytes) -> bytes | None:
        if not line:
            event, self._data = b"\n".join(self._data), []
            return event or None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"error":  # llama-server before 2025
            raise ServerSaid(one_line(value))
        elif field and field not in _FIELDS:  # an empty field name is a comment, which keeps a connection alive
            raise NotEvents(f"no line of an event stream: {one_line(line)}")
        return None


def one_line(data: bytes) -> str:
    """At most 200 characters of it, for a message."""
    return " ".join(data.decode("utf-8", errors="replace").split())[:200]
