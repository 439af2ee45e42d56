"""Times of this machine, in a process of its own: ``python -m quantwise.plan.probe PART SECONDS THREADS``.

Parts: ``memory`` (numpy), ``matrix`` (numpy, and torch where it is installed), ``kernels`` and ``attention`` (ggml,
where llama.cpp is).
Prints one JSON object. ``memory`` and ``matrix`` are peaks: steps are short, many, and the time of a step is its 5th
percentile, what the machine does when nobody is in the way. ``kernels`` and ``attention`` are to add up to a token,
which takes what all of its steps take, slow ones too: they are timed in turns as long as a token (``run_times``).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from quantwise.core.errors import EnvironmentFailure

UNDISTURBED = 5.0  # percentile
_MIB = 1 << 20
# Types that files are full of; what is not here is taken from its neighbour in bits.
TYPES = ("f16", "q8_0", "q4_0", "q4_k", "q5_k", "q6_k", "q3_k")
_ROWS = _COLUMNS = 1024
# Working sets that the size of the cache is looked for in, and the one that surely exceeds it.
_SETS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LARGEST = 192
_ROUNDS = 3
_EACH = 2  # products of one graph
# Types of the cache, and how many MiB of it surely come from memory.
CACHES = ("f16", "q8_0", "q4_0")
_PAST_CACHES = 64
_PROMPT = 64  # vectors at once that stand for a prompt


def undisturbed(times: npt.NDArray[np.float64] | list[float]) -> float:
    """Seconds of a step without anybody in the way."""
    return float(np.percentile(np.asarray(times), UNDISTURBED))


def middle(tries: npt.NDArray[np.float64]) -> float:
    """The middle one of tries as long as a token: a lucky one is not what the next token takes."""
    return float(np.median(tries))


def memory(seconds: float, threads: int) -> dict[str, Any]:
    """``bandwidth``: bytes per second that all threads together read from 256 MiB, a few MiB at a time."""
    whole = np.ones(64 * _MIB, np.float32)
    piece = _MIB  # of 4 bytes, for each thread
    turns = len(whole) // (piece * threads)
    barrier = threading.Barrier(threads + 1)
    at: list[int | None] = [0]

    def read(index: int) -> None:
        while True:
            barrier.wait()
            if (turn := at[0]) is None:
                return
            first = (turn * threads + index) * piece
            part = whole[first : first + piece]
            np.dot(part, part)
            barrier.wait()

    workers = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    turn = 0
    while len(taken) < 2 * turns or time.perf_counter() < end:
        at[0] = turn % turns
        start = time.perf_counter()
        barrier.wait()
        barrier.wait()
        taken.append(time.perf_counter() - start)
        turn += 1
    at[0] = None
    barrier.wait()
    return {"bandwidth": 4 * piece * threads / undisturbed(taken[turns:])}


def matrix(seconds: float, threads: int) -> dict[str, Any]:
    """``rates``: operations per second of a square product, by number type, as numpy and torch compute it."""
    size = 512
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    out = np.empty_like(a)
    rates = {"fp32": 2 * size**3 / _repeat(lambda: np.matmul(a, a, out), seconds / 4)}
    if importlib.util.find_spec("torch") is not None:
        torch = importlib.import_module("torch")
        torch.set_num_threads(threads)
        wide = torch.from_numpy(a)
        codes = torch.randint(-127, 127, (size, size), dtype=torch.int8)
        half = wide.to(torch.bfloat16)
        for name, step in (
            ("fp32", lambda: wide @ wide),
            ("bf16", lambda: half @ half),
            ("int8", lambda: torch._int_mm(codes, codes)),
        ):
            with suppress(RuntimeError):
                rates[name] = max(rates.get(name, 0.0), 2 * size**3 / _repeat(step, seconds / 4))
    return {"rates": rates}


def _repeat(step: Callable[[], object], seconds: float) -> float:
    step()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    return undisturbed(taken)


def kernels(seconds: float, threads: int) -> dict[str, Any]:
    """``kernels`` by ggml type, ``node_seconds`` and ``cached`` (see ``machine_rates``).

    All in several rounds, of which the fastest counts for each step: on a shared machine neighbours come and go within
    seconds, and one of two threads that is held up makes every node wait.
    """
    from quantwise.plan.ggml_products import mapped_numbers, placed

    slot = seconds / _ROUNDS / (len(TYPES) + 2)
    nodes, curves, taken = [], [], []
    streamed = 0
    with mapped_numbers(_LARGEST * _MIB) as at:
        for _ in range(_ROUNDS):
            with placed(threads, "f32", (32, 32), 200) as tiny:
                nodes.append(middle(tiny.times(tiny.graphs(200, 200), slot / 2)) / 200)
            curve = _curve(threads, slot, at)
            curves.append(curve)
            # Three times what is found in the cache for the most part, the same in each round.
            half = (curve[_SETS[0]] + curve[_LARGEST]) / 2
            past = 3 * max(size for size, took in curve.items() if took <= half)
            streamed = streamed or min(_LARGEST, max(64, past))
            taken.append({kind: _times(threads, kind, streamed, slot, at) for kind in TYPES})
    node = min(nodes)
    fastest = {kind: [min(tries) for tries in zip(*(each[kind] for each in taken), strict=True)] for kind in TYPES}
    curve = {size: min(each[size] for each in curves) for size in (*_SETS, _LARGEST)}
    return {
        "node_seconds": node,
        "cached": _found({size: max(took - _EACH * node, 1e-9) for size, took in curve.items()}),
        "kernels": {kind: _rates(kind, fastest[kind], node) for kind in TYPES},
    }


def _times(threads: int, kind: str, streamed: int, slot: float, at: int) -> tuple[float, float, float, float]:
    """Seconds of a graph of products with one vector: in a small working set, in one of ``streamed`` MiB whose pages
    lie together, in one whose pages lie apart; and of one product with many vectors.

    Pages of a mapped file may lie together in memory or apart, which no program can tell beforehand and which changes
    the rate of fast kernels by half.
    """
    from quantwise.plan.ggml_products import placed

    size = _bytes(kind)
    few, many = (max(_EACH, mebibytes * _MIB // size // _EACH * _EACH) for mebibytes in (_SETS[0], streamed))
    with placed(threads, kind, (_ROWS, _COLUMNS), many, 1, at) as products:
        small = middle(products.times(products.graphs(few, _EACH), slot / 4))
        together = middle(products.times(products.graphs(many, _EACH), slot / 4))
    with placed(threads, kind, (_ROWS, _COLUMNS), many) as products:
        apart = middle(products.times(products.graphs(many, _EACH), slot / 4))
    with placed(threads, kind, (_ROWS, _COLUMNS), 2, _PROMPT, at) as products:
        prompt = middle(products.times(products.graphs(2, 1), slot / 4))
    return small, together, apart, prompt


def _rates(kind: str, taken: Sequence[float], node: float) -> dict[str, float]:
    """Bytes of weights per second with one vector, from the cache and from memory, and operations per second with many
    vectors; the middle counts between pages together and apart.
    """
    small, together, apart, prompt = taken
    weights = _EACH * _bytes(kind)
    return {
        "cached": weights / max(small - _EACH * node, 1e-9),
        "streamed": weights / max((together + apart) / 2 - _EACH * node, 1e-9),
        "prompt": 2.0 * _ROWS * _COLUMNS * _PROMPT / prompt,
    }


def _curve(threads: int, slot: float, at: int) -> dict[int, float]:
    """Seconds of a graph of f16 products, by the MiB of the working set that their weights come round in."""
    from quantwise.plan.ggml_products import placed

    size = _bytes("f16")
    with placed(threads, "f16", (_ROWS, _COLUMNS), _LARGEST * _MIB // size, 1, at) as products:
        return {
            mebibytes: middle(products.times(products.graphs(mebibytes * _MIB // size, _EACH), slot / len(_SETS)))
            for mebibytes in (*_SETS, _LARGEST)
        }


def _found(curve: dict[int, float]) -> list[list[float]]:
    """By bytes of the working set, the share of reads that the cache serves: by time, between the extremes."""
    small, large = curve[_SETS[0]], curve[_LARGEST]
    if large < 1.1 * small:
        return [[_LARGEST * _MIB, 1.0]]
    shares = []
    least = 1.0
    for size, seconds in curve.items():
        least = min(least, max(0.0, min(1.0, (large - seconds) / (large - small))))
        shares.append([float(size * _MIB), least])
    return shares


def _bytes(kind: str) -> int:
    from quantwise.grids.ggml_blocks import GgmlBlocks

    return int(_ROWS * _COLUMNS * GgmlBlocks(kind).bits_per_weight / 8)


def attention(seconds: float, threads: int) -> dict[str, Any]:
    """``attention`` by cache type (see ``machine_rates``): two widths give what a head and token costs and what each
    number of it does, many layers what comes from memory."""
    from quantwise.grids.ggml_blocks import GgmlBlocks
    from quantwise.plan.ggml_attention import HEADS, KV_HEADS, TOKENS, attention_times

    narrow, wide = 64, 128
    slot = seconds / (3 * len(CACHES))
    found = {}
    for kind in CACHES:
        few, more = (
            middle(attention_times(threads, kind, width, 1, slot)) / (HEADS * TOKENS) for width in (narrow, wide)
        )
        size = 2 * KV_HEADS * TOKENS * wide * GgmlBlocks(kind).bits_per_weight / 8
        layers = math.ceil(_PAST_CACHES * _MIB / size)
        streamed = middle(attention_times(threads, kind, wide, layers, slot)) / (HEADS * TOKENS)
        number = max(0.0, (more - few) / (2 * (wide - narrow)))
        found[kind] = {
            "head": max(few - 2 * narrow * number, 1e-12),
            "number": number,
            "byte": max(0.0, (streamed - more) * HEADS * TOKENS / size),
        }
    return {"attention": found}


PARTS: dict[str, Callable[[float, int], dict[str, Any]]] = {
    "memory": memory,
    "matrix": matrix,
    "kernels": kernels,
    "attention": attention,
}


def main() -> int:
    """Time one part."""
    part, seconds, threads = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    try:
        print(json.dumps(PARTS[part](seconds, threads)))
    except (EnvironmentFailure, OSError) as error:
        print(json.dumps({"why": str(error)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
