"""What was measured of a machine, and how fast llama.cpp decodes on its processor by that.

Decoding a token takes, one after another (ggml computes node by node),

- each matrix: its bytes at the rate of its type's kernel, which differs between matrices that stay in the cache and
  such as come from memory every time. One token goes round all matrices in turn, so where they exceed the cache none
  stays in it;
- attention: for each query head and token so much, for each number of its key and value so much, and for each byte
  of the cache that comes from memory;
- a fixed time for each node of the graph, in which threads wait for each other;
- a fixed time for each token: sampling over the vocabulary, and the server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quantwise.core.cache_scheme import keys_and_values
from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.speed import Interval
from quantwise.plan.work import attention_operations, cache_numbers, head_tokens, share_read
from quantwise.scenarios.site import RATE_TYPES, Site

# Nodes of llama.cpp's graph that compute (views and reshapes do not), a dense layer and a token; src/models/llama.cpp,
# 2026: norm, q, k, v, two rotations, two stores, attention, output, sum, norm, gate, up, their product, down, sum, and
# two norms' weights. A mixture's router and choice add about as many again.
NODES_PER_LAYER = 19
NODES_PER_MIXTURE = 14
NODES_PER_TOKEN = 5
# Seconds a token beside the graph: server and sampling, and for each entry of the vocabulary. Fitted to xllamacpp
# 2026.10 with top_k 1 (benchmarks/plan_speed.py).
TOKEN_SECONDS = 0.2e-3
VOCABULARY_SECONDS = 2e-9
# What benchmarks/plan_speed.py is to show of this model at its worst, and how much of the cache neighbours may take.
ERROR = 0.25
_CACHE = 2.0


@dataclass(frozen=True, slots=True)
class Kernel:
    """One ggml type: bytes of weights per second for one vector, with matrices ``cached`` and ``streamed`` from memory,
    and operations per second where many vectors are multiplied at once."""

    cached: float
    streamed: float
    prompt: float


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """One type of the cache, in seconds: for each query ``head`` and token that it sees, for each ``number`` of that
    token's key and value, and beside that for each ``byte`` of them that comes from memory."""

    head: float
    number: float
    byte: float


@dataclass(frozen=True, slots=True)
class MachineRates:
    """A measured machine. Rates are of ``threads`` threads together.

    ``bandwidth`` is in bytes per second, ``rates`` in operations per second by number type. ``kernels`` (by ggml type),
    ``cached`` (pairs, rising: bytes that are gone round, share of them found in the cache), ``attention`` (by cache
    type) and ``node_seconds`` are those of an installed llama.cpp: empty and None without it. ``measured`` is a date,
    ``waiting`` what ``waiting_now`` was then, None where a record does not say.
    """

    cpu: str
    threads: int
    measured: str
    bandwidth: float
    rates: Mapping[str, float]
    kernels: Mapping[str, Kernel]
    cached: tuple[tuple[float, float], ...] = ()
    attention: Mapping[str, AttentionKernel] = field(default_factory=dict)
    node_seconds: float | None = None
    library: str | None = None
    waiting: str | None = None

    def site(self, memory_bytes: int | None = None) -> Site:
        """The machine as a site of the roofline."""
        source = f"measured here, {self.measured}"
        return Site(
            name="this machine",
            memory_bytes=memory_bytes,
            kind="cpu",
            bandwidth=self.bandwidth,
            rates={name: rate for name, rate in self.rates.items() if name in RATE_TYPES},
            lacks=("fp8", "fp4", "int4"),
            source=source,
        )

    def outdated(self) -> str | None:
        """Why several threads may not be as fast now as they were measured, in one line; None where they are."""
        now = waiting_now()
        if self.threads == 1 or self.waiting == now:
            return None
        again = "measure again with --measure-machine"
        if self.waiting is None:
            return f"how threads waited (OMP_WAIT_POLICY) when this machine was measured is not known; {again}"
        then, now = self.waiting or "unset", now or "unset"
        return f"this machine was measured with OMP_WAIT_POLICY {then}, and it is {now} now; {again}"

    def to_json(self) -> dict[str, Any]:
        """A record that ``read_rates`` reads back."""
        return asdict(self)


def waiting_now() -> str:
    """How threads of OpenMP wait for each other here, which decides how fast several are: OMP_WAIT_POLICY, "" unset."""
    return os.environ.get("OMP_WAIT_POLICY", "").strip().upper()


def rates_of(record: Mapping[str, Any]) -> MachineRates:
    """From a record of ``to_json``. Raises InputError where it is none."""
    try:
        kernels = {str(name): Kernel(**_numbers(kernel)) for name, kernel in record["kernels"].items()}
        cached = tuple((float(size), float(share)) for size, share in record["cached"])
        attention = {str(kind): AttentionKernel(**_numbers(kernel, 0)) for kind, kernel in record["attention"].items()}
        parts = {**record, "rates": _numbers(record["rates"]), "kernels": kernels, "cached": cached}
        parts["attention"] = attention
        parts["bandwidth"] = _numbers({"bandwidth": record["bandwidth"]})["bandwidth"]
        return MachineRates(**parts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"no measurement of a machine ({error}); measure again with --measure-machine") from error


