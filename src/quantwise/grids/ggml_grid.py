"""ggml's block types as grids: value = scale * code, less a minimum on the asymmetric types (q4_1 q5_1 q2_k q4_k q5_k).

On the k types a scale is the product of a block's float16 ``d`` and a small integer of its sub-block, and a minimum
that of ``m`` and another. ``fit`` and ``quantize`` are ggml's own searches; values equal ggml's decoder bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_layout import LAYOUTS, Fields, Layout


@dataclass(frozen=True, slots=True)
class BlockSteps:
    """Parameters of a (rows, columns) matrix in ggml blocks.

    ``d`` and ``m`` float32 (rows, blocks) hold float16 numbers; ``m`` is None on symmetric types, and on q4_1 and q5_1
    the number that is added. ``scales`` and ``minima`` float32 (rows, blocks, sub-blocks) are whole numbers, None where
    a block has no sub-blocks. ``sub`` is the number of weights that share a scale.
    """

    d: Tensor
    m: Tensor | None
    scales: Tensor | None
    minima: Tensor | None
    sub: int

    def spread(self) -> tuple[Tensor, Tensor | None]:
        """Scale, and what is taken off after scaling, for every weight: float32 (rows, columns)."""
        scale = self.d.unsqueeze(-1) if self.scales is None else self.d.unsqueeze(-1) * self.scales
        if self.m is None:
            return self._wide(scale), None
        minimum = -self.m.unsqueeze(-1) if self.minima is None else self.m.unsqueeze(-1) * self.minima
        return self._wide(scale), self._wide(minimum)

    def _wide(self, parameters: Tensor) -> Tensor:
        return parameters.flatten(1).repeat_interleave(self.sub, dim=1)


@dataclass(frozen=True, slots=True)
class GgmlGrid:
    """The grid of one ggml type by its name in lower case, such as ``q4_k``; rows must be multiples of ``block``."""

    name: str

    @property
    def layout(self) -> Layout:
        """Its blocks and bits."""
        return LAYOUTS[self.name]

    @property
    def block(self) -> int:
        """Weights in one block."""
        return self.layout.weights

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return self.layout.lowest

    @property
    def highest(self) -> int:
        """The largest code."""
        return (1 << self.layout.bits) - 1 - self.layout.offset

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> BlockSteps:
        """The scales and minima of ggml's encoder; ``importance`` (columns,) as in llama.cpp's importance matrix."""
        return self.quantize(weight, importance)[1]

    def quantize(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, BlockSteps]:
        """Codes (int8) and parameters as ggml's encoder chooses them.

        Inputs of no importance count a millionth of the mean, so that no block is left without any.
        """
        weights = None
        if importance is not None:
            smallest = 1e-6 * float(importance.mean())
            weights = importance.clamp(min=smallest if smallest > 0 else 1.0).float().numpy()
        return self.unpack(GgmlBlocks(self.name).encode(weight.float().numpy(), weights))

    def round(self, values: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """Nearest codes; ``zero`` is the minimum, in the values' own unit."""
        codes = (values if zero is None else values + zero) / scale
        # Where the scale is zero, every code stands for the same number.
        return codes.nan_to_num_(0.0).round_().clamp_(self.lowest, self.highest)

    def value(self, codes: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
        """The numbers that codes stand for."""
        return codes * scale if zero is None else codes * scale - zero

    def decode(self, codes: Tensor, steps: BlockSteps) -> Tensor:
        """The float32 (rows, columns) matrix that codes stand for."""
        return self.value(codes.float(), *steps.spread())

    def pack(self, codes: Tensor, steps: BlockSteps) -> Tensor:
        """The bytes of a GGUF tensor: uint8 (rows, bytes of one row)."""
        layout, rows = self.layout, codes.shape[0]
        raw = (codes.to(torch.int16) + layout.offset).to(torch.uint8).numpy().reshape(-1, layout.weights)
        fields = Fields(
            raw,
            _halves(steps.d),
            None if steps.m is None else _halves(steps.m),
            None if steps.scales is None else _integers(steps.scales),
            None if steps.minima is None else _integers(steps.minima),
        )
        return torch.from_numpy(np.ascontiguousarray(layout.join(fields)).reshape(rows, -1))

    def unpack(self, stored: Tensor | np.ndarray) -> tuple[Tensor, BlockSteps]:
        """Codes (int8) and parameters of packed rows; ``pack`` gives the same bytes again."""
        layout = self.layout
        array = stored.numpy() if isinstance(stored, Tensor) else stored
        rows = len(array)
        fields = layout.split(np.ascontiguousarray(array).reshape(-1, layout.size))
        codes = torch.from_numpy((fields.codes.astype(np.int16) - layout.offset).astype(np.int8)).reshape(rows, -1)

        def floats(numbers: np.ndarray | None, *shape: int) -> Tensor | None:
            return None if numbers is None else torch.from_numpy(numbers.astype(np.float32)).reshape(rows, *shape)

        blocks = codes.shape[1] // layout.weights
        d = floats(fields.d, blocks)
        assert d is not None
        small = layout.weights // layout.sub
        steps = BlockSteps(
            d, floats(fields.m, blocks), floats(fields.scales, blocks, small), floats(fields.minima, blocks, small),
            layout.sub,
        )  # fmt: skip
        return codes, steps


def _halves(numbers: Tensor) -> np.ndarray:
    return numbers.numpy().astype(np.float16).reshape(-1)


def _integers(numbers: Tensor) -> np.ndarray:
    return numbers.numpy().astype(np.int16).reshape(-1, numbers.shape[-1])
