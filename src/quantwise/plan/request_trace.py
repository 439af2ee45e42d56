"""Requests to simulate: when each arrives, how long its prompt and its answer are, which prefix it shares.

Lengths are lognormal, arrivals Poisson, unless a file says otherwise. Service traces look so: prompts and answers of
the Azure traces (Patel et al., Splitwise, arXiv 2311.18677) and of ShareGPT (Kwon et al., PagedAttention, arXiv
2309.06180, figure 11) have long right tails. Times are whole nanoseconds, so that sums do not depend on their order.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.plan.text_file import read_text_file

SECOND = 1_000_000_000
_COLUMNS = ("arrival_s", "prompt", "output")
_MORE = ("group", "prefix")
# A trace longer than this would take the simulation minutes.
_MOST = 1_000_000
# Of seconds and of tokens: more is a slip of the hand.
_BELOW = 1e12


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """``arrival`` in nanoseconds; ``prompt`` and ``output`` in tokens, of which an answer has at least one.

    The first ``prefix`` tokens of the prompt are the same in all requests of a ``group`` (a system prompt).
    """

    arrival: int
    prompt: int
    output: int
    group: int = 0
    prefix: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in the cache when the answer is done."""
        return self.prompt + self.output


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lognormal lengths in tokens: means, the spread (sigma of the logarithm) of both, and the ``longest`` request.

    ``fills`` makes every request exactly ``longest`` tokens in all, its prompt what the answer leaves: the worst that
    a context allows. ``prefix`` tokens of each prompt are shared, by ``groups`` of requests.
    """

    prompt: int
    output: int
    longest: int
    spread: float = 0.6
    fills: bool = False
    prefix: int = 0
    groups: int = 1


def poisson_trace(lengths: Lengths, per_second: float, count: int, seed: int) -> list[TracedRequest]:
    """``count`` requests that arrive independently, ``per_second`` on average. The same seed gives the same requests.

    Raises InputError where lengths or rate are not positive, or prompt and output do not fit ``longest``.
    """
    _check(lengths, per_second, count)
    chance = random.Random(seed)
    now, requests = 0.0, []
    for _ in range(count):
        now += chance.expovariate(per_second)
        output = min(_lognormal(chance, lengths.output, lengths.spread), lengths.longest - 1)
        prompt = lengths.longest - output
        if not lengths.fills:
            prompt = min(prompt, max(_lognormal(chance, lengths.prompt, lengths.spread), lengths.prefix + 1))
        group = chance.randrange(lengths.groups)
        requests.append(TracedRequest(round(now * SECOND), prompt, output, group, min(lengths.prefix, prompt)))
    return requests


def read_trace(path: Path) -> list[TracedRequest]:
    """Requests of a CSV file with the columns arrival_s, prompt, output and, where prefixes are shared, group, prefix.

    Sorted by arrival. Raises InputError, naming the line, where a number is missing or makes no sense.
    """
    requests = []
    try:
        rows = csv.DictReader(io.StringIO(read_text_file(path, "a CSV file of requests", replaces=False), newline=""))
        names = rows.fieldnames or []
        if lacking := [name for name in _COLUMNS if name not in names]:
            raise InputError(f"{path} lacks the columns {', '.join(lacking)}; its first line names the columns")
        for line, row in enumerate(rows, 2):
            requests.append(_request(row, f"{path}, line {line}"))
            if len(requests) > _MOST:
                raise InputError(f"{path} has more than {_MOST} requests; give a part of it")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV text ({error}); give columns {', '.join(_COLUMNS)}") from error
    if not requests:
        raise InputError(f"{path} holds no request; give at least one line below the names of the columns")
    return sorted(requests, key=lambda request: request.arrival)


def _request(row: dict[str, str | None], where: str) -> TracedRequest:
    found: dict[str, float] = {}
    for name in (*_COLUMNS, *_MORE):
        text = row.get(name) or ("0" if name in _MORE else "")
        try:
            found[name] = float(text)
        except ValueError:
            raise InputError(f"{where}: {name} must be a number, not {text!r:.40}") from None
        whole = name == "arrival_s" or found[name] == found[name] // 1
        if not (0 <= found[name] < _BELOW and whole):
            bound = "below 1,000,000,000,000" if found[name] >= _BELOW and whole else "at least 0"
            raise InputError(f"{where}: {name} must be {'' if whole else 'whole and '}{bound}, not {text!r:.40}")
    prompt, output, prefix = int(found["prompt"]), int(found["output"]), int(found["prefix"])
    if prompt < 1 or output < 1 or prefix > prompt:
        raise InputError(f"{where}: prompt and output must be at least 1 token, and prefix within the prompt")
    return TracedRequest(round(found["arrival_s"] * SECOND), prompt, output, int(found["group"]), prefix)


def _lognormal(chance: random.Random, mean: int, spread: float) -> int:
    """A length of at least 1 whose distribution has this mean before rounding: exp(mu + sigma^2 / 2)."""
    return max(1, round(chance.lognormvariate(math.log(mean) - spread * spread / 2, spread)))


def _check(lengths: Lengths, per_second: float, count: int) -> None:
    sizes: Sequence[int] = (lengths.prompt, lengths.output, lengths.groups, count)
    if min(sizes) < 1 or lengths.longest < 2 or lengths.prefix < 0 or lengths.spread < 0:
        raise InputError(
            "lengths, groups and the count of requests must be at least 1, and the longest request 2 tokens"
        )
    if not 0 < per_second < math.inf:
        raise InputError(f"requests per second must be above 0, not {per_second}")
