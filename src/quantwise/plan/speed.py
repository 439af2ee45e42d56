"""The roofline: how long a prompt and a token must take at a site, from what is computed and what is read.

A step takes the longer of two times (Williams et al., "Roofline", CACM 2009): its operations over the rate of the
matrix units, and its bytes over the bandwidth. Decoding one request reads every active weight for one token, so bytes
bind; a prompt of a few hundred tokens, or a batch of as many requests, multiplies each weight that often, so operations
bind. Fewer bits shrink the bytes always, the operations' time only where the hardware multiplies the small type.

Peaks are not reached; ``SHARES`` says what part of them is, as intervals with their source, so every time is one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from quantwise.core.scheme import Scheme
from quantwise.models.decoder import Decoder
from quantwise.plan.work import Work, attention_operations, cache_numbers
from quantwise.scenarios.site import Site

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a peak that kernels reach, from the worst to the best that were seen, and where."""

    low: float
    high: float
    source: str


_PR = "llama.cpp pull request 4766 (2024-01), 7B on an RTX 4090"
_POPE = "Pope et al. (arXiv 2211.05102): 0.76 in a prompt"
# Prompts of Llama-3.1-8B in vLLM 0.13 (docs, workflows/inference, 2026), as two operations a weight and token.
_TORCHAO = "torchao: prompts reach"
SHARES: Mapping[str, Share] = {
    "bandwidth": Share(0.55, 0.85, f"{_PR}: 61.0/s of 12.55 GiB are 0.82; exllama in 4 bit: 0.59; aiconfigurator: 0.8"),
    "cpu bandwidth": Share(0.5, 0.9, "torch's kernels of 16, 8, 4 bit on two cores: 0.57 to 0.87 of a read"),
    "16 bit": Share(0.4, 0.88, f"{_PR}: a prompt at 11,048 tokens/s, 0.88 with 32-bit sums, 0.44 with 16-bit"),
    "8 bit": Share(0.15, 0.75, f"{_PR}: q8_0 is 0.15; {_TORCHAO} 0.37 in FP8 on an H100, 0.25 on a B200; {_POPE}"),
    "4 bit": Share(0.15, 0.75, f"taken to be as 8 bit; {_TORCHAO} 0.18 in NVFP4 on a B200"),
}  # fmt: skip
_SHARE_OF = {"fp32": "16 bit", "fp16": "16 bit", "bf16": "16 bit", "fp8": "8 bit", "int8": "8 bit"}
# What a type is expanded to where the hardware does not multiply it, first choice first.
_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "fp4": ("bf16", "fp16", "fp32"),
    "int4": ("bf16", "fp16", "fp32"),
}
# Nobody serves more requests at once than this; beyond it a bound that has not flipped is said never to.
_MOST_REQUESTS = 1 << 16


@dataclass(frozen=True, slots=True)
class ServedDecoder:
    """A decoder as it is stored and used: ``stored`` in bytes, ``work`` in weights.

    ``cache_bytes`` are those of one number of the cache (2 in 16 bit). ``multiplied`` is the type that weights and
    inputs are meant to be multiplied in; ``context`` how many tokens stand before the one that is computed. ``output``
    counts the weights of the output matrix in it (None: vocabulary times hidden), which only a last token needs.
    """

    decoder: Decoder
    work: Work
    stored: Work
    multiplied: str
    context: int
    cache_bytes: float = 2.0
    output: int | None = None


def multiplied_in(scheme: Scheme, runtime: str, site: Site) -> str:
    """The number type that a runtime multiplies in, before asking whether the hardware has it.

    Weights alone in few bits are expanded to 16 bit first (GPTQ, AWQ, NF4 kernels). For its quantized types ggml rounds
    inputs to blocks of int8 on processors and CUDA, and expands weights to 16 bit on Metal (ggml/src: ggml-cpu,
    ggml-cuda/mmq.cu, ggml-metal).
    """
    if scheme.kind == "ggml":
        return "fp16" if site.kind == "unified" else "int8"
    if scheme.kind == "llm-int8" or (scheme.activations or "").startswith("int8"):
        return "int8"
    if (scheme.activations or "").startswith("fp8"):
        return "fp8"
    if runtime == "llamacpp":
        # f16 weights are widened, four or eight at a time, by processors without 16-bit arithmetic (AVX2).
        return "fp32" if site.kind == "cpu" else "fp16"
    return "bf16"


