"""Speed where part of a model lies in the host's memory: layers left on the processor, or the experts of a mixture.

What lies away is read from the host's memory and multiplied by its processor (llama.cpp with ``-ngl`` or
``--n-cpu-moe``), so its time adds to the device's. A prompt may instead have the weights copied over the bus and
multiplied on the device, which llama.cpp does from 32 tokens on (ggml/src/ggml-cuda: ``op_offload``): the shorter of
the two is taken. Hidden states cross the bus where the work changes sides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantwise.plan.speed import Interval, ServedDecoder, Speed, flips_at, speed, without_times
from quantwise.plan.work import Work
from quantwise.scenarios.site import Site

# Hidden states cross in 32 bit.
_STATE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Away:
    """What lies with the host: ``stored`` in bytes and ``work`` in weights, as parts of what is served; the caches of
    the last ``layers`` layers; and how often a token's hidden state crosses the bus (twice a layer for experts, once
    for a run of layers)."""

    stored: Work
    work: Work
    layers: int
    crossings: int


def away_layers(served: ServedDecoder, layers: int) -> Away:
    """The last ``layers`` layers with the host, each taken to be as large as the others."""
    share = layers / max(1, len(served.decoder.layers))
    dense = served.stored.dense - _output(served, served.stored), served.work.dense - _output(served, served.work)
    stored = Work(round(share * dense[0]), round(share * served.stored.expert), served.stored.used, 0)
    work = Work(round(share * dense[1]), round(share * served.work.expert), served.work.used, 0)
    return Away(stored, work, layers, 1 if layers else 0)


def away_experts(served: ServedDecoder) -> Away:
    """All experts with the host, everything else on the device."""
    mixtures = sum(layer.experts > 0 for layer in served.decoder.layers)
    stored = Work(0, served.stored.expert, served.stored.used, 0)
    return Away(stored, Work(0, served.work.expert, served.work.used, 0), 0, 2 * mixtures)


def away_part(served: ServedDecoder, layers: int, mixtures: int) -> Away:
    """Some layers with the host, and the experts of ``mixtures`` of the others, each taken to be as large."""
    whole, experts = away_layers(served, layers), away_experts(served)
    share = mixtures / max(1, sum(layer.experts > 0 for layer in served.decoder.layers))

    def of(some: Work, these: Work, all_: Work) -> Work:
        return replace(some, expert=min(all_.expert, some.expert + round(share * these.expert)))

    return Away(
        of(whole.stored, experts.stored, served.stored),
        of(whole.work, experts.work, served.work),
        layers,
        whole.crossings + 2 * mixtures,
    )


def offload_speed(
    site: Site, host: Site, served: ServedDecoder, away: Away, batch: int = 1, prompt: int = 512
) -> Speed:
    """Speed of a decoder of which ``away`` lies with ``host``; unknown where a bandwidth, or the bus, is.

    Where memory is shared (Apple's), nothing lies away: the plain roofline, and a note.
    """
    if site.kind == "unified":
        plain = speed(site, served, batch, prompt)
        return replace(plain, notes=(*plain.notes, f"memory of {site.name} is shared: leave no layer to the processor"))
    near = len(served.decoder.layers) - away.layers
    here = _part(served, _less(served.stored, away.stored), _less(served.work, away.work), slice(0, near))
    there = replace(_part(served, away.stored, away.work, slice(near, None)), output=0)
    device, processor = speed(site, here, batch, prompt), speed(host, there, batch, prompt)
    notes = (*device.notes, *(f"on the host: {note}" for note in processor.notes))
    if away.crossings and site.bus is None:
        return without_times(replace(device, notes=notes), f"the bus of {site.name} is unknown")
    state = _STATE_BYTES * served.decoder.hidden * away.crossings / (site.bus or 1)
    decode = _sum(device.decode_seconds, processor.decode_seconds, state * batch)
    copied = _copied(site, served, there, prompt)
    by_host = processor.prefill_seconds
    shorter = by_host if copied is None or (by_host is not None and by_host[1] <= copied[1]) else copied
    prefill = _sum(device.prefill_seconds, shorter, state * prompt)
    return replace(
        device,
        decode_seconds=decode,
        decode_per_request=_over(1, decode),
        decode_total=_over(batch, decode),
        prefill_seconds=prefill,
        prefill=_over(prompt, prefill),
        bound=device.bound if _longer(device, processor) else f"{processor.bound} on the host",
        flips_at=flips_at(site, served) if not away.stored.total else None,
        notes=notes,
    )


def _output(served: ServedDecoder, work: Work) -> int:
    """The output matrix's part of the dense weights, which stays on the device."""
    return min(work.dense, round(work.total * served.decoder.vocab * served.decoder.hidden / max(1, served.work.total)))


def _less(whole: Work, part: Work) -> Work:
    return replace(whole, dense=whole.dense - part.dense, expert=whole.expert - part.expert)


def _part(served: ServedDecoder, stored: Work, work: Work, layers: slice) -> ServedDecoder:
    decoder = replace(served.decoder, layers=served.decoder.layers[layers])
    return replace(served, decoder=decoder, stored=stored, work=work)


def _copied(site: Site, served: ServedDecoder, there: ServedDecoder, prompt: int) -> Interval | None:
    """Seconds of a prompt's part that is copied over the bus and multiplied on the device."""
    if site.bus is None:
        return None
    seconds = speed(site, there, 1, prompt).prefill_seconds
    copy = (there.stored.dense + there.stored.expert) / site.bus
    return None if seconds is None else (seconds[0] + copy, seconds[1] + copy)


def _sum(one: Interval | None, other: Interval | None, more: float) -> Interval | None:
    return None if one is None or other is None else (one[0] + other[0] + more, one[1] + other[1] + more)


def _longer(one: Speed, other: Speed) -> bool:
    return one.decode_seconds is None or other.decode_seconds is None or one.decode_seconds >= other.decode_seconds


def _over(amount: float, seconds: Interval | None) -> Interval | None:
    return None if seconds is None else (amount / seconds[1], amount / seconds[0])
