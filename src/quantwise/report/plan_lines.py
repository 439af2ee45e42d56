"""Lines and a table of a plan's screen that only some plans have; lines as (label, text)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from quantwise.report import notation


def devices(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How several GPUs share the model."""
    found = record["devices"]
    if found is None:
        return
    stages = found["stages"]
    told = [f"{found['count']} of {record['site']}"]
    if found["tensor_parallel"] > 1:
        heads = found["kv_heads"]
        keeps = "each with the whole latent cache"
        if heads is not None:
            keeps = f"{heads} key-value head{'' if heads == 1 else 's'} each"
        told.append(f"{found['tensor_parallel']} share every layer, {keeps}")
    if len(stages) > 1:
        parts = [f"{stage['layers']} layers {notation.size(stage['total_bytes'][1])}" for stage in stages]
        told.append(" then ".join(parts))
    messages = found["messages_per_token"]
    told.append(
        f"a token sends {notation.size(found['link_bytes_per_token'])} over a link and waits for {messages} "
        f"message{'' if messages == 1 else 's'}"
    )
    yield "devices", "; ".join(told) + "; sizes above are of the fullest one"


def offload(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What lies with the host, or, where a model does not fit whole, how much of it may be on the GPU."""
    host = record["host"]
    if host is not None:
        parts = [f"{host['layers']} layers"] if host["layers"] else []
        parts += [f"the experts of {host['layers_of_experts']} layers"] if host["layers_of_experts"] else []
        yield (
            "offload",
            f"{' and '.join(parts) or 'no layer'} with {host['name'] or 'the host'}, "
            f"{notation.size(host['bytes'][1])} there; "
            f"{notation.size(record['bus_bytes_per_token'])} over the bus for a token",
        )
    told, flags = [], []
    for row in record["candidates"]:
        if (most := row["most_on_gpu"]) is not None:
            ways = []
            if most["gpu_layers"]:
                ways.append(f"{most['gpu_layers']} of {most['of']}")
                flags.append("--gpu-layers N")
            if most["experts_on_cpu"]:
                ways.append(f"all, with --experts-on-cpu {most['experts_on_cpu']}")
                flags.append("--experts-on-cpu N")
            told.append(f"{row['scheme']} {' or '.join(ways)}")
    if told:
        named = "" if host is not None else " --host S"
        how = " or ".join(dict.fromkeys(flags))
        yield "most -ngl", f"{'; '.join(told)} layers fit on the GPU; {how}{named} tells how fast that is"


def failure(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a plan that does not fit would end in, and where its fixes stand."""
    if (found := record["failure"]) is not None:
        yield "failure", f"{found['case']}: quantwise advise --failure {found['name']}"


def layouts(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A trace by the layouts of the cache, as a small table."""
    found = record["layouts"]
    if found is None:
        return
    drawn = "drawn" if found["trace"] == "drawn" else f"of {notation.shorten(found['trace'], 30)}"
    yield Text(
        f"{notation.count(found['requests'])} requests {drawn} in {found['seconds']:,.0f} s, prompts of "
        f"{found['mean_prompt']:,.0f} and answers of {found['mean_output']:,.0f} tokens, a cache of "
        f"{notation.count(found['pool_tokens'])} tokens:",
        style="dim",
    )
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("layout", ">tokens in use", ">reserved in vain", ">preempted", ">wait, median", ">95 of 100 wait"):
        table.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left", no_wrap=True)
    for row in found["rows"]:
        table.add_row(
            row["layout"],
            notation.share(row["utilization"], 1),
            notation.share(row["waste"], 1),
            notation.share(row["preemptions_per_request"], 1),
            _seconds(row["wait_p50_s"]),
            _seconds(row["wait_p95_s"]),
        )
    yield table


def cost(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Rent and energy of tokens, with devices that are never idle."""
    found, count = record["cost"], record["requests_at_a_time"]
    dollars, prompt, joules = (
        found[name]
        for name in (
            "decode_dollars_per_million_tokens",
            "prompt_dollars_per_million_tokens",
            "decode_joules_per_token",
        )
    )
    if record["decode_tokens_per_s"] is None:
        yield "cost", "unknown, as the speed is"
    elif dollars is None and joules is None:
        yield "cost", "unknown: the site says neither price_per_hour nor watts"
    else:
        rent = (
            "a price is unknown: the site says no price_per_hour"
            if dollars is None
            else f"a million tokens {_money(dollars)}, of a prompt {_money(prompt)}"
        )
        energy = (
            "energy is unknown: the site says no watts" if joules is None else f"a token at most {interval(joules)} J"
        )
        yield "cost", f"{rent}; {energy} (busy with {count} request{'' if count == 1 else 's'} at a time)"


def interval(given: Sequence[float]) -> str:
    """Two numbers as one word; small ones keep two digits, so that none reads as nothing."""
    low, high = (
        f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}" for value in given
    )
    return low if low == high else f"{low}–{high}"


def _money(given: Sequence[float] | None) -> str:
    if given is None:
        return "unknown"
    return f"${'–'.join(f'{dollars:.2f}' if dollars >= 0.1 else f'{dollars:.2g}' for dollars in given)}"


def _seconds(amount: float | None) -> str:
    return notation.UNKNOWN if amount is None else f"{amount:,.2f} s"