@dataclass(frozen=True, slots=True)
class Computed:
    """The type that is multiplied in in fact, its dense rate (None: unknown), and what to tell where it is another."""

    type: str
    rate: float | None
    note: str | None = None


def computed(site: Site, wanted: str) -> Computed:
    """What ``site`` multiplies in when it is asked for ``wanted``."""
    if wanted not in site.lacks:
        return Computed(wanted, site.rates.get(wanted))
    for other in _INSTEAD[wanted]:
        if other not in site.lacks:
            note = (
                f"{site.name} does not multiply {wanted}: it is expanded to {other}: fewer bytes, no fewer operations"
            )
            return Computed(other, site.rates.get(other), note)
    return Computed(wanted, None, f"{site.name} multiplies neither {wanted} nor what it could be expanded to")


@dataclass(frozen=True, slots=True)
class Speed:
    """Intervals from the slowest to the fastest that is likely; None is unknown. Seconds are of one step.

    ``decode_per_request`` and ``decode_total`` are tokens per second with ``batch`` requests, ``prefill`` prompt tokens
    per second. ``bound`` is what binds decoding there, ``flips_at`` the number of requests from which operations bind
    (None: not below 65,536, or unknown). ``notes`` say what a reader would get wrong.
    """

    batch: int
    decode_seconds: Interval | None
    decode_per_request: Interval | None
    decode_total: Interval | None
    prefill_seconds: Interval | None
    prefill: Interval | None
    bound: str
    prefill_bound: str
    flips_at: int | None
    multiplied: str
    notes: tuple[str, ...] = ()


def speed(site: Site, served: ServedDecoder, batch: int = 1, prompt: int = 512, *, extra_seconds: float = 0.0) -> Speed:
    """Decoding with ``batch`` requests of ``served.context`` tokens each, and a prompt of ``prompt`` tokens by itself.

    ``extra_seconds`` are added to each step: what crosses a bus or a link, or is computed elsewhere.
    """
    how = computed(site, served.multiplied)
    decode, bound = _step(site, how, decode_bytes(served, batch), decode_operations(served, batch))
    prefill, prefill_bound = _step(site, how, prefill_bytes(served, prompt), prefill_operations(served, prompt))
    notes = [how.note] if how.note else []
    if how.rate is None and how.note is None:
        notes.append(
            f"the rate of {how.type} at {site.name} is unknown, so is a prompt's time; --measure-machine tells it there"
        )
    decode = _plus(decode, extra_seconds)
    prefill = _plus(prefill, extra_seconds)
    return Speed(
        batch=batch,
        decode_seconds=decode,
        decode_per_request=_over(1, decode),
        decode_total=_over(batch, decode),
        prefill_seconds=prefill,
        prefill=_over(prompt, prefill),
        bound=bound,
        prefill_bound=prefill_bound,
        flips_at=flips_at(site, served),
        multiplied=how.type,
        notes=tuple(notes),
    )


def without_times(found: Speed, *notes: str) -> Speed:
    """The same where something that a time needs is unknown; ``notes`` say what."""
    return replace(
        found,
        decode_seconds=None,
        decode_per_request=None,
        decode_total=None,
        prefill_seconds=None,
        prefill=None,
        bound="unknown",
        flips_at=None,
        notes=(*found.notes, *notes),
    )


def decode_bytes(served: ServedDecoder, batch: int) -> float:
    """Bytes that one step reads: weights once, experts as far as ``batch`` requests touch them, the cache of each."""
    stored = served.stored
    cache = served.cache_bytes * cache_numbers(served.decoder, served.context)
    return stored.dense + stored.touched(batch) * stored.expert + batch * cache


