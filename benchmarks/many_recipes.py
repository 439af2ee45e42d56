"""Twelve calibrated recipes in one pass of quantwise, and one by one with llm-compressor. On a CPU, not its home.

    make peers
    python benchmarks/many_recipes.py                  about ten minutes on two quiet cores
    python benchmarks/many_recipes.py --full           every recipe with llm-compressor too: about half an hour

By default llm-compressor runs one recipe of each kind and its time counts for the others of that kind, which take the
same steps over the same matrices; the table says so. Model, tokens and threads as in gptq_speed.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fresh_process import MIB, ROOT, Arm, Finished, goal, run, setting, spent
from speed_model import check_tokens, write_calibration, write_model

GOAL = 1 / 6
SECONDS = ("inner", "processor", "whole")
# The first of each kind is the one that is measured by default.
KINDS = {
    "GPTQ, weights only": (
        "gptq:int4-g128",
        "gptq:int4-g64",
        "gptq:int4-g32",
        "gptq:int4-channel",
        "gptq:int4-g128-asym",
        "gptq:int3-g128",
        "gptq:int3-g64",
        "gptq:int3-channel",
        "gptq:int8-g128",
        "gptq:int8-channel",
    ),
    "SmoothQuant, rounding": ("smoothquant+rtn:w8a8",),
    "SmoothQuant, GPTQ": ("smoothquant+gptq:w8a8",),
}
PYTHON = ROOT / ".venv-llmcompressor" / "bin" / "python"


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="run every recipe with llm-compressor")
    parser.add_argument("--layers", type=int, default=12, help="blocks of the model (default 12; fewer to try it out)")
    options = parser.parse_args()
    recipes = [recipe for kind in KINDS.values() for recipe in kind]
    with tempfile.TemporaryDirectory() as temporary:
        model = write_model(Path(temporary) / "model", layers=options.layers)
        text, tokens = write_calibration(Path(temporary))
        check_tokens(model, text, tokens)
        told = str(model), str(text), temporary, *recipes
        ours = run(Arm("quantwise", ROOT / ".venv" / "bin" / "python", "quantwise_arm.py", told))
        print(f"- quantwise, {len(recipes)} recipes in one pass: {spent(ours)}", flush=True)
        theirs: dict[str, Finished] = {}
        for kind in KINDS.values():
            for recipe in kind if options.full else kind[:1]:
                arm = Arm(recipe, PYTHON, "llmcompressor_arm.py", (str(model), str(tokens), recipe))
                theirs[recipe] = run(arm)
                print(f"- llm-compressor, {recipe}: {spent(theirs[recipe])}", flush=True)
    # A recipe that was not run takes the time of the first of its kind.
    counted = {recipe: theirs.get(recipe, theirs[kind[0]]) for kind in KINDS.values() for recipe in kind}
    inner, processor, whole = (sum(getattr(f, what) for f in counted.values()) for what in SECONDS)
    print(f"\n{len(recipes)} recipes, {options.layers} blocks, 128 x 512 tokens, on a CPU (not the peer's home)\n")
    print("| | quantize s | processor s | whole processes s | peak MiB |\n| --- | ---: | ---: | ---: | ---: |")
    cells = f"{ours.inner:.1f} | {ours.processor:.1f} | {ours.whole:.1f} | {ours.peak_bytes / MIB:.0f}"
    print(f"| quantwise, one pass | {cells} |")
    peak = max(f.peak_bytes for f in theirs.values()) / MIB
    print(f"| llm-compressor, one by one | {inner:.1f} | {processor:.1f} | {whole:.1f} | {peak:.0f} |\n")
    for kind, members in KINDS.items():
        ran = [f"{recipe} {theirs[recipe].inner:.1f} s" for recipe in members if recipe in theirs]
        rest = len(members) - len(ran)
        print(f"- {kind}: measured {', '.join(ran)}" + (f"; counted the same for {rest} others" if rest else ""))
    print(setting({"quantwise": [ours], "llm-compressor": list(theirs.values())}) + "\n")
    print(goal("quantwise / llm-compressor", ours.inner / inner, GOAL))
    print(f"quantwise / llm-compressor, processor seconds: {ours.processor / processor:.3f}")
    print(f"quantwise / llm-compressor, whole processes: {ours.whole / whole:.3f}")


if __name__ == "__main__":
    main()
