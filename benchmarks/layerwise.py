"""The field's usual layer-wise assignment as a claim: attention, first and last block higher, against its opposites.

    python benchmarks/layerwise.py [--model reference|prose] [--schemes int4-g128 int3-g128] [--plain int3-g32]

Every matrix is filled once by GPTQ in the lower and once in the higher scheme of ``layerwise-SCHEME``; mixes of the two
are then weighed (held-out KL, Transformers in float32). Pairs of mixes have the same bytes to the byte, because one
feed-forward matrix of these models holds as many weights as the attention of one block. Ratios are of the same texts,
95 % of a bootstrap over texts. The mix that the recipe makes is also built, and must weigh the same. About a minute a
scheme.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

import this_machine
from quantwise.build.calibration import calibrate
from quantwise.build.held_out import HeldOut, divergences, divergences_of, held_out
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.build.walk import build
from quantwise.core.layerwise import Assignment
from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import Scheme, parse_scheme
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.integer import integer_grid
from quantwise.plan.layer_bytes import stored_layer_bytes
from quantwise.quantize.gptq import Gptq
from quantwise.stats.bootstrap import bootstrap_ratio
from trained_models import Trained, prose_model, reference_model

MODELS = {"reference": reference_model, "prose": prose_model}
Matrices = Mapping[str, Tensor]
_PLACE = re.compile(r".*layers\.(\d+)\.(\w+)\.(\w+)")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
# Which of two mixes the claim prefers, and the other; equal bytes.
PAIRS = (
    ("as advised", "the other way round"),
    ("attention", "gate_proj"),
    ("attention", "up_proj"),
    ("attention", "down_proj"),
    ("first and last block", "the blocks between"),
)


def filled(trained: Trained, schemes: Sequence[Scheme]) -> dict[str, dict[str, Tensor]]:
    """Every matrix of the blocks by GPTQ in each scheme: float32, by scheme and layer."""
    source = ModelFolder(trained.folder)
    skeleton, quantizer = Skeleton(source), Gptq()
    data = calibrate(trained.folder, trained.calibration, int(source.config["max_position_embeddings"]), seed=0)
    found: dict[str, dict[str, Tensor]] = {scheme.name: {} for scheme in schemes}
    for block in walk_blocks(skeleton, list(data.batches())):
        for layer, seen in block.items():
            weight = skeleton.model.get_parameter(f"{layer}.weight")
            for scheme in schemes:
                grid = integer_grid(scheme, source.sixteen_bit)
                found[scheme.name][layer] = quantizer(weight, grid, seen.values).dequantized
    return found


def mixes(sizes: Mapping[str, int], assigned: Assignment, scheme: Scheme) -> dict[str, set[str]]:
    """By name, the layers that take the higher scheme; ``sizes`` are their weights."""
    layers = list(sizes)
    outer = {layer for layer in layers if _place(layer)[0] in (0, assigned.last)}
    attention = {layer for layer in layers if _place(layer)[1] == "self_attn"}
    advised = {layer for layer in layers if assigned.scheme_of(layer, scheme) is scheme.higher}
    contrary: set[str] = set()
    # Feed-forward matrices, those of the blocks between first, as many as weigh what the advice weighs.
    for layer in sorted(set(layers) - attention, key=lambda layer: (layer in outer, layers.index(layer))):
        if sum(sizes[one] for one in contrary) < sum(sizes[one] for one in advised):
            contrary.add(layer)
    found = {
        "none": set(),
        "all": set(layers),
        "as advised": advised,
        "the other way round": contrary,
        "attention": attention,
        **{part: {layer for layer in layers if _place(layer)[2] == part} for part in FEED_FORWARD},
        "first and last block": outer,
        "the blocks between": set(layers) - outer,
    }
    for one, other in PAIRS:
        assert sum(sizes[layer] for layer in found[one]) == sum(sizes[layer] for layer in found[other]), (one, other)
    return found


def _place(layer: str) -> tuple[int, str, str]:
    found = _PLACE.fullmatch(layer)
    assert found
    return int(found[1]), found[2], found[3]


def weigh(data: HeldOut, folder: Path, matrices: Matrices) -> NDArray[np.float64]:
    """KL of the model with these matrices, summed over the positions of each text."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.load_state_dict({f"{layer}.weight": values for layer, values in matrices.items()}, strict=False)
    return divergences_of(data, model)