def decode_operations(served: ServedDecoder, batch: int) -> float:
    """Operations of one step of ``batch`` requests."""
    return batch * (2.0 * served.work.active + attention_operations(served.decoder, served.context))


def prefill_bytes(served: ServedDecoder, prompt: int) -> float:
    """Bytes that a prompt of so many tokens reads where all of them are computed at once; its cache is written."""
    stored = served.stored
    cache = served.cache_bytes * cache_numbers(served.decoder, prompt)
    return stored.dense + stored.touched(prompt) * stored.expert + cache


def prefill_operations(served: ServedDecoder, prompt: int) -> float:
    """Operations of a prompt; each token sees half of it on average, and only the last one needs the output matrix."""
    output = served.decoder.vocab * served.decoder.hidden if served.output is None else served.output
    hidden = max(0, served.work.active - output)
    seen = attention_operations(served.decoder, max(1, prompt // 2), absorbed=False)
    return prompt * (2.0 * hidden + seen) + 2.0 * output


def flips_at(site: Site, served: ServedDecoder) -> int | None:
    """The least number of requests at which operations take longer than bytes, at the peaks of both."""
    rate = computed(site, served.multiplied).rate
    if rate is None or site.bandwidth is None:
        return None

    def by_operations(batch: int) -> bool:
        return decode_operations(served, batch) / rate >= decode_bytes(served, batch) / (site.bandwidth or 1)

    if not by_operations(_MOST_REQUESTS):
        return None
    low, high = 1, _MOST_REQUESTS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if by_operations(middle) else (middle + 1, high)
    return low


def fewer_bits(small: Speed, large: Speed) -> tuple[str, ...]:
    """What a smaller type gains over a larger one at the same site and batch, in sentences that claim no more."""
    told = []
    if small.decode_seconds and large.decode_seconds:
        gain = large.decode_seconds[0] / small.decode_seconds[0]
        told.append(
            f"decoding may be up to {gain:.1f} times as fast: bytes bind"
            if gain > 1.05
            else f"decoding is no faster at batch {small.batch}: {small.bound} bind"
        )
    if small.multiplied == large.multiplied:
        told.append(f"a prompt is no faster: both are multiplied in {small.multiplied}")
    elif small.prefill_seconds and large.prefill_seconds:
        gain = large.prefill_seconds[0] / small.prefill_seconds[0]
        told.append(f"a prompt may be up to {gain:.1f} times as fast: {small.multiplied} against {large.multiplied}")
    return tuple(told)


def _step(site: Site, how: Computed, amount: float, operations: float) -> tuple[Interval | None, str]:
    """Seconds of one step and what binds it: ``bytes``, ``operations`` or ``unknown``."""
    if site.bandwidth is None:
        return None, "unknown"
    reads = _at(amount / site.bandwidth, SHARES["cpu bandwidth" if site.kind == "cpu" else "bandwidth"])
    if how.rate is None:
        # A step of few tokens is bound by bytes wherever we know both; of many it is not.
        return (reads, "bytes") if operations <= _SURELY_BYTES * amount else (None, "unknown")
    share = SHARES[_SHARE_OF.get(how.type, "4 bit")]
    computes = _at(operations / how.rate, share)
    bound = "operations" if operations / how.rate > amount / site.bandwidth else "bytes"
    return (max(reads[0], computes[0]), max(reads[1], computes[1])), bound


# Operations a byte below which bytes bind on all sites whose rates are known (the least: 13.8, an EPYC in fp32).
_SURELY_BYTES = 12.0


def _at(seconds: float, share: Share) -> Interval:
    return seconds / share.high, seconds / share.low


def _plus(seconds: Interval | None, more: float) -> Interval | None:
    return None if seconds is None else (seconds[0] + more, seconds[1] + more)


def _over(amount: float, seconds: Interval | None) -> Interval | None:
    return None if seconds is None or seconds[0] <= 0 else (amount / seconds[1], amount / seconds[0])
