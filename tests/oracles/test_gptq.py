"""GPTQ against the obvious version: one column at a time, the inverse of what remains of the Hessian taken anew."""

import weakref

import pytest
import torch

from quantwise.core.errors import QuantwiseError
from quantwise.core.scheme import parse_scheme
from quantwise.grids import ggml_library
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.grids.integer import IntegerGrid, integer_grid
from quantwise.quantize.gptq import Factor, Gptq, factorize, share_factors
from quantwise.quantize.imatrix import ImportanceWeighted
from quantwise.quantize.rtn import RoundToNearest


def slow_gptq(
    weight: torch.Tensor, grid: IntegerGrid | GgmlGrid, hessian: torch.Tensor, act_order: bool, search: bool
) -> torch.Tensor:
    """Codes (out, in) in float64 arithmetic. After each column, the columns left take the optimal correction."""
    hessian = hessian.clone()
    seen = hessian.diagonal() > 0
    mean = hessian.diagonal()[seen].mean()
    columns = hessian.shape[0]
    order = sorted(range(columns), key=lambda j: -float(hessian[j, j])) if act_order else list(range(columns))
    hessian[~seen, ~seen] = mean
    hessian += 0.01 * mean * torch.eye(columns, dtype=torch.float64)
    inverses = [torch.linalg.inv(hessian[order[i:]][:, order[i:]]) for i in range(columns)]
    penalty = torch.empty(columns, dtype=torch.float64)
    for inverse, j in zip(inverses, order, strict=True):
        penalty[j] = 1 / inverse[0, 0]
    scale, zero = grid.fit(weight, penalty if search else None).spread()
    scale, left = scale.expand_as(weight).double(), weight.double().clone()
    codes = torch.zeros_like(left)
    for i, j in enumerate(order):
        z = None if zero is None else zero.expand_as(weight)[:, j].double()
        codes[:, j] = grid.round(left[:, j].clone(), scale[:, j], z)
        error = left[:, j] - grid.value(codes[:, j], scale[:, j], z)
        for k, other in enumerate(order[i:]):
            left[:, other] -= error / inverses[i][0, 0] * inverses[i][0, k]
    return codes


