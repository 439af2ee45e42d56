"""NF4 bit for bit against bitsandbytes, against values it gave (for where it is not installed), and its claim."""

import hashlib
from types import ModuleType
from typing import Any

import pytest
import torch

from quantwise.grids.nf4 import Nf4Grid, dynamic_numbers, normal_quantiles, round_scales

# Printed by bitsandbytes 0.50.2 on a CPU, with `functional` imported as F:
#   [v.hex() for v in F.get_4bit_type("nf4", "cpu").tolist()]
TABLE = (
    "-0x1.0000000000000p+0 -0x1.6473620000000p-1 -0x1.0cd6600000000p-1 -0x1.9465400000000p-2 "
    "-0x1.23449a0000000p-2 -0x1.7a6a7e0000000p-3 -0x1.74f0e20000000p-4 0x0.0p+0 0x1.45f5fe0000000p-4 "
    "0x1.4995c60000000p-3 0x1.f809ba0000000p-3 0x1.5a06740000000p-2 0x1.c349700000000p-2 0x1.200f560000000p-1 "
    "0x1.7227660000000p-1 0x1.0000000000000p+0"
)
#   hashlib.blake2b(F.create_dynamic_map().numpy().tobytes(), digest_size=8).hexdigest()
DYNAMIC = "c01e8b70d775f98d"
#   F.quantize_4bit(plain_weight(), quant_type="nf4")[0].numpy().tobytes().hex(), and the absmax of its state
CODES = (
    "04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c16d18e3b04c17e29f3b05d17e2af4c06d18e2a04c"
    "16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c16d18e3b04c17e29f3b05d17e2af4c06d18e2a04c16e"
    "29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05"
)
ABSMAX = [3.125, 12.5, 1.5625, 50.0]


def plain_weight() -> torch.Tensor:
    """(4, 64) of small fractions, the same everywhere."""
    return ((torch.arange(256) * 37 % 101 - 50).reshape(4, 64) / torch.tensor([[16.0], [4.0], [32.0], [1.0]])).float()


def random_weight(seed: int = 0, rows: int = 300, columns: int = 512) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


@pytest.fixture(scope="module")
def bitsandbytes() -> Any:
    """``bitsandbytes.functional``."""
    return pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")


def unpacked(packed: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    flat = packed.reshape(-1)
    return torch.stack([flat >> 4, flat & 15], dim=1).reshape(shape).to(torch.int8)


def test_against_values_that_bitsandbytes_gave() -> None:
    assert [v.hex() for v in normal_quantiles().tolist()] == TABLE.split()
    assert hashlib.blake2b(dynamic_numbers().numpy().tobytes(), digest_size=8).hexdigest() == DYNAMIC
    codes, steps = Nf4Grid().quantize(plain_weight())
    assert steps.scale.reshape(-1).tolist() == ABSMAX
    assert torch.equal(codes, unpacked(torch.tensor(list(bytes.fromhex(CODES))), codes.shape))


def test_the_tables_equal_those_of_bitsandbytes(bitsandbytes: ModuleType) -> None:
    assert torch.equal(normal_quantiles(), bitsandbytes.get_4bit_type("nf4", "cpu"))
    assert torch.equal(dynamic_numbers(), bitsandbytes.create_dynamic_map())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_scales_and_values_equal_those_of_bitsandbytes(bitsandbytes: ModuleType, dtype: torch.dtype) -> None:
    weight = random_weight().to(dtype)
    weight[0] = 0
    packed, state = bitsandbytes.quantize_4bit(weight, quant_type="nf4")
    codes, steps = Nf4Grid().quantize(weight)
    assert torch.equal(codes, unpacked(packed, weight.shape))
    assert torch.equal(steps.scale.reshape(-1), state.absmax)
    assert torch.equal(Nf4Grid().decode(codes, steps).to(dtype), bitsandbytes.dequantize_4bit(packed, state))


@pytest.mark.parametrize("seed", range(3))
def test_double_quantization_equals_that_of_bitsandbytes(bitsandbytes: ModuleType, seed: int) -> None:
    weight = random_weight(seed)
    _, state = bitsandbytes.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    plain = Nf4Grid().fit(weight).scale.reshape(-1)
    rounded = round_scales(plain)
    assert torch.equal(rounded.mean, state.offset)
    assert torch.equal(rounded.largest, state.state2.absmax)
    # The library's portable kernel, which agrees with its GPU one, takes the nearest number ...
    portable = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)
    operator = torch.ops.bitsandbytes.quantize_blockwise.default
    codes, _ = operator.redispatch(portable, plain - plain.mean(), dynamic_numbers(), 256)
    assert torch.equal(rounded.codes, codes)
    # ... its native CPU kernel sometimes a neighbour; where it does, ours is nearer.
    other = rounded.codes != state.absmax
    assert other.sum() <= 0.005 * len(other)
    theirs = bitsandbytes.dequantize_blockwise(state.absmax, state.state2) + state.offset
    assert bool(((rounded.values() - plain).abs() <= (theirs - plain).abs())[other].all())
    assert torch.equal(rounded.values()[~other], theirs[~other])


def test_codes_are_the_nearest_of_all_sixteen() -> None:
    weight = random_weight(1, rows=8, columns=128)
    codes, steps = Nf4Grid().quantize(weight)
    scale, _ = steps.spread()
    distances = (normal_quantiles().double() * scale.double().unsqueeze(-1) - weight.double().unsqueeze(-1)).abs()
    chosen = distances.gather(-1, codes.long().unsqueeze(-1)).squeeze(-1)
    assert bool((chosen <= distances.amin(-1) + 1e-6 * scale).all())


def test_with_rounded_scales_codes_are_chosen_anew_and_err_less() -> None:
    weight = random_weight(2)
    plain, double = Nf4Grid(), Nf4Grid(double=True)
    codes, steps = double.quantize(weight)
    assert steps.rounded is not None
    assert torch.equal(steps.rounded.values().reshape(steps.scale.shape), steps.scale)
    theirs = double.decode(plain.quantize(weight)[0], steps)
    assert (double.decode(codes, steps) - weight).square().mean() < (theirs - weight).square().mean()


def test_equal_scales_and_blocks_of_zeros_survive_double_quantization() -> None:
    weight = torch.ones(8, 128)
    codes, steps = Nf4Grid(double=True).quantize(weight)
    assert torch.equal(Nf4Grid(double=True).decode(codes, steps), weight)
    codes, steps = Nf4Grid(double=True).quantize(torch.zeros(2, 64))
    assert bool((Nf4Grid(double=True).decode(codes, steps) == 0).all())


def test_a_row_that_does_not_split_is_refused() -> None:
    with pytest.raises(ValueError, match="do not split into blocks of 64"):
        Nf4Grid().fit(torch.ones(2, 96))


def test_nf4_beats_int4_on_normal_weights_at_the_same_block() -> None:
    from quantwise.grids.integer import IntegerGrid

    weight = torch.randn(64, 1024, generator=torch.Generator().manual_seed(5))
    nf4, int4 = Nf4Grid(), IntegerGrid(4, "group", 64, scale_dtype=torch.float32)
    codes, steps = nf4.quantize(weight)
    error = (nf4.decode(codes, steps) - weight).square().mean()
    plain = int4.decode(*int4.quantize(weight)) - weight
    assert error < 0.85 * plain.square().mean()
