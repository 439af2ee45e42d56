"""Which tensors of the reference model mind rounding most, and whether feed-forward minds less than attention.

    python benchmarks/layer_sensitivity.py [--bits 3 4] [--texts 72]

One class of tensors at a time is rounded to nearest in groups of 64; all else stays in 16 bit. Divergence is that of
the next-token distributions on held-out text of the suites (screening split), over the whole vocabulary, in float32.
Per bit saved it is comparable between classes of different size. Intervals (95 %) resample texts; the verdicts compare
classes on the same texts. About a minute on two cores. One small model: the ranking need not carry over to another.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quantwise.build.held_out import HeldOut, divergences_of, held_out
from quantwise.calibration_study import in_domain
from quantwise.chat import ChatTemplate
from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import integer_grid
from quantwise.models import reference
from quantwise.quantize import QUANTIZERS
from quantwise.stats.bootstrap import Estimate, bootstrap_ratio

ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
CLASSES: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*ATTENTION, *FEED_FORWARD)},
    "embeddings (tied)": ("embed_tokens",),
    "attention": ATTENTION,
    "feed-forward": FEED_FORWARD,
}
FloatArray = NDArray[np.float64]


def rounded(model: torch.nn.Module, names: Sequence[str], scheme: str) -> tuple[torch.nn.Module, float]:
    """A copy whose weights of these modules are rounded, and the millions of bits that saves against 16 bit."""
    made, saved = copy.deepcopy(model), 0.0
    parsed = parse_scheme(scheme)
    for name, module in made.named_modules():
        if name.rsplit(".", 1)[-1] in names:
            weight = module.weight.data
            weight.copy_(QUANTIZERS["rtn"]()(weight, integer_grid(parsed), {}).dequantized)
            saved += weight.numel() * (16 - parsed.bits_per_weight(*weight.shape)) / 1e6
    return made, saved


def measure(folder: pathlib.Path, data: HeldOut, bits: int) -> dict[str, tuple[FloatArray, float]]:
    """For each class: KL summed over the positions of each text, and Mbit saved."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = {}
    for name, modules in CLASSES.items():
        made, saved = rounded(model, modules, f"int{bits}-g64")
        found[name] = (divergences_of(data, made), saved)
    return found


def shown(estimate: Estimate, scale: float = 1.0) -> str:
    """A value with its interval."""
    low, high = (scale * (bound or 0.0) for bound in (estimate.low, estimate.high))
    return f"{scale * estimate.value:.5f} ({low:.5f} .. {high:.5f})"


def verdict(found: dict[str, tuple[FloatArray, float]]) -> str:
    """The claim, judged by the ratio of KL per bit saved, feed-forward to attention, on the same texts."""
    (feed, feed_saved), (attention, attention_saved) = found["feed-forward"], found["attention"]
    ratio = bootstrap_ratio(feed / feed_saved, attention / attention_saved)
    low, high = ratio.low or 0.0, ratio.high or float("inf")
    said = "supported here" if high < 1 else "contradicted here" if low > 1 else "undecided here"
    return f"{ratio.value:.2f} ({low:.2f} .. {high:.2f}): {said}"


def main() -> None:
    """Print the table and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="+", default=[3, 4], help="default 3 4")
    parser.add_argument("--texts", type=int, default=72, help="held-out texts, default 72")
    options = parser.parse_args()
    folder = reference.path()
    data = held_out(folder, in_domain("screen", options.texts, ChatTemplate.from_folder(folder)))
    verdicts = []
    print("| bits | class | Mbit saved | mean KL, nats (95 %) | KL per Mbit saved, millinats (95 %) |")
    print("| --- | --- | ---: | --- | --- |")
    for bits in options.bits:
        found = measure(folder, data, bits)
        for name, (sums, saved) in found.items():
            kl = bootstrap_ratio(sums, data.positions)
            print(f"| {bits} | {name} | {saved:.2f} | {shown(kl)} | {shown(kl, 1000 / saved)} |", flush=True)
        verdicts.append(f"{bits} bit: feed-forward to attention, KL per bit saved, {verdict(found)}")
    print("\nThe claim that feed-forward is less sensitive than attention, at equal bits saved:")
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
