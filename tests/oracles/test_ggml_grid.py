"""ggml's block types taken apart and put together: no byte may change, and every value must be ggml's own."""

import numpy as np
import pytest
import torch

from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.grids.ggml_layout import LAYOUTS

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")


def hard_weights() -> np.ndarray:
    """Rows of every kind: smooth, zero, constant, one outlier, tiny, one sign, one sub-block far from the others."""
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((24, 768)).astype(np.float32)
    weight[1] = 0
    weight[2] = 0.25
    weight[3] = -3
    weight[4, 17] = 90
    weight[5] *= 1e-6
    weight[6] = np.abs(weight[6])
    weight[7] = -np.abs(weight[7])
    weight[8, :32] *= 100
    weight[9, 256:512] = 0
    weight[10, ::2] = 0
    weight[11] = np.round(weight[11] * 2) / 8
    weight[12:18] *= np.logspace(-8, 4, 768, dtype=np.float32)
    return weight


def ggml_spelling(name: str) -> str:
    return name.replace("_k", "_K")


IMPORTANCE = np.random.default_rng(5).gamma(0.3, size=768).astype(np.float32) + np.float32(1e-9)


@pytest.mark.parametrize("weights", [None, IMPORTANCE], ids=["plain", "importance"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_bytes_survive_and_values_are_ggmls_bit_for_bit(name: str, weights: np.ndarray | None) -> None:
    grid, weight = GgmlGrid(name), hard_weights()
    stored = GgmlBlocks(name).encode(weight, weights)
    assert stored.dtype == np.uint8
    codes, steps = grid.unpack(stored)
    assert np.array_equal(grid.pack(codes, steps).numpy(), stored)
    expected = ggml_library.decode(ggml_spelling(name), stored, 768)
    assert np.array_equal(grid.decode(codes, steps).numpy(), expected)
    assert np.array_equal(GgmlBlocks(name).decode(stored), expected)
    assert codes.min() >= grid.lowest
    assert codes.max() <= grid.highest


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_byte_pattern_survives(name: str) -> None:
    """Not only what an encoder writes: every bit has one place, and comes back to it."""
    grid = GgmlGrid(name)
    stored = np.random.default_rng(11).integers(0, 256, (40, 2 * grid.layout.size), dtype=np.uint8)
    halves = {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,), "q4_k": (0, 2), "q5_k": (0, 2)}
    for at in halves.get(name, (0, 2) if name.endswith("_1") else (0,)):
        for block in range(2):
            stored[:, block * grid.layout.size + at + 1] &= 0xBF  # no infinities and no NaN among the scales
    codes, steps = grid.unpack(stored)
    assert np.array_equal(grid.pack(codes, steps).numpy(), stored)
    expected = ggml_library.decode(ggml_spelling(name), stored, 2 * grid.block)
    assert np.array_equal(grid.decode(codes, steps).numpy(), expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_rounding_finds_the_nearest_code(name: str) -> None:
    grid = GgmlGrid(name)
    weight = torch.from_numpy(hard_weights())
    steps = grid.fit(weight)
    scale, zero = steps.spread()
    found = (grid.value(grid.round(weight, scale, zero), scale, zero) - weight).abs().double()
    least = torch.full_like(found, torch.inf)
    for code in range(grid.lowest, grid.highest + 1):
        least = least.minimum((grid.value(torch.full_like(weight, code), scale, zero) - weight).abs().double())
    # Half-way cases may fall to either side; float32 tells them apart to a few units in the last place.
    assert bool((found <= least + 1e-6 * (weight.abs() + scale.abs())).all())


@pytest.mark.parametrize("name", LAYOUTS)
def test_inputs_of_no_importance_keep_their_weights(name: str) -> None:
    """ggml alone writes zeros for a block without importance; a dead channel in calibration need not be dead later."""
    grid = GgmlGrid(name)
    weight = torch.randn(8, 512, generator=torch.Generator().manual_seed(1))
    importance = torch.cat([torch.zeros(256), torch.ones(256)])
    for given in (importance, torch.zeros(512)):
        codes, steps = grid.quantize(weight, given)
        error = (grid.decode(codes, steps) - weight).square().mean(0)
        assert float(error[:256].mean()) < 2 * float(error[256:].mean())


def test_importance_moves_error_to_where_it_costs_less() -> None:
    weight = torch.randn(64, 512, generator=torch.Generator().manual_seed(4))
    importance = torch.logspace(-3, 3, 512)[torch.randperm(512, generator=torch.Generator().manual_seed(5))]
    for name in ("q4_0", "q2_k", "q3_k", "q4_k"):
        grid = GgmlGrid(name)

        def cost(given: torch.Tensor | None, grid: GgmlGrid = grid) -> float:
            codes, steps = grid.quantize(weight, given)
            return float(((grid.decode(codes, steps) - weight).square() * importance).sum())

        assert cost(importance) < 0.8 * cost(None), name


def test_rows_are_shared_out_without_a_trace() -> None:
    """A matrix large enough for threads gives the bytes of its rows encoded one by one."""
    weight = np.random.default_rng(8).standard_normal((301, 512)).astype(np.float32)
    blocks = GgmlBlocks("q4_k")
    whole = blocks.encode(weight, IMPORTANCE[:512])
    assert np.array_equal(whole, np.vstack([blocks.encode(row[None], IMPORTANCE[:512]) for row in weight]))
