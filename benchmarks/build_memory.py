"""Peak memory of one walk that makes several recipes at once, for models that differ in depth alone.

    python benchmarks/build_memory.py [--layers 4 16 64] [--tokens 4096] [--recipe rtn:int8-channel ...]

Every depth is built in a fresh process from the same calibration tokens. ``peak`` is the largest resident set of the
whole process, ``above`` the same less what was resident once everything was imported (the kernel's own counter, set
back at that moment), ``planned`` what the build said of itself before it began. Random weights: memory only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

RECIPES = ("rtn:int8-channel", "gptq:int4-g64", "smoothquant+rtn:w8a8", "gptq:q4_k_m")
DEPTHS = (4, 16, 64)
MIB = 2**20


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def one_build(model: Path, texts: Path, recipes: Sequence[str], out: Path) -> dict[str, float]:
    """Build in this process. Returns bytes at the start, at most, and seconds."""

    import gguf  # noqa: F401
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM  # noqa: F401

    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe

    torch.linalg.cholesky(torch.eye(64, dtype=torch.float64) @ torch.eye(64, dtype=torch.float64))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    stages: dict[str, int] = {}

    def watch(what: str, done: int, total: int) -> None:
        stages[f"{what} {done}"] = resident("RssAnon")

    build(model, [parse_recipe(r) for r in recipes], texts.read_text().split("\n\n"), out, progress=watch)
    print(stages, file=sys.stderr)
    return {"before": before, "peak": resident("VmHWM"), "seconds": time.perf_counter() - start}


def main() -> None:
    """Print the table."""
    import speed_model

    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--recipe", nargs="+", default=RECIPES)
    asked = parser.parse_args()
    for layers in asked.layers:
        with tempfile.TemporaryDirectory(prefix="quantwise-memory-") as place:
            model = speed_model.write_model(Path(place, "model"), layers)
            texts, _ = speed_model.write_calibration(Path(place), asked.tokens // 512)
            command = [
                sys.executable,
                __file__,
                "--one",
                str(model),
                str(texts),
                str(Path(place, "out")),
                *asked.recipe,
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                layers,
                {k: round(v / MIB, 1) if v > 1e6 else v for k, v in found.items()},
                (found["peak"] - found["before"]) / MIB,
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one_build(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[5:], Path(sys.argv[4]))))
    else:
        main()
