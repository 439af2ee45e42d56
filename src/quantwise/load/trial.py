"""A trial: one or more servers under the same load, taking turns block by block, and the record of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from quantwise.core.errors import InputError
from quantwise.core.progress import Progress
from quantwise.load.arrivals import Arrivals
from quantwise.load.findings import notes
from quantwise.load.generator import Block, Heard, closed_loop, open_loop
from quantwise.load.latency import ServiceLevels, summary
from quantwise.load.ratios import block_figures, ratios, spread, tail_ratios
from quantwise.load.watched import Watched
from quantwise.load.workload import Asker, Items, MadeUp, Workload, find_asker, measured_words, warm_up
from quantwise.runtimes.energy import Joules, meter_of
from quantwise.runtimes.lean_http import LeanHttp
from quantwise.runtimes.server_address import http_client
from quantwise.runtimes.server_metrics import Blocks, BlockWatch, Counts, cache_use, difference, read_metrics
from quantwise.runtimes.streaming import Server, Streamed, find_server, streaming_client
from quantwise.stats.differences import FloatArray

_MOST_REQUESTS, _MOST_WARM_UP, _MOST_USERS = 1_000_000, 10_000, 100_000


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be put on whom. ``pace`` is an open loop's arrivals or a closed loop's number of users.

    ``requests`` and ``seconds`` bound what each server is given over all blocks (``seconds`` do not count the wait for
    the last answers, at most ``timeout_s`` per block). ``timeout_s`` bounds one request.
    """

    urls: tuple[str, ...]
    pace: Arrivals | int
    workload: Workload
    requests: int = 300
    seconds: float = 60.0
    blocks: int = 1
    warm_up: int = 8
    timeout_s: float = 60.0
    seed: int = 0
    levels: ServiceLevels = field(default_factory=ServiceLevels)

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.timeout_s <= 0:
            raise InputError("no time is given: --seconds and --timeout take more than 0, such as 60s")
        for name, value, most in (
            ("--requests", self.requests, _MOST_REQUESTS),
            ("--warm-up", self.warm_up, _MOST_WARM_UP),
            ("--users", self.pace if isinstance(self.pace, int) else 1, _MOST_USERS),
        ):
            if value > most:
                raise InputError(f"{name} {value} is out of range; give at most {most:,}")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed} is negative; give 0 or more")
        if not 1 <= self.blocks <= self.requests:
            raise InputError(f"{self.requests} requests do not make {self.blocks} blocks; give at least one to each")
        if len(set(self.urls)) != len(self.urls):
            raise InputError("a server is named twice; to see the noise between equals, start a second one")

    @property
    def block_seconds(self) -> float:
        """How long requests are sent in one block."""
        return self.seconds / self.blocks

    def share(self, number: int) -> tuple[int, int]:
        """The first request of a block, and how many it has at most."""
        each, rest = divmod(self.requests, self.blocks)
        return number * each + min(number, rest), each + (number < rest)

    def most_requests(self, number: int) -> int:
        """How many requests a block sends; of a closed loop how many at most."""
        _, count = self.share(number)
        return count if isinstance(self.pace, int) else len(self.offsets(self.pace, number))

    def offsets(self, pace: Arrivals, number: int) -> FloatArray:
        """When the requests of a block are due, in seconds from its start."""
        return pace.offsets(self.share(number)[1], self.block_seconds, (self.seed, number))


@dataclass(slots=True)
class _Arm:
    """One server of a trial and what was seen of it."""

    server: Server
    http: LeanHttp
    asker: Asker
    watch: BlockWatch
    warm: tuple[Streamed, ...] = ()
    blocks: list[Block] = field(default_factory=list)
    energy: list[Joules] = field(default_factory=list)
    before: Counts = field(default_factory=dict)
    after: Counts = field(default_factory=dict)
    left: Blocks | None = None


def run_trial(trial: Trial, progress: Progress) -> dict[str, Any]:
    """Put the load on every server. The record has ``servers``, one after the other with vLLM's field names, and
    ``ratios`` of each over the first.

    Raises InputError for what is no server, RuntimeFailure for one that answers nothing at all before the load begins;
    what fails under load is counted.
    """
    if not any(trial.most_requests(number) for number in range(trial.blocks)):
        raise InputError(
            f"no request arrives within {trial.seconds:g} s at so low a rate; give a higher --rate, or more --seconds"
        )
    servers = [find_server(url) for url in trial.urls]
    return asyncio.run(_run(trial, servers, progress))


async def _run(trial: Trial, servers: Sequence[Server], progress: Progress) -> dict[str, Any]:
    arms, workload = await _ready(trial, servers, progress)
    total = len(arms) * sum(trial.most_requests(number) for number in range(trial.blocks))
    progress.stage("load", total)
    watched, ahead = Watched(progress), trial.blocks * len(arms)
    for number in range(trial.blocks):
        turn = number % len(arms)
        for arm in (*arms[turn:], *arms[:turn]):
            # Arrivals are drawn beforehand, so how long an open loop takes is known from how many have come.
            at_most_s = ahead * trial.block_seconds if isinstance(trial.pace, int) else None
            async with watched.during(_named(trial, arm, number), at_most_s):
                await _block(trial, workload, arm, number, watched.heard)
            ahead -= 1
    if sum(len(block.answers) for arm in arms for block in arm.blocks) < total:
        progress.advance(0, "the time is up")
    for arm in arms:
        arm.after, arm.left = read_metrics(arm.server)
    rows = [block_figures(arm.blocks, trial.levels) for arm in arms]
    return {
        "servers": [_record(trial, arm, row) for arm, row in zip(arms, rows, strict=True)],
        "ratios": [
            {
                "server": arm.server.url,
                "over": arms[0].server.url,
                **ratios(row, rows[0], trial.seed),
                **tail_ratios(arm.blocks, arms[0].blocks, trial.seed),
            }
            for arm, row in zip(arms[1:], rows[1:], strict=True)
        ],
    }


