"""How long encoding to k-quants takes: quantwise beside llama.cpp's own ``llama_model_quantize``, on the same cores.

    python benchmarks/kquant_encoding.py [--peer PYTHON] [--rounds 3]

PYTHON is an interpreter with llama-cpp-python (default .venv-llama/bin/python). Model of 50M random weights
(speed_model.py). Both sides read a file and write a GGUF file: quantwise from bfloat16 safetensors, llama.cpp from the
f16 GGUF that quantwise wrote of it. Each run is a fresh process, in alternating order; medians.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from fresh_process import MIB, ROOT, Arm, Finished, alternate, cores, goal, inner, run, setting, whole
from speed_model import write_model

KINDS, GOAL = ("q4_k_m", "q6_k", "q3_k_m", "q2_k"), 2.0
OURS = ROOT / ".venv" / "bin" / "python"


def main() -> None:
    """Run every type in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, default=ROOT / ".venv-llama" / "bin" / "python", metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--layers", type=int, default=12, help="blocks of the model (default 12; fewer to try it out)")
    options = parser.parse_args()
    found: dict[str, dict[str, list[Finished]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        model = write_model(Path(temporary) / "model", layers=options.layers)
        source = run(Arm("f16", OURS, "encode_arm.py", (str(model), str(Path(temporary) / "f16"), "f16")))
        for kind in KINDS:
            found[kind] = _measure(kind, model, source.told["location"], Path(temporary), options)
    print(f"\n{options.layers} blocks, {options.rounds} run(s) of each, medians; encode: read, encode, write\n")
    print("| type | quantwise s | llama.cpp s | ratio | quantwise process s | llama.cpp process s | peaks MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, runs in found.items():
        ours, theirs = runs["quantwise"], runs["llama.cpp"]
        peaks = " / ".join(f"{max(r.peak_bytes for r in side) / MIB:.0f}" for side in (ours, theirs))
        ratio = inner(ours) / inner(theirs)
        print(
            f"| {kind} | {inner(ours):.2f} | {inner(theirs):.2f} | {ratio:.2f} "
            f"| {whole(ours):.2f} | {whole(theirs):.2f} | {peaks} |"
        )
    print("\n" + setting(found[KINDS[0]]) + "\n")
    for kind, runs in found.items():
        print(goal(f"{kind}, quantwise / llama.cpp", inner(runs["quantwise"]) / inner(runs["llama.cpp"]), GOAL))


def _measure(
    kind: str, model: Path, source: str, temporary: Path, options: argparse.Namespace
) -> dict[str, list[Finished]]:
    ours, theirs = temporary / "ours", temporary / f"{kind}.gguf"
    runs: dict[str, list[Finished]] = {"quantwise": [], "llama.cpp": []}
    for i in range(options.rounds):
        # A folder of its own for each run, or the second would find the artifact of the first.
        shutil.rmtree(ours, ignore_errors=True)
        arms = [
            Arm("quantwise", OURS, "encode_arm.py", (str(model), str(ours), kind)),
            Arm("llama.cpp", options.peer, "llama_quantize_arm.py", (source, str(theirs), kind, str(cores()))),
        ]
        for name, (one,) in alternate(arms if i % 2 == 0 else arms[::-1], 1).items():
            runs[name].append(one)
    return runs


if __name__ == "__main__":
    main()
