"""Decoding in llama.cpp on this machine, predicted by the planner after measuring the machine, and measured.

    python benchmarks/plan_speed.py [--rounds 3] [--threads N] [--cpu-time] [--write]

Five sizes of random weights in Llama's shape, four types, and a sixth that the probe was not written on. The machine
is measured first, by ``measure_machine``, which runs no model; then llama-server of the xllamacpp wheel decodes each
file, in rounds, and the fastest try counts, because on a shared machine the others are disturbed. ``others`` is the
share of the processors that other programs took in that try. On a machine that is never calm, ``--threads 1
--cpu-time`` takes the time that the server itself computed. Needs 6 GB of disk for a while and 3 GB of memory.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.machine import facts
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.machine_rates import MachineRates, decode_time, read_by_type
from quantwise.plan.measure_machine import cores, measure_machine
from quantwise.runtimes.process import ServerProcess, free_port
from random_gguf import Shape, types, write_random

SHAPES = (
    Shape("13M", 256, 6, 768, 4, 2, 16384),
    Shape("58M", 512, 8, 1536, 8, 4, 32000),
    Shape("125M", 768, 12, 2048, 12, 4, 32000),
    Shape("336M", 1024, 24, 2816, 16, 4, 32000),
    Shape("689M", 1536, 24, 4096, 12, 4, 32000),
)
# A size that nothing was looked at on while the probe was written.
HELD_OUT = Shape("220M", 1024, 16, 2560, 16, 8, 24000)
MIXES = ("f16", "q8_0", "q4_0", "q4_k_m")
PROMPT, CONTEXT = 4, 512
WHY = (
    "A token sums some hundred products, so the probe times turns as long as a token, all of a working set's matrices",
    "in each, and the middle turn counts; of three rounds the fastest. It took the quickest twentieth of single",
    "products before, and read `q4_0` much too fast: slow products come to any matrix in any turn, so it is neither",
    "where the weights lie, nor their shapes, nor the size of the working set. What was tried to find that out is in",
    "[LOG.md](LOG.md), with its figures. Predictions lie low in the mean, for they are of seconds, while of the server",
    "the fastest try of minutes counts; and a measurement is of its hour.",
)
PAGE = Path(__file__).resolve().parents[1] / "docs" / "plan-speed.md"


@dataclass(slots=True)
class Seen:
    """Tries so far: tokens per second, and the share of the processors that others took meanwhile.

    By the clock the fastest try counts. Time that the server computed for is the difference of two requests, which errs
    to both sides, so there the middle one does.
    """

    tries: list[tuple[float, float]] = field(default_factory=list)
    middle: bool = False

    @property
    def counted(self) -> tuple[float, float]:
        """The try that counts."""
        ordered = sorted(self.tries)
        return ordered[len(ordered) // 2] if self.middle else ordered[-1]


def decoder_of(shape: Shape) -> Decoder:
    """The decoder that a file of this shape holds."""
    width = shape.hidden // shape.heads
    layer = Layer(Attention(shape.heads, shape.kv_heads, width, width), shape.feed_forward)
    return Decoder(shape.name, "llama", shape.hidden, shape.vocab, CONTEXT, False, (layer,) * shape.layers,
                   shape.shapes(), {})  # fmt: skip


def predicted(machine: MachineRates, shape: Shape, mix: str, context: int) -> tuple[float, float, float]:
    """Tokens per second: likely, and from the slowest to the fastest that the planner says."""
    kinds = types(shape, mix)
    listed = [(name, kinds[name], tensor_bytes(size, kinds[name])) for name, size in shape.shapes().items()]
    decoder = decoder_of(shape)
    found = decode_time(machine, decoder, read_by_type(decoder, listed), context)
    if found is None:
        raise SystemExit("no llama.cpp could be measured here; install quantwise[llamacpp]")
    return 1 / found.seconds, 1 / found.interval[1], 1 / found.interval[0]


@dataclass(frozen=True, slots=True)
class How:
    """``threads`` of the server; whether its time is the clock's or that in which it computed; tries of a visit."""

    threads: int
    cpu_time: bool
    tries: int