async def _ready(trial: Trial, servers: Sequence[Server], progress: Progress) -> tuple[list[_Arm], Workload]:
    """Connect to all, find out how long made-up text must be (on the first), and warm all up."""
    progress.stage("warm-up", len(servers))
    arms, workload = [], trial.workload
    for server in servers:
        http = streaming_client(server)
        asker = await find_asker(server, http, workload, trial.timeout_s)
        if isinstance(workload, MadeUp) and workload.words is None:
            workload = await measured_words(workload, asker, http, trial.timeout_s)
        warm = await warm_up(asker, http, workload, trial.warm_up, trial.timeout_s)
        watch = BlockWatch(partial(http_client, server.root, trial.timeout_s, 1))
        arms.append(_Arm(server, http, asker, watch, warm))
        progress.advance()
    for arm in arms:
        arm.before, _ = read_metrics(arm.server)
    return arms, workload


def _named(trial: Trial, arm: _Arm, number: int) -> str:
    """The block, and whose it is, where there are several."""
    parts = [f"block {number + 1} of {trial.blocks}"] * (trial.blocks > 1)
    return ", ".join(parts + [arm.server.url] * (len(trial.urls) > 1))


async def _block(trial: Trial, workload: Workload, arm: _Arm, number: int, heard: Heard) -> None:
    requests = arm.asker.requests(workload.draw(*trial.share(number)))
    with arm.watch, meter_of(arm.server.root) as joules:
        if isinstance(trial.pace, int):
            block = await closed_loop(arm.http, requests, trial.pace, trial.block_seconds, trial.timeout_s, heard)
        else:
            block = await open_loop(arm.http, requests, trial.offsets(trial.pace, number), trial.timeout_s, heard)
    arm.blocks.append(block)
    arm.energy.append(joules)


def _record(trial: Trial, arm: _Arm, rows: list[dict[str, float | None]]) -> dict[str, Any]:
    figures = summary(arm.blocks, trial.levels)
    counted = difference(arm.before, arm.after)
    answers = [a for block in arm.blocks for a in block.answers]
    repeated = isinstance(trial.workload, Items) and len(trial.workload.asks) < len(answers)
    return {
        "date": datetime.now(UTC).strftime("%Y%m%d-%H%M%S"),
        "url": arm.server.url,
        "model_id": arm.server.model,
        "endpoint_type": "openai-chat" if trial.workload.draw(0, 1)[0].text is None else "openai",
        "num_prompts": len(answers),
        **_pace(trial.pace),
        "seed": trial.seed,
        "timeout_s": trial.timeout_s,
        "service_levels_ms": {"ttft": trial.levels.ttft_ms, "tpot": trial.levels.tpot_ms, "e2el": trial.levels.e2e_ms},
        **figures,
        "blocks": rows,
        "spread": spread(rows),
        "warm_up": _warm_up(arm.warm),
        "server_metrics": counted | asdict(cache_use(counted, arm.watch, arm.left)),
        "energy": _energy(arm.energy, figures["total_output_tokens"]),
        "notes": [*arm.asker.notes, *notes(figures, counted, repeated)],
        "requests": [
            {
                "outcome": a.streamed.outcome,
                "error": a.streamed.error,
                "input_tokens": a.streamed.prompt_tokens,
                "output_tokens": a.streamed.output_tokens,
                "send_lag_s": a.lag,
                "ttft_s": a.ttft,
                "e2el_s": a.e2e,
                "itl_s": a.gaps,
            }
            for a in answers
        ],
    }


def _pace(pace: Arrivals | int) -> dict[str, Any]:
    if isinstance(pace, int):
        return {"loop": "closed", "request_rate": "inf", "burstiness": None, "max_concurrency": pace}
    steady = pace.burstiness == float("inf")
    return {
        "loop": "open",
        "request_rate": pace.rate,
        "burstiness": "inf" if steady else pace.burstiness,
        "max_concurrency": None,
    }


def _warm_up(warm: Sequence[Streamed]) -> dict[str, Any]:
    done = [a for a in warm if a.outcome == "ok"]
    first = done[0].pieces[0] - done[0].sent if done and done[0].pieces else None
    return {"requests": len(warm), "completed": len(done), "first_ttft_ms": None if first is None else 1000 * first}


def _energy(spans: Sequence[Joules], tokens: int | None) -> dict[str, float | None]:
    parts: dict[str, float | None] = {}
    for name in ("cpu", "gpu"):
        told = [value for span in spans if (value := getattr(span, name)) is not None]
        parts[f"{name}_joules"] = sum(told) if told and len(told) == len(spans) else None
    known = [value for value in parts.values() if value is not None]
    return parts | {"joules_per_output_token": sum(known) / tokens if known and tokens else None}
