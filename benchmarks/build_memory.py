"""Peak memory of one walk that makes several recipes at once, for models that differ in depth alone.

    python benchmarks/build_memory.py [--layers 4 16 64] [--hidden 512] [--tokens 4096] [--recipe rtn:int8-channel ...]

Every depth is built in a fresh process from the same calibration tokens. ``peak`` is the largest resident set of the
whole process, ``above`` the same less what was resident once everything was imported (the kernel's own counter, set
back at that moment), ``planned`` what the build said before it began. Random weights: for memory only. Linux only.
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


def one_build(model: Path, texts: Path, out: Path, recipes: Sequence[str]) -> dict[str, float]:
    """Build in this process. Returns bytes resident before, at most, and planned; and seconds."""
    import gguf  # noqa: F401
    import torch
    from transformers import LlamaForCausalLM  # noqa: F401

    from quantwise.build.calibration import calibrate
    from quantwise.build.walk import build
    from quantwise.core.recipe import parse_recipe
    from quantwise.formats.safetensors_header import read_folder
    from quantwise.plan.build_job import Texts, plan_build

    torch.linalg.cholesky(torch.eye(64, dtype=torch.float64) @ torch.eye(64, dtype=torch.float64))
    wanted, given = [parse_recipe(recipe) for recipe in recipes], texts.read_text().split("\n\n")
    data = calibrate(model, given, 2048, 0)
    planned = plan_build(read_folder(model), wanted, Texts(data.tokens, max(map(len, data.sequences))))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    build(model, wanted, given, out)
    seconds = time.perf_counter() - start
    return {"before": before, "peak": resident("VmHWM"), "planned": planned.memory.total, "seconds": seconds}


def measured(layers: int, hidden: int, tokens: int, recipes: Sequence[str]) -> dict[str, float]:
    """The same in a fresh process, with a model of so many layers."""
    import speed_model

    with tempfile.TemporaryDirectory(prefix="quantwise-memory-") as place:
        model = speed_model.write_model(Path(place, "model"), layers, hidden, 3 * hidden)
        texts, _ = speed_model.write_calibration(Path(place), max(1, tokens // speed_model.CONTEXT))
        command = [sys.executable, __file__, "--one", str(model), str(texts), str(Path(place, "out")), *recipes]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--recipe", nargs="+", default=RECIPES)
    asked = parser.parse_args()
    print(f"{', '.join(asked.recipe)}; hidden {asked.hidden}, {asked.tokens} tokens; MiB\n")
    print("| layers | peak | above | planned | seconds |\n| ---: | ---: | ---: | ---: | ---: |", flush=True)
    peaks, above = [], []
    for layers in asked.layers:
        found = measured(layers, asked.hidden, asked.tokens, asked.recipe)
        peaks.append(found["peak"] / MIB)
        above.append((found["peak"] - found["before"]) / MIB)
        cells = (layers, peaks[-1], above[-1], found["planned"] / MIB, found["seconds"])
        print(f"| {' | '.join(f'{cell:.0f}' for cell in cells)} |", flush=True)
    print(f"\nlargest over smallest: peak {max(peaks) / min(peaks):.3f}, above {max(above) / min(above):.3f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one_build(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])))
    else:
        main()
