"""What every scheme stores for a weight, and what range and precision the floating-point types have.

    python benchmarks/methods_in_bits.py [--rows 4096] [--columns 4096]

Bits are counted in the tensors that the build writes for one matrix: codes, scales, zero points and everything beside
them. For GGUF the type of an attention matrix is counted; the mixes give some tensors more (docs/build.md). Seconds.
"""

from __future__ import annotations

import argparse

import torch

import this_machine
from quantwise.build.storage import storage_for
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import FIXED_SCHEMES, Scheme, parse_scheme, with_layout
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.floats import FLOAT_TYPES
from quantwise.models import reference
from quantwise.quantize.rtn import RoundToNearest

NAME = "model.layers.0.self_attn.q_proj"
INTEGERS = ("int8-channel", "int8-g128", "int4-tensor", "int4-channel", "int4-g128", "int4-g128-asym", "int4-g64",
            "int4-g32", "int4-g32-asym", "int3-g128", "int3-g64", "int2-g64", "int2-g32-asym")  # fmt: skip
LAYOUTS = (("int4-g128", "gptq"), ("int4-g128", "awq"))


def bits(scheme: Scheme, source: ModelFolder, rows: int, columns: int) -> float:
    """All stored bits of one random matrix, for each of its weights."""
    place = storage_for(Recipe(scheme, "rtn"), source)
    grid = place.grid(NAME, torch.Size((rows, columns)))
    if grid is None or isinstance(grid, str):
        raise SystemExit(f"{scheme.name}: {grid}")
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) / 50
    seen = {"absmax": torch.ones(columns)}
    made = RoundToNearest()(weight, grid, seen)
    stored = sum(t.numel() * t.element_size() for t in place.pack(NAME, made, seen).values())
    return 8 * stored / weight.numel()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096, help="default 4096")
    parser.add_argument("--columns", type=int, default=4096, help="default 4096")
    options = parser.parse_args()
    print("| type | bits: sign, exponent, mantissa | largest | smallest normal | smallest | next after 1 |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for kind in FLOAT_TYPES:
        parts = f"{kind.bits}: 1, {kind.exponent}, {kind.mantissa}"
        ends = f"{kind.largest:.7g} | {kind.smallest_normal:.7g} | {kind.smallest:.7g}"
        print(f"| {kind.name} | {parts} | {ends} | 1 + {kind.step:.7g} |")
    print(f"\n| scheme | format | bits for each weight of a {options.rows} x {options.columns} matrix |")
    print("| --- | --- | ---: |")
    source = ModelFolder(reference.path())
    schemes = [parse_scheme(name) for name in INTEGERS]
    schemes += [with_layout(parse_scheme(name), layout) for name, layout in LAYOUTS]
    schemes += [scheme for scheme in FIXED_SCHEMES.values() if scheme.kind != "float"]
    for scheme in schemes:
        print(f"| {scheme.name} | {scheme.format} | {bits(scheme, source, options.rows, options.columns):.4f} |")
    print(f"\n{this_machine.line()}")


if __name__ == "__main__":
    main()
