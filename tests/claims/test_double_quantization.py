"""QLoRA's claim of double quantization: scales in 8 bit save about 0.37 bit for each weight, at next to no loss.

Dettmers et al. 2023, https://arxiv.org/abs/2305.14314 (section 3): from 32 / 64 = 0.5 bit for the float32 scales of
blocks of 64 to 8 / 64 + 32 / (64 x 256) = 0.127.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measuring import measure

from quantwise.build.storage import storage_for
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import parse_scheme
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.nf4 import Nf4Grid
from quantwise.models import reference
from quantwise.quantize.rtn import RoundToNearest

NAME = "model.layers.0.self_attn.q_proj"


def stored_bits(scheme: str, weight: torch.Tensor) -> float:
    """All that is stored of a matrix, tables and text too, for each weight."""
    place = storage_for(Recipe(parse_scheme(scheme), "rtn"), ModelFolder(reference.path()))
    grid = place.grid(NAME, weight.shape)
    assert isinstance(grid, Nf4Grid)
    tensors = place.pack(NAME, RoundToNearest()(weight, grid, {}), {})
    return 8 * sum(t.numel() * t.element_size() for t in tensors.values()) / weight.numel()


def test_it_saves_0_37_bit_for_each_weight() -> None:
    weight = torch.randn(1024, 4096, generator=torch.Generator().manual_seed(0))
    plain, twice = stored_bits("nf4", weight), stored_bits("nf4-dq", weight)
    assert plain == pytest.approx(4.5, abs=0.001)
    assert twice == pytest.approx(4.127, abs=0.004)
    assert plain - twice == pytest.approx(0.373, abs=0.004)


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_squared_error_grows_by_a_hundredth_at_most(seed: int, spread: float) -> None:
    """Also where rows differ in size, so that scales do: ``spread`` is the deviation of their logarithms."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(256, 1024, generator=generator) * (torch.randn(256, 1, generator=generator) * spread).exp()
    errors = []
    for nested in (False, True):
        grid = Nf4Grid(nested)
        codes, steps = grid.quantize(weight)
        errors.append(float((grid.decode(codes, steps) - weight).square().mean()))
    assert errors[0] != errors[1]
    assert abs(errors[1] / errors[0] - 1) < 0.01


def test_divergence_on_text_is_that_of_plain_nf4(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    found = measure(reference.path(), tmp_path, "nf4", "nf4-dq", texts=12)
    plain, twice = (float(values.mean()) for values in found.values())
    print(f"KL of nf4 {plain:.6f}, of nf4-dq {twice:.6f}")
    assert 0.9 * plain < twice < 1.1 * plain