def decode(path: Path, tokens: int, how: How, seen: Seen) -> None:
    """Serve a file and decode from it a few times."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-P", "-m", "quantwise.runtimes.llamacpp_host", "--model", str(path), "--port",
               str(port), "--no-webui", "--parallel", "1", "--ctx-size", str(CONTEXT), "--fit", "off",
               "--cache-ram", "0", "--threads", str(how.threads)]  # fmt: skip
    with ServerProcess(command, url) as process, httpx.Client(base_url=url, timeout=300) as http:
        leash = psutil.Process(process._leash.pid) if process._leash else psutil.Process()
        mine = [*leash.children(recursive=True), psutil.Process()]
        for i in range(how.tries + 1):
            ids = [300 + (j * 37 + i * 11) % 15000 for j in range(PROMPT)]
            body = {"prompt": ids, "n_predict": tokens, "ignore_eos": True, "temperature": 0, "top_k": 1,
                    "cache_prompt": False}  # fmt: skip
            first = _computed(mine) if how.cpu_time else 0.0
            http.post("/completion", json=body | {"n_predict": 1})
            before, prompted = _used(mine), _computed(mine) if how.cpu_time else 0.0
            timings = http.post("/completion", json=body).json()["timings"]
            after = _used(mine)
            # The clock starts with the first token, so the others are what was decoded in that time.
            seconds = timings["predicted_ms"] / 1000
            if how.cpu_time:  # a prompt and one token are in both requests
                seconds = _computed(mine) - prompted - (prompted - first)
            speed = (timings["predicted_n"] - 1) / max(seconds, 1e-9)
            if i:
                seen.tries.append((speed, _others(before, after)))


def _used(mine: list[psutil.Process]) -> tuple[float, float, float]:
    """Seconds of all processors that were busy, that we were, and that passed on the clock."""
    total = psutil.cpu_times()
    busy = total.user + total.system + total.nice
    ours = sum(sum(process.cpu_times()[:2]) for process in mine)
    return busy, ours, time.monotonic()


def _computed(mine: list[psutil.Process]) -> float:
    """Seconds that all threads of the server computed for, to the nanosecond (Linux)."""
    tasks = [task for process in mine[:-1] for task in Path(f"/proc/{process.pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _others(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    busy, ours, passed = (b - a for a, b in zip(before, after, strict=True))
    return max(0.0, (busy - ours) / max(passed * (psutil.cpu_count() or 1), 1e-9))


def main() -> None:
    """Measure, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="for measuring the machine")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--cpu-time", action="store_true", help="the server's own time; for one thread")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    if arguments.cpu_time and arguments.threads != 1:
        parser.error("--cpu-time is for --threads 1: of several threads, waiting ones compute too")
    how = How(arguments.threads, arguments.cpu_time, arguments.tries)
    start = time.monotonic()
    machine = measure_machine(arguments.seconds, how.threads, tell=lambda line: print(line, file=sys.stderr))
    took = time.monotonic() - start
    cases = [(shape, mix) for shape in (*SHAPES, HELD_OUT) for mix in MIXES]
    seen = {(shape.name, mix): Seen(middle=how.cpu_time) for shape, mix in cases}
    order = random.Random(0)
    with tempfile.TemporaryDirectory(prefix="quantwise-") as folder:
        for _ in range(arguments.rounds):
            for shape, mix in order.sample(cases, len(cases)):
                path = Path(folder) / f"{shape.name}-{mix}.gguf"
                if not path.exists():
                    write_random(path, shape, mix, CONTEXT)
                _visit(path, shape, how, seen[shape.name, mix])
                print(shape.name, mix, seen[shape.name, mix].counted, file=sys.stderr)
    lines = _table(machine, took, seen, how)
    print("\n".join(lines))
    if arguments.write:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _visit(path: Path, shape: Shape, how: How, seen: Seen) -> None:
    """Small models take little time and are disturbed most: they are tried longer."""
    small = shape.parameters < 2e8
    decode(path, 48 if small else 10, How(how.threads, how.cpu_time, how.tries * (3 if small else 1)), seen)


def _table(machine: MachineRates, took: float, seen: dict[tuple[str, str], Seen], how: How) -> list[str]:
    found = facts()
    head = [
        "# Decoding, predicted and measured",
        "",
        f"`python benchmarks/plan_speed.py {' '.join(sys.argv[1:])}`. Random weights in Llama's shape; one request, "
        "after a few tokens.",
        f"The machine was measured in {took:.1f} s; no model was run for that. Of several tries each, the "
        + ("middle one," if how.cpu_time else "fastest;"),
        ("by the seconds that the server computed for; " if how.cpu_time else "")
        + "`others` is the share of the processors that other programs took in it.",
        "",
        "| weights | type | MB a token | predicted, tokens/s | from .. to | measured | predicted / measured | others |",
        "| ---: | --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    rows, told = _rows(machine, seen, SHAPES)
    more, also = _rows(machine, seen, (HELD_OUT,))
    rates = ", ".join(f"{name} {kernel.cached / 1e9:.1f} / {kernel.streamed / 1e9:.1f}"
                      for name, kernel in machine.kernels.items())  # fmt: skip
    shares = ", ".join(f"{share:.0%} of {size / 2**20:.0f} MiB" for size, share in machine.cached)
    return [
        *head,
        *rows,
        "",
        told,
        "",
        "A size that was not looked at while the probe was written:",
        "",
        *head[-2:],
        *more,
        "",
        also,
        "",
        *WHY,
        "",
        f"Measured of the machine: bandwidth {machine.bandwidth / 1e9:.1f} GB/s;",
        f"found in the cache: {shares}; a node {1e6 * (machine.node_seconds or 0):.1f} us;",
        f"kernels in GB/s, cached / streamed: {rates}.",
        "",
        f"{found['machine']['cpu']}, {machine.threads} threads, {found['machine']['os']};",
        f"{machine.library}; {machine.measured}.",
    ]


def _rows(machine: MachineRates, seen: dict[tuple[str, str], Seen], shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """A row a case, and what they come to."""
    rows, ratios, inside = [], [], 0
    for shape in shapes:
        for mix in MIXES:
            measured, others = seen[shape.name, mix].counted
            told, low, high = predicted(machine, shape, mix, PROMPT + 12)
            kinds = types(shape, mix)
            listed = [(name, kinds[name], tensor_bytes(size, kinds[name])) for name, size in shape.shapes().items()]
            megabytes = sum(read_by_type(decoder_of(shape), listed).values()) / 1e6
            ratios.append(told / measured)
            inside += low <= measured <= high
            rows.append(
                f"| {shape.name} | {mix} | {megabytes:.0f} | {told:.1f} | {low:.1f} .. {high:.1f} | {measured:.1f} "
                f"| {ratios[-1]:.2f} | {others:.0%} |"
            )
    within = sum(abs(ratio - 1) <= 0.25 for ratio in ratios)
    return rows, (
        f"Within 25 %: {within} of {len(ratios)}; ratios from {min(ratios):.2f} to {max(ratios):.2f}. "
        f"Inside the interval: {inside}."
    )


if __name__ == "__main__":
    main()