def built(trained: Trained, data: HeldOut, recipe: str) -> NDArray[np.float64]:
    """KL of the recipe itself."""
    with tempfile.TemporaryDirectory() as out:
        made = build(trained.folder, [parse_recipe(recipe)], trained.calibration, Path(out), seed=0)[0]
        return divergences(data, made)


def ratio(some: NDArray[np.float64], others: NDArray[np.float64]) -> str:
    """Of sums, with its interval."""
    found = bootstrap_ratio(some, others)
    return f"{found.value:.2f} ({found.low or 0:.2f} .. {found.high or np.inf:.2f})"


@dataclass(frozen=True, slots=True)
class Mixes:
    """By the name of a mix, bytes of all matrices of blocks, and KL summed over the positions of each text."""

    scheme: Scheme
    bytes: dict[str, int]
    sums: dict[str, NDArray[np.float64]]


def weighed(trained: Trained, data: HeldOut, name: str) -> Mixes:
    """Every mix of one layer-wise scheme."""
    scheme = parse_scheme(f"layerwise-{name}")
    assert scheme.higher
    filling = filled(trained, (parse_scheme(name), scheme.higher))
    low, high = filling[name], filling[scheme.higher.name]
    held = {layer: [stored_layer_bytes(*m.shape, s) or 0 for s in (scheme, scheme.higher)] for layer, m in low.items()}
    sizes = {layer: matrix.numel() for layer, matrix in low.items()}
    found = Mixes(scheme, {}, {})
    for mix, spared in mixes(sizes, Assignment.of(ModelFolder(trained.folder).entries), scheme).items():
        matrices = {layer: (high if layer in spared else low)[layer] for layer in low}
        found.bytes[mix] = sum(pair[layer in spared] for layer, pair in held.items())
        found.sums[mix] = weigh(data, trained.folder, matrices)
    return found


def report(trained: Trained, data: HeldOut, name: str) -> None:
    """Print the table of one layer-wise scheme, and the pairs."""
    found = weighed(trained, data, name)
    sums, higher = found.sums, found.scheme.higher
    print(f"\n{name}, and {higher.name if higher else ''} for:\n")
    print("| higher | bytes of all matrices | KL, nats | to none |\n| --- | ---: | ---: | --- |")
    for mix, held in found.bytes.items():
        kl = sums[mix].sum() / data.positions.sum()
        print(f"| {mix} | {held:,} | {kl:.5f} | {ratio(sums[mix], sums['none'])} |")
    print("\n| the claim prefers | to, of the same bytes | KL, former to latter | |\n| --- | --- | --- | --- |")
    for one, other in PAIRS:
        bounds = bootstrap_ratio(sums[one], sums[other])
        said = "supported" if (bounds.high or np.inf) < 1 else "contradicted" if (bounds.low or 0) > 1 else "undecided"
        print(f"| {one} | {other} | {ratio(sums[one], sums[other])} | {said} here |")
    of_recipe = built(trained, data, f"gptq:layerwise-{name}").sum() / sums["as advised"].sum()
    print(f"\nKL of gptq:layerwise-{name} as it is built, to that of the mix as advised: {of_recipe:.4f}", flush=True)


def report_plain(trained: Trained, data: HeldOut, names: Sequence[str]) -> None:
    """Print schemes that are the same for all layers."""
    print("\n| for all layers | bytes of all matrices | KL, nats |\n| --- | ---: | ---: |")
    schemes = [parse_scheme(name) for name in names]
    for scheme, matrices in zip(schemes, filled(trained, schemes).values(), strict=True):
        held = sum(stored_layer_bytes(*matrix.shape, scheme) or 0 for matrix in matrices.values())
        kl = weigh(data, trained.folder, matrices).sum() / data.positions.sum()
        print(f"| {scheme.name} | {held:,} | {kl:.5f} |", flush=True)


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="reference", help="default reference")
    parser.add_argument("--schemes", nargs="*", default=["int4-g128", "int3-g128"], help="default int4-g128 int3-g128")
    parser.add_argument("--plain", nargs="+", default=[], help="schemes for all layers to show as well, default none")
    options = parser.parse_args()
    trained = MODELS[options.model]()
    data = held_out(trained.folder, trained.held_out)
    print(f"{trained.about} {len(data.ids)} texts, {data.positions.sum():,.0f} positions.")
    if options.plain:
        report_plain(trained, data, options.plain)
    for name in options.schemes:
        report(trained, data, name)
    print(f"\n{this_machine.line()}")


if __name__ == "__main__":
    main()
