"""vLLM on a CPU: tokens per second of our exports beside 16 bit, at 1, 8 and 32 requests at a time.

    QUANTWISE_VLLM_PYTHON=.venv-vllm/bin/python python benchmarks/vllm_speed.py --only w8a8 gptq     one piece
    python benchmarks/vllm_speed.py --build                                           only the folders
    python benchmarks/vllm_speed.py --write                                           docs/vllm-speed.md of what is kept

A Llama shape of 325 million random weights: for time only, its answers say nothing. In a piece the 16-bit server and
those of the piece are up together, each as the runtime ``vllm`` starts it; they take turns, in rotating order, at every
number of requests in every repeat, and one server works at a time. So drift of the machine falls on all. A piece is
kept in the work folder, and the table is of all pieces kept; each row's ratio is to the 16 bit of its own piece.
Requests are sent together, as many as are served at once; tokens over the wall time until the last has ended, prompts
included. Use a quiet machine: 4 GB of memory for a piece of two, five to ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.recipe import parse_recipe
from quantwise.core.runtime import Ask, RuntimeOptions, Session
from quantwise.runtimes.vllm import Vllm
from speed_model import CONTEXT, FIRST_CHARACTER, SPECIAL, VOCABULARY, write_model
from this_machine import line

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "vllm-speed.md"
BASE = "16bit"
# Speed does not depend on which codes were chosen, so all are rounded to nearest: it takes seconds.
ARMS = {
    "w8a8": "rtn:w8a8",
    "w4a16": "rtn:int4-g128",
    "gptq": "rtn:int4-g128,layout=gptq",
    "awq": "rtn:int4-g128-asym,layout=awq",
    "fp8": "rtn:fp8",
}
USERS, REPEATS = (1, 8, 32), 3
PROMPT, TOKENS = 64, 64

# By number of requests: tokens per second in each repeat.
Speeds = dict[int, list[float]]


def model(work: Path, layers: int) -> Path:
    """The 16-bit folder, written once."""
    folder = work / f"model-{layers}"
    return folder if (folder / "config.json").exists() else write_model(folder, layers, 1024, 2816)


def artifacts(work: Path, layers: int, names: Sequence[str]) -> dict[str, Artifact]:
    """Folders of the arms, 16 bit first."""
    source = model(work, layers)
    made = build(source, [parse_recipe(ARMS[name]) for name in names], [], work / f"built-{layers}")
    return {BASE: Artifact(str(source), "safetensors", "", None), **dict(zip(names, made, strict=True))}


def prompts(count: int, tokens: int, draw: random.Random) -> list[Ask]:
    """Texts of ``PROMPT`` tokens, no two alike."""
    texts = ("".join(chr(FIRST_CHARACTER + draw.randrange(SPECIAL, VOCABULARY)) for _ in range(PROMPT))
             for _ in range(count))  # fmt: skip
    return [Ask(text=text, max_tokens=tokens) for text in texts]


def speed(session: Session, asks: Sequence[Ask]) -> float:
    """Tokens per second over all requests together."""
    start = time.perf_counter()
    replies = session.ask(asks)
    seconds = time.perf_counter() - start
    if failed := next((reply.error for reply in replies if reply.error), None):
        raise SystemExit(f"a request failed: {failed}")
    return sum(reply.output_tokens or 0 for reply in replies) / seconds


def measure(made: dict[str, Artifact], users: Sequence[int], repeats: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Every arm in turn at each number of requests, and the memory of each; told anew after every repeat."""
    cores = len(os.sched_getaffinity(0))
    options = RuntimeOptions(context=CONTEXT, threads=cores, parallel=max(users), timeout_s=300.0)
    found: dict[str, Speeds] = {name: {n: [] for n in users} for name in made}
    told: dict[str, Any] = {
        "speeds": found, "tokens": tokens, "bytes": {n: folder_bytes(a) for n, a in made.items()},
        "date": str(date.today()), "line": f"{Vllm().version()}; {line()}", "cores": cores,
    }  # fmt: skip
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(Vllm().open(artifact, options)) for name, artifact in made.items()}
        for number, session in enumerate(sessions.values()):
            # The first tokens of a server are slow, and so are those of the first large batch.
            speed(session, prompts(max(2, max(users) // 4), 16, random.Random(1000 + number)))
        for repeat in range(repeats):
            for n in users:
                asks = prompts(n, tokens, random.Random(repeat * 100 + n))
                turn = repeat % len(sessions)
                for name in (*list(sessions)[turn:], *list(sessions)[:turn]):
                    found[name][n].append(speed(sessions[name], asks))
                seen = ", ".join(f"{name} {found[name][n][-1]:.1f}" for name in sessions)
                print(f"- repeat {repeat + 1}, {n} at a time: {seen} tokens/s", flush=True)
            yield told | {"peaks": {name: s.footprint().peak_process_bytes for name, s in sessions.items()}}


def folder_bytes(artifact: Artifact) -> int:
    """Bytes of the files of tensors."""
    return sum(file.stat().st_size for file in Path(artifact.location).glob("*.safetensors"))


def table(pieces: Sequence[dict[str, Any]]) -> str:
    """As Markdown: tokens per second (least to most of the repeats), and the ratio to 16 bit repeat by repeat."""
    users = [int(n) for n in pieces[0]["speeds"][BASE]]
    heads = "".join(f" {n} at a time | of 16 bit |" for n in users)
    lines = [f"| folder | MB | peak MB |{heads}", "| --- | ---: | ---: |" + " ---: | ---: |" * len(users)]
    for piece in pieces:
        base = piece["speeds"][BASE]
        for name, speeds in piece["speeds"].items():
            held, peak = piece["bytes"][name] / 1e6, piece["peaks"][name]
            short = "" if piece["tokens"] == pieces[0]["tokens"] else f", answers of {piece['tokens']}"
            cells = [f"`{ARMS.get(name, name)}`{short}", f"{held:.0f}", f"{peak / 1e6:.0f}" if peak else ""]
            for n in map(str, users):
                cells.append(f"{middle(speeds[n]):.1f} ({min(speeds[n]):.1f} to {max(speeds[n]):.1f})")
                ratios = [mine / its for mine, its in zip(speeds[n], base[n], strict=True)]
                same = f"{middle(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                cells.append("" if name == BASE else same + (" **slower**" if max(ratios) < 1 else ""))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def middle(values: Sequence[float]) -> float:
    """The median, the lower one of two."""
    return sorted(values)[(len(values) - 1) // 2]


def page(pieces: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    first = pieces[0]
    repeats, slower = len(next(iter(first["speeds"][BASE].values()))), []
    for piece in pieces:
        for name, speeds in piece["speeds"].items():
            for n, values in speeds.items():
                ratios = [mine / its for mine, its in zip(values, piece["speeds"][BASE][n], strict=True)]
                if name != BASE and max(ratios) < 1:
                    slower.append(f"`{ARMS[name]}` at {n} ({middle(ratios):.2f})")
    alike = [p for p in pieces if p["tokens"] == first["tokens"]]
    both = ((n, [x for p in alike for x in p["speeds"][BASE][n]]) for n in first["speeds"][BASE])
    drift = ", ".join(f"from {min(x):.0f} to {max(x):.0f} at {n} at a time" for n, x in both)
    lost = f"Slower than 16 bit in every repeat: {', '.join(slower)}." if slower else "None was slower in every repeat."
    return f"""# vLLM on a CPU: speed of fewer bits

Tokens per second of our exports in vLLM, started by the runtime `vllm`, beside the 16-bit folder; made by
`benchmarks/vllm_speed.py`. A Llama shape of 325 million random weights (24 layers, hidden 1024, feed-forward 2816).
Prompts of {PROMPT} tokens, answers of {first["tokens"]} unless said; requests are sent together, and it is output
tokens over wall time until the last has ended, prompts included. The middle of {repeats} repeats, with the least and
the most in brackets. In a piece all servers are up together and take turns in every repeat; ratios are taken repeat by
repeat to the 16 bit of the same piece.

{table(pieces)}

{lost} With answers of {first["tokens"]} 16 bit itself went {drift}:
ratios whose range is as wide as that say little.

{first["date"]}, {first["cores"]} cores used, {first["line"]}. One machine:
which kernel vLLM takes, and so which rows lose, depends on the processor.
"""


def main() -> int:
    """Measure a piece, and print the table of all that are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=tuple(ARMS), default=[], help="the arms of this piece")
    parser.add_argument("--build", action="store_true", help="build every folder and measure nothing")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--users", nargs="*", type=int, default=list(USERS))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of an answer")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "vllm-speed")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args()
    if flags.build:
        artifacts(flags.work, flags.layers, list(ARMS))
        return 0
    if flags.only:
        made = artifacts(flags.work, flags.layers, flags.only)
        kept = flags.work / f"piece-{'-'.join(flags.only)}.json"
        for told in measure(made, flags.users, flags.repeats, flags.tokens):
            kept.write_text(json.dumps(told), encoding="utf-8")
    pieces = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(flags.work.glob("piece-*.json"))]
    pieces.sort(key=lambda piece: -int(piece["tokens"]))
    if not pieces:
        raise SystemExit("nothing is measured yet; name arms with --only")
    print(f"\n{table(pieces)}\n\n{pieces[0]['date']}, {pieces[0]['cores']} cores used, {pieces[0]['line']}")
    if flags.write:
        PAGE.write_text(page(pieces), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