def rates_path() -> Path:
    """Where a measurement is kept: ``quantwise/machine.json`` in the user's cache folder (XDG_CACHE_HOME)."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "quantwise" / "machine.json"


def read_rates(path: Path) -> MachineRates | None:
    """What was measured before, or None where nothing was. Raises InputError where the file is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); measure again with --measure-machine") from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is no measurement of a machine; measure again with --measure-machine")
    return rates_of(record)


def read_by_type(decoder: Decoder, tensors: Iterable[tuple[str, str, int]]) -> dict[str, float]:
    """Bytes of each ggml type that one token reads; tensors are (name, type, bytes), as a GGUF header lists them."""
    found: dict[str, float] = {}
    for name, kind, size in tensors:
        share = share_read(decoder, name)
        if share and len(decoder.tensors.get(name, ())) > 1:
            found[kind] = found.get(kind, 0.0) + share * size
    return found


@dataclass(frozen=True, slots=True)
class DecodeTime:
    """Seconds of one token by part. ``interval`` holds their sum within the error that the model has shown, and with a
    cache of half or twice the size: neighbours take part of it, and whether a model just fits decides much."""

    matrices: float
    attention: float
    nodes: float
    token: float
    interval: Interval
    source: str

    @property
    def seconds(self) -> float:
        """All parts together."""
        return self.matrices + self.attention + self.nodes + self.token


def decode_time(
    machine: MachineRates, decoder: Decoder, by_type: Mapping[str, float], context: int, cache: str = "f16"
) -> DecodeTime | None:
    """Time of one token of one request after ``context`` tokens in llama.cpp on the measured processor.

    ``by_type`` as ``read_by_type`` gives it; ``cache`` is the type of keys and values, or both with a slash between.
    None where no llama.cpp, or not this type of cache, was measured.
    """
    halves = [machine.attention.get(kind) for kind in keys_and_values(cache)]
    if machine.node_seconds is None or not machine.kernels or None in halves:
        return None
    kept = cache_numbers(decoder, context) * sum(BITS[kind] for kind in keys_and_values(cache)) / 16
    round_trip = sum(by_type.values()) + kept
    fewer, matrices, more = (
        sum(size / _rate(machine, kind, round_trip * factor) for kind, size in by_type.items())
        for factor in (1 / _CACHE, 1.0, _CACHE)
    )
    layers = sum(NODES_PER_LAYER + (NODES_PER_MIXTURE if layer.experts else 0) for layer in decoder.layers)
    seen = head_tokens(decoder, context)
    numbers, missed = attention_operations(decoder, context) / 2, (1 - found_in_cache(machine, round_trip)) * kept
    attention = sum(seen * k.head + numbers * k.number + missed * k.byte for k in halves if k is not None) / 2
    nodes = (layers + NODES_PER_TOKEN) * machine.node_seconds
    token = TOKEN_SECONDS + VOCABULARY_SECONDS * decoder.vocab
    rest = attention + nodes + token
    return DecodeTime(
        matrices=matrices,
        attention=attention,
        nodes=nodes,
        token=token,
        interval=((fewer + rest) * (1 - ERROR), (more + rest) * (1 + ERROR)),
        source=f"{machine.library or 'llama.cpp'} measured on {machine.cpu}, {machine.measured}",
    )


def _half(machine: MachineRates) -> Kernel:
    return machine.kernels.get("f16") or next(iter(machine.kernels.values()))


# Bits of one weight, scales included (ggml/src/ggml-common.h). A type that was not measured is taken to be as fast,
# byte for byte, as the measured one that is nearest in bits.
BITS: Mapping[str, float] = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q6_k": 6.5625, "q5_1": 6, "q5_0": 5.5, "q5_k": 5.5, "q4_1": 5,
    "q4_0": 4.5, "q4_k": 4.5, "iq4_nl": 4.5, "iq4_xs": 4.25, "mxfp4": 4.25, "q3_k": 3.4375, "iq3_s": 3.4375,
    "iq3_xxs": 3.0625, "q2_k": 2.625, "iq2_s": 2.5625, "iq2_xs": 2.3125, "iq2_xxs": 2.0625, "tq2_0": 2.0625,
    "iq1_m": 1.75, "tq1_0": 1.6875, "iq1_s": 1.5625,
}  # fmt: skip


def _nearest(machine: MachineRates, kind: str) -> Kernel:
    if kind in machine.kernels:
        return machine.kernels[kind]
    bits = BITS.get(kind, 8.0)
    return machine.kernels[min(machine.kernels, key=lambda name: abs(BITS.get(name, 8.0) - bits))]


def _rate(machine: MachineRates, kind: str, round_trip: float) -> float:
    """Bytes per second of a kernel whose weights come round again after ``round_trip`` bytes."""
    kernel, found = _nearest(machine, kind), found_in_cache(machine, round_trip)
    return 1 / (found / kernel.cached + (1 - found) / kernel.streamed)


def found_in_cache(machine: MachineRates, round_trip: float) -> float:
    """The share of reads that the cache serves, by lines between what was measured."""
    if not machine.cached:
        return 0.0
    below = (0.0, machine.cached[0][1])
    for size, share in machine.cached:
        if round_trip <= size:
            return below[1] + (share - below[1]) * (round_trip - below[0]) / (size - below[0])
        below = (size, share)
    return below[1]


def _numbers(given: Mapping[str, Any], least: float = 1e-15) -> dict[str, float]:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
            raise ValueError(f"{name} is {value!r:.40}")
    return {str(name): float(value) for name, value in given.items()}
