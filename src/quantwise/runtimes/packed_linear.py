"""Linear layers on torch's kernels for weights of eight and four bits, on a processor.

``torch._weight_int8pack_mm`` and ``torch._weight_int4pack_mm_for_cpu`` (ATen/native/cpu/int8mm_kernel.cpp and
int4mm_kernel.cpp of torch 2.13) read weights as they are stored, add in float32 and round once, to the type of the
inputs. They win where bytes bind, which is at few rows of inputs. Their time grows with the rows, so from a number of
rows on a piece of the matrix is widened to the inputs' type and multiplied by the kernel for 16 bit, piece after piece:
a large matrix is never whole in 16 bit. From how many rows on: measured (``docs/packed-kernels.md``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from quantwise.core.packing import INT4_ROWS, INT8_COLUMNS, NARROW_ROWS, kernel_group
from quantwise.runtimes.stored_layer import StoredLayer

_HIGH, _LOW = 4, 0x0F0F0F0F
_PIECE_WEIGHTS = 1 << 21  # widened at once: 4 MiB of 16-bit numbers, few enough for a cache and enough for two threads
_KERNEL_ROWS = 16  # four-bit kernels were measured to take far longer for a row beyond these


class PackedInt8(nn.Module):
    """``weight`` int8 (out, in), ``scale`` (out,), ``bias`` (out,) or None.

    The kernel reads 16 columns at a time, past the end of a row that has no multiple of these, so rows are filled with
    zeros. ``scale`` is in float32 where the inputs' type cannot hold it; then the kernel takes inputs in float32 too.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    order: Tensor | None

    def __init__(self, layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.codes.shape
        codes, order = _sorted(layer)
        self.register_buffer("order", order)
        scale = layer.scale.expand(self.out_features, 1).reshape(-1)
        self.register_buffer("weight", functional.pad(codes, (0, -self.in_features % INT8_COLUMNS)).contiguous())
        self.register_buffer("scale", scale.to(_holding(dtype, scale)).contiguous())
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.narrow_rows = _narrow_rows(8, self.scale)

    def codes(self) -> Tensor:
        """int8 (out, in), in the order in which inputs are multiplied."""
        return self.weight[:, : self.in_features]

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out) in the type of ``inputs`` (..., in)."""
        return _applied(self, inputs, self.order, self.weight.shape[1], self._narrow, self._wide)

    def _narrow(self, rows: Tensor) -> Tensor:
        return torch._weight_int8pack_mm(rows.to(self.scale.dtype), self.weight, self.scale)[:, : self.out_features]

    def _wide(self, rows: Tensor) -> Tensor:
        """Codes of eight bits are exact in any float type, so they are multiplied alone and sums are scaled."""
        out = rows.new_empty(len(rows), self.out_features)
        step = max(1, _PIECE_WEIGHTS // self.weight.shape[1])
        for start in range(0, self.out_features, step):
            piece = self.weight[start : start + step]
            out[:, start : start + step] = functional.linear(rows, piece.to(rows.dtype))
        return out.mul_(self.scale) if self.scale.dtype == rows.dtype else (out * self.scale).to(rows.dtype)


class PackedInt4(nn.Module):
    """``weight`` is what torch packs of the codes, with rows filled up to whole blocks; ``steps`` (groups, out, 2) are
    a group's scale and its value at code 0, in float32 where the inputs' type cannot hold the scales. What that type
    leaves of a zero point's value is ``left`` (groups, out), or None without these: it is added times the sum of a
    group's inputs.
    """

    weight: Tensor
    steps: Tensor
    left: Tensor | None
    bias: Tensor | None
    order: Tensor | None

    def __init__(self, layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.codes.shape
        codes, order = _sorted(layer)
        self.register_buffer("order", order)
        width = self.in_features // layer.scale.shape[1]
        group = kernel_group(width)
        if group is None:
            raise ValueError(f"torch has no kernel for groups of {width} weights")
        self.group = group
        more = -self.out_features % INT4_ROWS
        whole = functional.pad(codes.int() + 8, (0, 0, 0, more), value=8)
        scale = layer.scale.expand(self.out_features, -1)
        zero = torch.zeros_like(scale) if layer.zero is None else -layer.zero * scale
        both = torch.stack([scale, zero], -1).repeat_interleave(width // self.group, 1).transpose(0, 1)
        both = functional.pad(both, (0, 0, 0, more), value=1.0)
        self.register_buffer("weight", torch._convert_weight_to_int4pack_for_cpu(whole, 1))
        self.register_buffer("steps", both.to(_holding(dtype, both[..., 0])).contiguous())
        left = both[..., 1] - self.steps[..., 1]
        self.register_buffer("left", None if layer.zero is None else left.to(_holding(dtype, left)))
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.narrow_rows = _narrow_rows(4, self.steps)
        self._symmetric = layer.zero is None
        self._scale_type = _holding(dtype, scale)

    def codes(self) -> Tensor:
        """int8 (out, in) in -8 .. 7, in the order in which inputs are multiplied.

        Raises RuntimeError where the layout of torch's kernels is not known on this processor.
        """
        rows = rows_packed_together()
        if rows is None:
            raise RuntimeError("how torch packs four-bit weights on this processor is not known here")
        return _codes(self.weight, rows)[: self.out_features]

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out) in the type of ``inputs`` (..., in)."""
        wide = self._narrow if rows_packed_together() is None else self._wide
        return _applied(self, inputs, self.order, self.in_features, self._narrow, wide)

    def _narrow(self, rows: Tensor) -> Tensor:
        given = rows.to(self.steps.dtype)
        parts = [
            torch._weight_int4pack_mm_for_cpu(part, self.weight, self.group, self.steps)
            for part in torch.split(given, _KERNEL_ROWS)
        ]
        out = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.left is not None:
            sums = given.view(len(given), len(self.left), -1).sum(-1, dtype=torch.float32)
            out = out + sums @ self.left.float()
        return out[:, : self.out_features]

    def _wide(self, rows: Tensor) -> Tensor:
        """Codes less their zero points are exact in any float type, so each weight is rounded once: times its scale."""
        together, columns, total = cast(int, rows_packed_together()), self.in_features, self.weight.shape[0]
        out = rows.new_empty(len(rows), total)
        step = max(1, _PIECE_WEIGHTS // (columns * together)) * together
        for start in range(0, total, step):
            end = min(start + step, total)
            into = out[:, start:end].view(len(rows), -1, 2, together // 2)
            steps = self.steps[:, start:end].view(len(self.steps), -1, 2, together // 2, 2)
            for half, codes in enumerate(_halves(self.weight[start:end], together)):
                piece = codes.to(self._scale_type)
                grouped = piece.view(len(self.steps), -1, piece.shape[1])
                scale, zero = steps[:, :, half].reshape(len(self.steps), 1, -1, 2).unbind(-1)
                if not self._symmetric:
                    grouped.add_((zero / scale).nan_to_num(0.0).round().to(self._scale_type))
                grouped.mul_(scale.to(self._scale_type).contiguous())
                into[:, :, half] = (rows @ piece.to(rows.dtype)).view(len(rows), -1, together // 2)
        return out[:, : self.out_features]


def packed_linear(layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> nn.Module | None:
    """The layer on torch's kernels, for inputs of ``dtype``; None where they do not take it."""
    columns, groups = layer.codes.shape[1], layer.scale.shape[1]
    if layer.codes.dtype != torch.int8 or columns % groups or layer.input_scale is not None:
        return None
    if layer.bits == 8 and groups == 1 and layer.zero is None:
        return PackedInt8(layer, bias, dtype)
    if layer.bits == 4 and kernel_group(columns // groups) is not None:
        return PackedInt4(layer, bias, dtype)
    return None


@functools.cache
def rows_packed_together() -> int | None:
    """How many neighbouring rows torch interleaves where it packs four-bit weights: 64 with AVX-512, 32 with AVX2.

    Found by packing known codes; None where they do not come back, and then they are never unpacked.
    """
    codes = torch.randint(16, (2 * INT4_ROWS, 32), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    for rows in (64, 32):
        if torch.equal(_codes(packed, rows).int() + 8, codes):
            return rows
    return None


def _codes(packed: Tensor, together: int) -> Tensor:
    """Codes int8 (rows, in), -8 .. 7, of ``packed`` uint8 (rows, in / 2)."""
    halves = [half.view(len(half), -1, together // 2) for half in _halves(packed, together)]
    return torch.stack(halves, 2).view(len(halves[0]), -1).T


def _halves(packed: Tensor, together: int) -> Iterator[Tensor]:
    """Codes int8 (in, rows / 2), -8 .. 7, of the first half of every block of ``together`` rows, then of the second.

    ``packed`` uint8 (rows, in / 2) has for every block and every column half as many bytes as rows: the first half's
    codes are their low four bits, the second's their high ones. Bytes are put in order before they are taken apart,
    as few long words, because copies in short runs took most of the time.
    """
    blocks, columns, half = len(packed) // together, 2 * packed.shape[1], together // 2
    runs = packed.reshape(blocks * columns, half).view(torch.int64)
    order = torch.arange(columns)[:, None] + torch.arange(blocks) * columns
    words = runs.index_select(0, order.view(-1)).view(torch.int32)
    for shift in (0, _HIGH):
        yield ((words >> shift) & _LOW).view(torch.int8).sub_(8).view(columns, -1)


def _applied(
    module: PackedInt8 | PackedInt4,
    inputs: Tensor,
    order: Tensor | None,
    columns: int,
    narrow: Callable[[Tensor], Tensor],
    wide: Callable[[Tensor], Tensor],
) -> Tensor:
    rows = inputs.reshape(-1, module.in_features)
    if order is not None:
        rows = rows[:, order]
    if columns > module.in_features:
        rows = functional.pad(rows, (0, columns - module.in_features))
    out = (narrow if len(rows) <= module.narrow_rows else wide)(rows.contiguous()).to(inputs.dtype)
    if module.bias is not None:
        out = out + module.bias
    return out.reshape(*inputs.shape[:-1], module.out_features)


def _sorted(layer: StoredLayer) -> tuple[Tensor, Tensor | None]:
    """Codes with the inputs of a group side by side, and where each of them was; None where they were already.

    Raises ValueError where groups have different sizes.
    """
    if layer.group is None:
        return layer.codes, None
    groups = layer.scale.shape[1]
    counts = torch.bincount(layer.group, minlength=groups)
    if bool((counts != layer.codes.shape[1] // groups).any()):
        raise ValueError("groups of a layer have different sizes")
    order = layer.group.argsort(stable=True)
    return layer.codes[:, order], order


def _narrow_rows(bits: int, scales: Tensor) -> int:
    """Up to how many rows the kernel wins; with other than bfloat16 it multiplies number by number, and never does."""
    return NARROW_ROWS[bits] if scales.dtype == torch.bfloat16 else 0


def _holding(dtype: torch.dtype, values: Tensor) -> torch.dtype:
    """``dtype`` where it holds every value exactly, else float32."""
    return dtype if torch.equal(values.to(dtype).float(), values.float()) else torch.float32