def inputs(columns: int, tokens: int, seed: int, silent: tuple[int, ...] = ()) -> torch.Tensor:
    """Correlated inputs with channels of very different size; their Hessian, float64."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(tokens, columns, generator=generator, dtype=torch.float64) @ mixing
    x *= torch.logspace(-1, 1, columns, dtype=torch.float64)[torch.randperm(columns, generator=generator)]
    x[:, list(silent)] = 0
    return x.T @ x


CASES = [
    ("int4-g32", 24, 64, True, True, ()),
    ("int4-g32-asym", 17, 96, True, True, ()),
    ("int4-channel", 5, 45, True, False, ()),
    ("int3-channel-asym", 9, 37, False, True, (3, 36)),
    ("int4-tensor", 16, 40, True, True, (0, 7, 8)),
    ("int8-g32", 3, 32, False, False, ()),
    ("int2-g64", 8, 64, True, True, (63,)),
    ("int4-channel", 1, 1, True, True, ()),
]


@pytest.mark.parametrize(("name", "rows", "columns", "act_order", "search", "silent"), CASES)
@pytest.mark.parametrize("block", [7, 128])
def test_codes_equal_the_obvious_version(
    name: str, rows: int, columns: int, act_order: bool, search: bool, silent: tuple[int, ...], block: int
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    hessian = inputs(columns, 4 * columns, columns, silent)
    grid = integer_grid(parse_scheme(name))
    made = Gptq(block=block, act_order=act_order, search=search)(weight, grid, {"hessian": hessian})
    slow = slow_gptq(weight, grid, hessian, act_order, search)
    # float32 against float64: a weight that lies on the edge between two codes may fall to either side.
    assert float((made.codes == slow).double().mean()) >= 0.995
    assert bool(silent) == any("silent" in d.what for d in made.degradations)


@pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
@pytest.mark.parametrize(("name", "columns"), [("q4_0", 64), ("q5_1", 96), ("q2_k", 256), ("q3_k", 256)])
def test_codes_in_ggml_blocks_equal_the_obvious_version(name: str, columns: int) -> None:
    weight = torch.randn(6, columns, generator=torch.Generator().manual_seed(1))
    weight[0, :32] = 0
    hessian, grid = inputs(columns, 4 * columns, columns), GgmlGrid(name)
    made = Gptq()(weight, grid, {"hessian": hessian})
    slow = slow_gptq(weight, grid, hessian, act_order=True, search=True)
    # Where the scale is zero, codes mean nothing.
    scale, zero = made.steps.spread()
    same = grid.value(made.codes.float(), scale, zero) == grid.value(slow.float(), scale, zero)
    assert float(same.double().mean()) >= 0.99


@pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
@pytest.mark.parametrize(("name", "most"), [("q4_0", 0.5), ("q2_k", 0.7), ("q3_k", 0.5), ("q4_k", 0.5), ("q6_k", 0.5)])
def test_in_ggml_blocks_it_beats_importance_and_that_beats_rounding(name: str, most: float) -> None:
    weight, grid = torch.randn(32, 256, generator=torch.Generator().manual_seed(0)), GgmlGrid(name)
    hessian = inputs(256, 2048, 1)
    seen = {"hessian": hessian, "mean_square": hessian.diagonal() / 2048}
    lost = [
        loss(make()(weight, grid, seen).dequantized - weight, hessian)
        for make in (RoundToNearest, ImportanceWeighted, Gptq)
    ]
    assert lost[1] < lost[0]
    assert lost[2] < most * lost[1]


def loss(change: torch.Tensor, hessian: torch.Tensor) -> float:
    return float(torch.einsum("oi,ij,oj->", change.double(), hessian, change.double()))


def test_it_beats_rounding_by_far_on_correlated_inputs() -> None:
    weight, hessian = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), inputs(64, 512, 1)
    grid = integer_grid(parse_scheme("int4-g64"))
    steps = grid.fit(weight)
    rounded = loss(grid.decode(grid.encode(weight, steps), steps) - weight, hessian)
    made = Gptq()(weight, grid, {"hessian": hessian})
    assert loss(made.dequantized - weight, hessian) < 0.3 * rounded


def test_a_silent_channel_is_rounded_to_nearest_not_dropped() -> None:
    weight, hessian = torch.randn(4, 32, generator=torch.Generator().manual_seed(2)), inputs(32, 99, 2, silent=(5,))
    grid = integer_grid(parse_scheme("int8-channel"))
    made = Gptq()(weight, grid, {"hessian": hessian})
    assert torch.allclose(made.dequantized[:, 5], weight[:, 5], atol=float(made.steps.scale.max()) / 2 + 1e-6)


def test_a_rank_one_hessian_is_damped_and_an_indefinite_one_says_so() -> None:
    weight, grid = torch.randn(4, 32), integer_grid(parse_scheme("int4-channel"))
    x = torch.randn(1, 32, dtype=torch.float64)
    one_token = Gptq()(weight, grid, {"hessian": x.T @ x})
    assert bool(torch.isfinite(one_token.dequantized).all())
    negative = x.T @ x
    negative.diagonal()[:] += 1.0
    negative[0, 1] = negative[1, 0] = 3 * float(negative.diagonal().mean())
    made = Gptq()(weight, grid, {"hessian": negative})
    assert any("damping raised" in d.what for d in made.degradations)


def test_inputs_that_are_not_finite_are_refused() -> None:
    hessian = torch.full((8, 8), torch.nan, dtype=torch.float64)
    with pytest.raises(QuantwiseError, match="not finite"):
        Gptq()(torch.randn(2, 8), integer_grid(parse_scheme("int4-channel")), {"hessian": hessian})


def test_shared_factors_give_the_same_codes_and_leave_with_their_hessian(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian, weight = inputs(64, 500, 3), torch.randn(12, 64, generator=torch.Generator().manual_seed(5))
    grids = [integer_grid(parse_scheme(name)) for name in ("int4-g32", "int3-channel")]
    alone = [Gptq()(weight, grid, {"hessian": hessian}) for grid in grids]
    found: list[weakref.ref[torch.Tensor]] = []

    def counted(*given: object) -> Factor:
        factor = factorize(*given)  # type: ignore[arg-type]
        found.append(weakref.ref(factor.upper))
        return factor

    monkeypatch.setattr("quantwise.quantize.gptq.factorize", counted)
    quantizers = [Gptq(), Gptq(), Gptq(damping=0.1), RoundToNearest()]
    share_factors(quantizers)
    together = [
        quantizer(weight, grid, {"hessian": hessian}) for quantizer, grid in zip(quantizers[:2], grids, strict=True)
    ]
    assert len(found) == 1
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(alone, together, strict=True))
    del hessian
    assert found[0]() is None
