"""Methods over calibration seeds: can the best seed of one lose to the worst of another?

    python benchmarks/calibration_seeds.py [--recipes A B ...] [--seeds 6] [--samples 16] [--texts 72]

Every seed draws another calibration set of the same size from the suites' calibration split; all recipes are built
from it in one pass. Mean KL from 16 bit is measured on held-out text of the screening split. For each pair, the best
seed of the method that is worse on average meets the worst seed of the other, on the same texts. Whichever way it comes
out, a seed is part of what is shipped, so artifacts are certified, not methods. About four minutes on two cores. One
small model: what is found of these methods need not carry over to another.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import this_machine
from quantwise.build.held_out import HeldOut, divergences, held_out
from quantwise.build.walk import build
from quantwise.calibration_study import in_domain
from quantwise.chat import ChatTemplate
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.models import reference
from quantwise.stats.bootstrap import bootstrap_ratio

POOL = 1024
RECIPES = ["gptq:int4-g64", "awq+gptq:int4-g64", "imatrix:int4-g64", "awq+rtn:int4-g64"]
FloatArray = NDArray[np.float64]


def measure(recipes: Sequence[Recipe], data: HeldOut, seeds: int, samples: int) -> dict[str, FloatArray]:
    """Recipe to KL summed over the positions of each text: (seeds, texts)."""
    folder = reference.path()
    pool = in_domain("calibration", POOL, ChatTemplate.from_folder(folder))
    found: dict[str, list[FloatArray]] = {recipe.name: [] for recipe in recipes}
    for seed in range(seeds):
        texts = random.Random(seed).sample(pool, samples)
        with tempfile.TemporaryDirectory() as out:
            for recipe, artifact in zip(recipes, build(folder, recipes, texts, Path(out), seed=seed), strict=True):
                found[recipe.name].append(divergences(data, artifact))
    return {name: np.array(rows) for name, rows in found.items()}


def verdict(best_of: str, worst_of: str, found: dict[str, FloatArray], data: HeldOut) -> str:
    """The best seed of one against the worst of the other, on the same texts."""
    best = min(found[best_of], key=lambda sums: float(sums.sum()))
    worst = max(found[worst_of], key=lambda sums: float(sums.sum()))
    more = bootstrap_ratio(best - worst, data.positions)
    low, high = more.low or 0.0, more.high or 0.0
    said = "loses to" if low > 0 else "beats" if high < 0 else "is not told from"
    by = f"{more.value:+.5f} ({low:+.5f} .. {high:+.5f})"
    return f"the best seed of {best_of} {said} the worst of {worst_of}: KL differs by {by}"


def ordered(first: str, second: str, found: dict[str, FloatArray]) -> tuple[str, str]:
    """The method that is worse on average, and the better one: its best seed has the harder case to make."""
    means = {name: float(found[name].sum()) for name in (first, second)}
    return max(means, key=means.__getitem__), min(means, key=means.__getitem__)


def main() -> None:
    """Print the table and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="RECIPE")
    parser.add_argument("--seeds", type=int, default=6, help="default 6")
    parser.add_argument("--samples", type=int, default=16, help="calibration texts of a seed, default 16")
    parser.add_argument("--texts", type=int, default=72, help="held-out texts, default 72")
    options = parser.parse_args()
    folder = reference.path()
    data = held_out(folder, in_domain("screen", options.texts, ChatTemplate.from_folder(folder)))
    found = measure([parse_recipe(text) for text in options.recipes], data, options.seeds, options.samples)
    print(f"| recipe | {' | '.join(f'seed {i}' for i in range(options.seeds))} | mean | best | worst |")
    print(f"| --- |{' ---: |' * (options.seeds + 3)}")
    for name, sums in found.items():
        kl = sums.sum(axis=1) / data.positions.sum()
        print(f"| {name} | {' | '.join(f'{v:.5f}' for v in kl)} | {kl.mean():.5f} | {kl.min():.5f} | {kl.max():.5f} |")
    print(
        f"\nMean KL from 16 bit, nats; {options.samples} calibration texts a seed; 95 % intervals over held-out texts."
    )
    for first, second in itertools.combinations(found, 2):
        print(verdict(*ordered(first, second, found), found, data))
    print(f"\n{this_machine.line()}")


if __name__ == "__main__":
    main()
