"""Scales of inputs fixed by calibration against a scale per token, when inputs are and are not those of calibration.

    python benchmarks/activation_scales.py [--texts 48] [--samples 64]

Each recipe is built twice, calibrated on solved items of the suites (their chat format) and on generated prose, and
measured on held-out text of both, on the reference model and on the same function with outlier channels
(quantwise/testing/outlier_model.py). Weights are rounded to nearest throughout, so only inputs differ. The ratio is
mean KL from 16 bit with fixed scales over that with a scale per token, on the same texts; intervals (95 %) resample
texts. "Shift" is the KL with fixed scales when calibrated on the other kind of text, over that when calibrated on this
kind. Inputs are rounded as vLLM rounds them, all else is float32. About three minutes on two cores. One small model:
what is found need not carry over to another.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import this_machine
from quantwise.build.held_out import divergences, held_out
from quantwise.build.walk import build
from quantwise.chat import ChatTemplate
from quantwise.core.item import Message
from quantwise.core.recipe import parse_recipe
from quantwise.models import reference
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio
from quantwise.tasks import SUITES
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import Split, solved_items
from quantwise.testing.outlier_model import write_outlier_model

# Fixed scales, and the recipe with a scale per token that they are compared with.
PAIRS = {
    "w8a8-static": "w8a8",
    "smoothquant+rtn:w8a8-static": "smoothquant+rtn:w8a8",
    "fp8-static": "fp8",
}
DOMAINS = ("suites", "prose")
FloatArray = NDArray[np.float64]
Sums = dict[tuple[str, str, str], FloatArray]
Positions = dict[str, FloatArray]


def texts_of(domain: str, split: Split, count: int, template: ChatTemplate | None) -> list[str]:
    """About ``count`` texts of one kind and split."""
    if domain == "prose":
        return held_out_text(split, count)
    each = max(1, count // len(SUITES))
    return [
        template.render((*item.messages, Message("assistant", answer)), add_generation_prompt=False)
        if template and item.messages
        else f"{item.text}\n{answer}"
        for suite in SUITES
        for item, answer in solved_items(suite, split, each)
    ]


def measure(model: Path, texts: int, samples: int, template: ChatTemplate | None) -> tuple[Sums, Positions]:
    """KL summed over positions, (texts,), by (calibrated on, measured on, recipe); positions by what is measured on."""
    names = [name for pair in PAIRS.items() for name in pair]
    held = {domain: held_out(model, texts_of(domain, "screen", texts, template)) for domain in DOMAINS}
    found: Sums = {}
    for calibrated in DOMAINS:
        with tempfile.TemporaryDirectory() as out:
            made = build(
                model,
                [parse_recipe(n) for n in names],
                texts_of(calibrated, "calibration", samples, template),
                Path(out),
            )
            for name, artifact in zip(names, made, strict=True):
                for domain, data in held.items():
                    found[calibrated, domain, name] = divergences(data, artifact)
    return found, {domain: data.positions for domain, data in held.items()}


def shown(estimate: Estimate) -> str:
    """A ratio with its interval."""
    low, high = estimate.low or 0.0, estimate.high if estimate.high is not None else float("inf")
    return f"{estimate.value:.2f} ({low:.2f} .. {high:.2f})"


def lines(model: str, found: Sums, positions: Positions) -> list[str]:
    """The rows of one model."""
    rows = []
    for fixed, token in PAIRS.items():
        for domain in DOMAINS:
            other = next(d for d in DOMAINS if d != domain)
            total = positions[domain].sum()
            own, shifted = found[domain, domain, fixed], found[other, domain, fixed]
            dynamic = found[domain, domain, token]
            moved = found[other, domain, token]
            rows.append(
                f"| {model} | {fixed} | {domain} | {dynamic.sum() / total:.6f} | {own.sum() / total:.6f} | "
                f"{shown(bootstrap_ratio(own, dynamic))} | {shown(bootstrap_ratio(shifted, moved))} | "
                f"{shown(bootstrap_ratio(shifted, own))} |"
            )
    return rows


def main() -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=48, help="held-out texts of each kind, default 48")
    parser.add_argument("--samples", type=int, default=64, help="calibration texts of each kind, default 64")
    options = parser.parse_args()
    template = ChatTemplate.from_folder(reference.path())
    print(
        "| model | fixed scales | measured on | KL, scale per token | KL, fixed | fixed / per token | "
        "the same, calibrated on the other kind | shift |"
    )
    print("| --- | --- | --- | ---: | ---: | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        models = {"reference": reference.path(), "with outliers": write_outlier_model(Path(folder) / "model")}
        for name, place in models.items():
            found, positions = measure(place, options.texts, options.samples, template)
            print("\n".join(lines(name, found, positions)), flush=True)
    print(f"\nMean KL from 16 bit in nats. {this_machine.line()}")


if __name__ == "__main__":
    main()
