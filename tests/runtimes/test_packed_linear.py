"""Packed layers against float64 arithmetic on the numbers that their codes stand for."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quantwise.runtimes.packed_linear import PackedInt4, PackedInt8, packed_linear, rows_packed_together
from quantwise.runtimes.stored_layer import StoredLayer

ROWS = (1, 3, 8, 9, 17, 48, 49)


def stored(
    bits: int, out: int, columns: int, groups: int, *, zeros: bool = False, one_scale: bool = False
) -> StoredLayer:
    """A layer of random codes whose scales bfloat16 holds."""
    generator = torch.Generator().manual_seed(out + columns)
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (out, columns), generator=generator, dtype=torch.int8)
    shape = (1, 1) if one_scale else (out, groups)
    scale = (torch.rand(shape, generator=generator) / 50 + 0.001).bfloat16().float()
    zero = torch.randint(-half, half, shape, generator=generator).float() if zeros else None
    return StoredLayer(codes, scale, zero, bits=bits)


def check(layer: StoredLayer, dtype: torch.dtype, *, bias: Tensor | None = None, weights_rounded: bool = False) -> None:
    """Every output lies within the rounding of its type (twice: the sum, and the scale or bias) and of float32 sums;
    where a wide path rounds weights to that type first, within their rounding too.
    """
    module = packed_linear(layer, bias, dtype)
    assert module is not None
    weight = layer.values().double()
    generator = torch.Generator().manual_seed(7)
    for rows in ROWS:
        x = torch.randn(rows, weight.shape[1], generator=generator).to(dtype)
        got = module(x[None])
        assert (got.dtype, got.shape) == (dtype, (1, rows, len(weight)))
        wanted, sums = x.double() @ weight.T, x.double().abs() @ weight.abs().T
        if bias is not None:
            wanted = wanted + bias.double()
        step = torch.finfo(dtype).eps
        allowed = 1.01 * step * wanted.abs() + 3e-6 * sums + (step * bias.double().abs() if bias is not None else 0)
        if bias is not None:
            allowed = allowed + step * (wanted - bias.double()).abs()
        if weights_rounded:
            allowed = allowed + 0.5 * step * sums
        assert bool(((got[0].double() - wanted).abs() <= allowed).all()), rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("out", "columns"), [(64, 128), (5, 33), (100, 48)])
def test_eight_bits(out: int, columns: int, dtype: torch.dtype) -> None:
    layer = stored(8, out, columns, 1)
    check(layer, dtype)
    module = packed_linear(layer, None, dtype)
    assert isinstance(module, PackedInt8)
    assert torch.equal(module.codes(), layer.codes)
    assert module.weight.numel() < layer.codes.numel() + 16 * out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("out", "columns", "groups"), [(64, 128, 1), (100, 192, 3), (17, 64, 2), (70, 1024, 2)])
def test_four_bits(out: int, columns: int, groups: int, zeros: bool, dtype: torch.dtype) -> None:
    layer = stored(4, out, columns, groups, zeros=zeros)
    check(layer, dtype, weights_rounded=True)
    module = packed_linear(layer, None, dtype)
    assert isinstance(module, PackedInt4)
    if rows_packed_together() is not None:
        assert torch.equal(module.codes(), layer.codes)


def test_one_scale_for_all_a_bias_and_scales_that_the_type_cannot_hold() -> None:
    bias = torch.randn(40, generator=torch.Generator().manual_seed(1)).bfloat16()
    for bits in (8, 4):
        check(stored(bits, 40, 64, 1, one_scale=True), torch.bfloat16, bias=bias, weights_rounded=True)
        layer = stored(bits, 40, 64, 1)
        fine = StoredLayer(layer.codes, layer.scale * 1.001, None, bits=bits)
        assert not torch.equal(fine.scale, fine.scale.bfloat16().float())
        check(fine, torch.bfloat16, weights_rounded=True)


def test_kernels_are_left_alone_where_they_multiply_number_by_number() -> None:
    exact = stored(4, 64, 128, 1)
    inexact = replace(exact, scale=exact.scale * 1.001)
    seen = [
        packed_linear(layer, None, dtype).narrow_rows > 0  # type: ignore[union-attr]
        for layer in (exact, inexact, stored(4, 64, 128, 1, zeros=True), stored(8, 64, 128, 1))
        for dtype in (torch.bfloat16, torch.float16)
    ]
    assert seen == [True, False, False, False, True, False, True, False]


def test_inputs_whose_groups_lie_in_another_order() -> None:
    layer = stored(4, 64, 128, 2, zeros=True)
    group = torch.arange(128)[torch.randperm(128, generator=torch.Generator().manual_seed(2))] // 64
    shuffled = StoredLayer(layer.codes, layer.scale, layer.zero, group=group, bits=4)
    assert not torch.equal(shuffled.values(), layer.values())
    check(shuffled, torch.bfloat16, weights_rounded=True)
    uneven = StoredLayer(layer.codes, layer.scale, layer.zero, group=torch.zeros(128, dtype=torch.int64), bits=4)
    with pytest.raises(ValueError, match="different sizes"):
        packed_linear(uneven, None, torch.bfloat16)


def test_what_no_kernel_takes_is_not_packed() -> None:
    zeros = stored(8, 32, 64, 1, zeros=True)
    for layer in (zeros, stored(8, 32, 64, 2), stored(3, 32, 64, 1), stored(4, 32, 48, 1)):
        assert packed_linear(layer, None, torch.bfloat16) is None


def test_where_the_layout_is_unknown_the_kernel_serves_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = stored(4, 64, 128, 2)
    monkeypatch.setattr("quantwise.runtimes.packed_linear.rows_packed_together", lambda: None)
    check(layer, torch.bfloat16)
    module = packed_linear(layer, None, torch.bfloat16)
    assert isinstance(module, PackedInt4)
    with pytest.raises(RuntimeError, match="not known here"):
        module.codes()


def test_the_layout_of_this_processor_is_known() -> None:
    known = {"AVX512": 64, "AVX2": 32}
    kind = torch.backends.cpu.get_cpu_capability()
    if kind not in known:
        pytest.skip(f"torch's {kind} kernels interleave in a way that is not read here")
    assert rows_packed_together() == known[kind]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["avx2", "default"])
def test_on_lesser_processors(kind: str) -> None:
    """Everything above, with torch told that the processor has no AVX-512, and no AVX2 either."""
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long", __file__],
        env={**os.environ, "ATEN_CPU_CAPABILITY": kind},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-2000:]
