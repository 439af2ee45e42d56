"""When a request to somebody else's server is tried again, after what wait, and for how long at most.

What the server says of itself (busy: 408, 425, 429, 503; away: no connection) is waited for while the item's budget
lasts. What may as well be the item's doing (500, 502, 504, an answer that breaks off, cannot be read or does not come
in time) is tried four times. Waits double from half a second to 30, less up to half by lot, so that requests that
failed together do not come back together (Brooker 2015, "Exponential backoff and jitter"); a Retry-After (RFC 9110,
10.2.3) is kept where it is longer. Whoever asks another model than the one meant is not tried again.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from quantwise.core.errors import EnvironmentFailure
from quantwise.core.runtime import Ask, Reply
from quantwise.runtimes.llama_server import UNREADABLE, failure

FIRST_S, LONGEST_S = 0.5, 30.0
TRIES = 4
RUN_SHARE = 6
"""The budget of a run, in budgets of an item."""
BUSY = (408, 425, 429, 503)
_OWN_FAULT = (500, 502, 504)
_AWAY = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_AGAIN = (httpx.TransportError, *UNREADABLE)


class Patience:
    """The retries of one run, over all its servers; thread-safe. Waits are drawn from a seed."""

    def __init__(self, item_s: float, seed: int = 0) -> None:
        """``item_s``: no try of an item begins later than that after its first failed; 0 for none at all."""
        self._item_s = item_s
        self._lots = random.Random(seed)
        self._lock = threading.Lock()
        self._given_up = threading.Event()
        self._retrying = 0
        self._since = 0.0
        self._spent = 0.0

    def answer(self, ask: Ask, once: Callable[[Ask], Reply]) -> Reply:
        """The reply of the first try that ends; its ``error`` then says what went before.

        Of what is lost, a reply that says so, or the TransportError of a server that breaks connections. Raises
        EnvironmentFailure where retries have taken the budget of the run.
        """
        asked = time.monotonic()
        try:
            return once(ask)
        except (httpx.HTTPStatusError, *_AGAIN) as error:
            if not _transient(error):
                raise
            with self._overtime():
                return self._again(ask, once, error, asked)

    def _again(self, ask: Ask, once: Callable[[Ask], Reply], error: Exception, asked: float) -> Reply:
        began = time.monotonic()
        faults = [error]
        while (wait := self._wait(faults, time.monotonic() - began)) is not None:
            if self._pause(wait):
                break
            self._check_run(faults[-1])
            try:
                reply = once(ask)
            except (httpx.HTTPStatusError, *_AGAIN) as another:
                if not _transient(another):
                    raise
                faults.append(another)
            else:
                return replace(reply, error="; ".join(filter(None, (reply.error, _history(faults)))))
        waited = time.monotonic() - began
        tries = f"{len(faults)} tries, {waited:.1f} s after the first failed"
        last = faults[-1]
        if isinstance(last, httpx.TransportError) and not isinstance(last, httpx.TimeoutException):
            raise type(last)(f"{_why(last)} ({tries})") from last
        lost = failure(last, time.monotonic() - asked)
        return replace(lost, error=f"{lost.error} ({tries})")

    def give_up(self, yes: bool) -> None:
        """Whether nothing is waited for any more, because the run ends; else one that was told to stop hangs on."""
        (self._given_up.set if yes else self._given_up.clear)()

    def _pause(self, seconds: float) -> bool:
        return self._given_up.wait(seconds)

    def _wait(self, faults: list[Exception], waited: float) -> float | None:
        """Seconds until the next try, or None where there is none."""
        doubled = min(FIRST_S * 2.0 ** min(len(faults) - 1, 30), LONGEST_S)
        with self._lock:
            wait = max(doubled * self._lots.uniform(0.5, 1.0), _retry_after(faults[-1]))
        if sum(not _elsewhere(fault) for fault in faults) >= TRIES or waited + wait > self._item_s:
            return None
        return wait

    def _check_run(self, last: Exception) -> None:
        with self._lock:
            spent = self._spent + time.monotonic() - self._since
        if spent > RUN_SHARE * self._item_s:
            raise EnvironmentFailure(
                f"servers failed for {spent:.0f} s of this run, at last: {_why(last)}; mend that and run the same "
                "command again: it goes on where it was"
            ) from last

    @contextmanager
    def _overtime(self) -> Iterator[None]:
        """The clock of the run goes while any request is being tried again, however many there are."""
        with self._lock:
            if not self._retrying:
                self._since = time.monotonic()
            self._retrying += 1
        try:
            yield
        finally:
            with self._lock:
                self._retrying -= 1
                if not self._retrying:
                    self._spent += time.monotonic() - self._since


def _transient(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (*BUSY, *_OWN_FAULT)
    return not isinstance(error, (httpx.UnsupportedProtocol, httpx.ProxyError))


def _elsewhere(error: Exception) -> bool:
    """Whether the server, and not this item, is the reason."""
    return isinstance(error, _AWAY) or (isinstance(error, httpx.HTTPStatusError) and error.response.status_code in BUSY)


def _retry_after(error: Exception) -> float:
    """Seconds that a server asks us to wait; 0 where it does not say, or says it in a way that cannot be read."""
    said = error.response.headers.get("retry-after", "") if isinstance(error, httpx.HTTPStatusError) else ""
    try:
        if said.strip().isdigit():
            return float(said)
        at = parsedate_to_datetime(said)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _history(faults: list[Exception]) -> str:
    """What went before an answer, as ``answered at try 4, after status 503: busy (2), ReadTimeout``."""
    counted = Counter(map(_why, faults))
    said = ", ".join(f"{why} ({count} times)" if count > 1 else why for why, count in counted.items())
    return f"answered at try {len(faults) + 1}, after {said}"


def _why(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return type(error).__name__
    if isinstance(error, UNREADABLE):
        return "an answer that cannot be read"
    return " ".join(str(error).split()) or type(error).__name__
