"""What trained scales are worth beside GPTQ alone: held-out KL at the same bytes, integer grids and ggml types.

    python benchmarks/distillation.py [--model reference|prose] [--recipes gptq:int3-g128 auto:4.5bpw]

For each recipe, ``distil+`` before it: codes and bytes stay, scales are trained by KL on calibration texts. Ratios are
of the same held-out texts, 95 % of a bootstrap over texts. Watched divergence is what the training itself saw on texts
that it had set aside. About two minutes a recipe.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import this_machine
from quantwise.build.held_out import divergences, held_out
from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe
from quantwise.stats.bootstrap import bootstrap_ratio
from trained_models import prose_model, reference_model

MODELS = {"reference": reference_model, "prose": prose_model}
RECIPES = ("gptq:int4-g128", "gptq:int3-g128", "gptq:int3-g64-asym", "gptq:int2-g64", "gptq:layerwise-int3-g128",
           "gptq:q4_k_m", "gptq:q3_k_m", "gptq:q2_k", "auto:4.9bpw", "auto:3.5bpw")  # fmt: skip


def distilled(recipe: str) -> str:
    """The same with trained scales."""
    head, colon, scheme = recipe.partition(":")
    return f"distil+{head}{colon}{scheme}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="reference", help="default reference")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), help="without distil+; default: ten of them")
    options = parser.parse_args()
    trained = MODELS[options.model]()
    data = held_out(trained.folder, trained.held_out)
    positions = data.positions.sum()
    print(f"{trained.about} {len(data.ids)} texts, {positions:,.0f} positions.\n")
    print("| recipe | KL, nats | with distil+ | ratio (95 %) | watched: before, after | seconds of training |")
    print("| --- | ---: | ---: | --- | --- | ---: |")
    for recipe in options.recipes:
        pair = [parse_recipe(text) for text in (recipe, distilled(recipe))]
        with tempfile.TemporaryDirectory() as out:
            made = build(trained.folder, pair, trained.calibration, Path(out), seed=0)
            plain, after = (divergences(data, artifact) for artifact in made)
        told, notes = made[1].notes["watched_divergence"], made[1].notes
        found = bootstrap_ratio(after, plain)
        cells = [recipe, f"{plain.sum() / positions:.5f}", f"{after.sum() / positions:.5f}"]
        cells.append(f"{found.value:.2f} ({found.low or 0:.2f} .. {found.high or 0:.2f})")
        cells += [f"{told['before']:.5f}, {told['after']:.5f}", f"{notes['distil_seconds']:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{this_machine.line()}")


if __name__ == "__main__":
    main()
