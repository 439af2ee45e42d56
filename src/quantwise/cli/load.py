"""``quantwise load URL ...``: latency and throughput of running servers under a load that you describe."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from quantwise.cli.arguments import duration, positive
from quantwise.core.errors import InputError
from quantwise.report.notation import UNKNOWN, decimal, plain, share

_EPILOG = """examples:
  quantwise load http://nas:8080 --rate 2 --slo ttft=500ms,tpot=50ms
  quantwise load http://nas:8080 --users 8 --items prompts.jsonl
  quantwise load http://nas:8080 http://nas:8081 --rate 4 --seconds 5m --json

An open loop (--rate) is for service levels, a closed one (--users) for
capacity. Latency counts from the time at which a request was due. Several
servers take turns in blocks; ratios are over the first.
"""
_METERS = (("cpu_joules", "processors"), ("gpu_joules", "GPUs"))
_ROWS = (("TTFT", "ttft"), ("TPOT", "tpot"), ("ITL", "itl"), ("E2E", "e2el"))


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line."""
    p = verbs.add_parser(
        "load",
        help="latency and throughput of running servers",
        description="Put a load on OpenAI-compatible servers; measure what users would see.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("urls", nargs="+", metavar="URL", help="http://HOST:PORT, or http://HOST:PORT#MODEL")
    pace = p.add_argument_group("load (one of --rate and --users)")
    pace.add_argument("--rate", type=float, metavar="R", help="open loop: R requests per second arrive, at random")
    pace.add_argument(
        "--burstiness", type=float, metavar="B",
        help="with --rate: 1 is Poisson (default), less comes in bursts, inf is a constant pace",
    )  # fmt: skip
    pace.add_argument("--users", type=positive, metavar="N", help="closed loop: N users, one request after the other")
    pace.add_argument("--requests", type=positive, default=300, metavar="N", help="at most, per server (default 300)")
    pace.add_argument(
        "--seconds", type=duration, default=60.0, metavar="TIME", help="at most, per server (default 60s)"
    )
    pace.add_argument(
        "--blocks", type=positive, metavar="N",
        help="runs that both bounds are shared among (default 1, or 10 where several servers take turns)",
    )  # fmt: skip
    asked = p.add_argument_group("what is asked")
    asked.add_argument("--items", metavar="FILE", help="JSON Lines with prompt or messages, or the name of a suite")
    asked.add_argument(
        "--input-tokens", type=positive, metavar="N", help="made-up text of N tokens or so (default 256)"
    )
    asked.add_argument("--output-tokens", type=positive, metavar="N", help="tokens of each answer (default 64)")
    asked.add_argument("--chat", action="store_true", help="send made-up text to the chat endpoint")
    p.add_argument(
        "--scenario", metavar="FILE", help="a scenario (.toml) with service_levels; --slo stands before them"
    )
    p.add_argument(
        "--slo", type=service_levels, metavar="LEVELS", default={},
        help="what a good request keeps, such as ttft=500ms,tpot=50ms,e2e=10s",
    )  # fmt: skip
    p.add_argument("--warm-up", type=int, default=8, metavar="N", help="requests beforehand that are not counted (8)")
    p.add_argument("--timeout", type=duration, default=60.0, metavar="TIME", help="of one request (default 60s)")
    p.add_argument("--seed", type=int, default=0, help="of arrivals and made-up text (default 0)")
    p.add_argument("--json", action="store_true", help="print the record, with the field names of vllm bench serve")
    p.add_argument("--detailed", action="store_true", help="with --json: every request")
    p.add_argument("--quiet", action="store_true", help="no progress")
    p.set_defaults(verb=run)


def service_levels(text: str) -> dict[str, float]:
    """``ttft=500ms,e2e=10s`` as milliseconds by name; vLLM's ``e2el`` is ``e2e``, a bare number is milliseconds."""
    found: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(ttft|tpot|e2el?)=(\d+(?:\.\d+)?)(ms|s|)", part.strip())
        name = match[1].removesuffix("l") if match else ""
        if not match or name in found or not 0 < float(match[2]) < 1e9:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of levels; write ttft=500ms,tpot=50ms,e2e=10s")
        found[name] = float(match[2]) * (1000 if match[3] == "s" else 1)
    return found


def run(arguments: argparse.Namespace) -> int:
    """Put the load on, print what was seen."""
    from quantwise.load.trial import run_trial
    from quantwise.report.progress import progress_on

    trial = _trial(arguments)
    try:
        with progress_on(sys.stderr, "silent" if arguments.quiet else "auto") as bar:
            record = run_trial(trial, bar)
    except KeyboardInterrupt:
        print("\nquantwise: stopped; nothing of a load that is not finished is kept", file=sys.stderr)
        return 130
    if not arguments.detailed:
        for server in record["servers"]:
            del server["requests"]
    if arguments.json:
        alone = len(record["servers"]) == 1
        print(json.dumps(record["servers"][0] if alone else record, indent=2, allow_nan=False))
    else:
        print("\n\n".join("\n".join(_server(s)) for s in record["servers"]))
        for line in _ratios(record):
            print(line)
    return 0


def _trial(arguments: argparse.Namespace) -> Any:
    from quantwise.load.arrivals import Arrivals
    from quantwise.load.latency import ServiceLevels
    from quantwise.load.trial import Trial
    from quantwise.load.workload import MadeUp, Workload, read_items

    if (arguments.rate is None) == (arguments.users is None):
        raise InputError("give one of --rate (requests per second, open loop) and --users (closed loop)")
    if arguments.users is not None and arguments.burstiness is not None:
        raise InputError("--burstiness is for --rate; leave it out with --users")
    if arguments.detailed and not arguments.json:
        raise InputError("--detailed adds every request to --json; give both, or neither")
    if arguments.warm_up < 0:
        raise InputError(f"--warm-up {arguments.warm_up} is negative; give 0 or more requests")
    workload: Workload
    if arguments.items is not None:
        if arguments.input_tokens is not None or arguments.chat:
            raise InputError("--input-tokens and --chat are for made-up text; leave them out with --items")
        workload = read_items(arguments.items, arguments.requests, arguments.seed, arguments.output_tokens)
    else:
        sizes = arguments.input_tokens or 256, arguments.output_tokens or 64
        workload = MadeUp(*sizes, seed=arguments.seed, chat=arguments.chat)
    levels = _levels(arguments)
    return Trial(
        urls=tuple(arguments.urls),
        pace=arguments.users or Arrivals(arguments.rate, 1.0 if arguments.burstiness is None else arguments.burstiness),
        workload=workload,
        requests=arguments.requests,
        seconds=arguments.seconds,
        blocks=arguments.blocks or (1 if len(arguments.urls) == 1 else min(10, arguments.requests)),
        warm_up=arguments.warm_up,
        timeout_s=arguments.timeout,
        seed=arguments.seed,
        levels=ServiceLevels(levels.get("ttft"), levels.get("tpot"), levels.get("e2e")),
    )


def _levels(arguments: argparse.Namespace) -> Mapping[str, float]:
    """Milliseconds by name: those of the scenario but for what --slo gives."""
    from quantwise.scenarios.reader import read_scenario

    if arguments.scenario is None:
        return dict(arguments.slo)
    scenario = read_scenario(arguments.scenario)
    if not scenario.service_levels:
        raise InputError(
            f"the scenario {scenario.name} has no service levels; add [service_levels] with ttft = 500 (milliseconds) "
            "to it, or give --slo alone"
        )
    return {**scenario.service_levels, **arguments.slo}


def _server(record: Mapping[str, Any]) -> Iterator[str]:
    """The block of lines of one server."""
    pace = f"{record['max_concurrency']} users"
    if record["loop"] == "open":
        pace = f"{record['request_rate']:g} requests/s, burstiness {float(record['burstiness']):g}"
    yield f"{plain(record['url'])}  {plain(record['model_id'])}"
    yield f"  {record['loop']} loop, {pace}; {record['completed']} answered, {record['failed']} failed"
    yield ""
    yield "  " + "".join(f"{head:>9}" for head in ("ms", "mean", "p50", "p95", "p99"))
    for title, name in _ROWS:
        keys = (f"{kind}_{name}_ms" for kind in ("mean", "median", "p95", "p99"))
        yield f"  {title:>9}" + "".join(f"{decimal(record[key], 1):>9}" for key in keys)
    yield ""
    for title, text in _lines(record):
        yield f"  {title:<11} {text}"
    for note in record["notes"]:
        yield f"  note: {plain(note)}"


def _lines(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    per_second = (("request_throughput", "requests/s"), ("output_throughput", "tokens/s out"))
    yield "throughput", ", ".join(f"{decimal(record[key])} {unit}" for key, unit in per_second)
    if record["request_goodput"] is not None:
        yield "goodput", f"{decimal(record['request_goodput'])} requests/s, {share(record['good_share'])} of all"
    phases = (("prefill", "prefill_tokens_per_s"), ("decode", "decode_tokens_per_s"))
    yield "one request", ", ".join(f"{word} {decimal(record[key], 1)} tokens/s" for word, key in phases)
    tails = ", ".join(f"{word} {decimal(record[f'p99_over_p50_{name}'])}" for word, name in (_ROWS[0], _ROWS[3]))
    yield "tails", f"p99 over p50: {tails}"
    spread = ", ".join(f"{word} {share(record['spread'][f'cv_mean_{name}_ms'])}" for word, name in (_ROWS[0], _ROWS[3]))
    yield "blocks", f"{len(record['blocks'])}; spread of their means: {spread}"
    metrics = record["server_metrics"]
    hits, preempted = share(metrics["prefix_cache_hit_rate"]), decimal(metrics["preemptions"], 0)
    used, of = decimal(metrics["most_blocks_seen"], 0), decimal(metrics["blocks"], 0)
    yield "server says", f"prefix cache hits {hits}, preemptions {preempted}"
    if metrics["blocks"] is not None:
        yield "", f"at most {used} of {of} cache blocks used"
    energy = record["energy"]
    joules = energy["joules_per_output_token"]
    parts = " and ".join(word for key, word in _METERS if energy[key] is not None)
    yield "energy", UNKNOWN if joules is None else f"{decimal(joules)} J per output token, of {parts}"
    lag = record["generator_lag"]
    late, most = decimal(lag["mean_send_ms"], 1), decimal(lag["max_send_ms"], 1)
    yield "generator", f"sent {late} ms late on average, {most} ms at most"


def _ratios(record: Mapping[str, Any]) -> Iterator[str]:
    for row in record["ratios"]:
        yield f"\n{plain(row['server'])} over {plain(row['over'])} (95 % intervals)"
        for term, found in row.items():
            if term not in ("server", "over"):
                told = UNKNOWN if found is None else f"{found['ratio']:.3f}"
                bounds = "" if found is None else f"  [{decimal(found['low'], 3)}, {decimal(found['high'], 3)}]"
                yield f"  {term:<20} {told}{bounds}"
