"""How long one GPTQ W4 g128 takes: quantwise beside llm-compressor and GPTQModel. On a CPU, which is not their home.

    make peers
    python benchmarks/gptq_speed.py                    about six minutes on two quiet cores
    python benchmarks/gptq_speed.py --rounds 3         medians of three

The same 50M-parameter model of random weights (speed_model.py), the same 128 x 512 token ids, the same cores and
threads, each tool in a fresh process, one after the other. Symmetric 4 bit in groups of 128, ``lm_head`` left in
16 bit; all else are each tool's own defaults, which differ: quantwise searches scales and takes activation order with
static groups; llm-compressor takes activation order with static groups; GPTQModel permutes within groups. Both peers
feed each block what the quantized blocks before it give, quantwise what the 16-bit model gives, which takes one pass
less.

"quantize" is the time from "model and tokens in memory" to "quantized weights in memory". Of quantwise it includes
reading each block's weights and keeping what is finished on disk, because its build streams.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from fresh_process import ROOT, Arm, alternate, goal, inner, setting, table
from speed_model import check_tokens, write_calibration, write_model

RECIPE, GOAL = "gptq:int4-g128", 0.65


def main() -> None:
    """Make the model, run the arms, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each tool (default 1)")
    parser.add_argument("--layers", type=int, default=12, help="blocks of the model (default 12; fewer to try it out)")
    parser.add_argument("--only", nargs="+", metavar="TOOL", help="quantwise, llm-compressor, GPTQModel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        model = write_model(Path(temporary) / "model", layers=options.layers)
        text, tokens = write_calibration(Path(temporary))
        check_tokens(model, text, tokens)
        peers = str(model), str(tokens), RECIPE
        arms = [
            Arm("quantwise", _python(".venv"), "quantwise_arm.py", (str(model), str(text), temporary, RECIPE)),
            Arm("llm-compressor", _python(".venv-llmcompressor"), "llmcompressor_arm.py", peers),
            Arm("GPTQModel", _python(".venv-gptqmodel"), "gptqmodel_arm.py", peers),
        ]
        found = alternate([arm for arm in arms if not options.only or arm.name in options.only], options.rounds)
    print(f"\n{RECIPE}, {options.layers} blocks, 128 x 512 tokens, {options.rounds} run(s) of each, medians")
    print("On a CPU, which is not the peers' home.\n")
    print(table(found, "quantwise") + "\n")
    print(setting(found) + "\n")
    for name, runs in found.items():
        if name != "quantwise":
            print(goal(f"quantwise / {name}", inner(found["quantwise"]) / inner(runs), GOAL))


def _python(environment: str) -> Path:
    return ROOT / environment / "bin" / "python"


if __name__ == "__main__":
    main()
