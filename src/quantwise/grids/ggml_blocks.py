"""The number formats of ggml (the tensor library of llama.cpp): blocks of one row with their scales, as bytes.

Encoding and decoding are the ``gguf`` package's own, which reproduces llama.cpp's reference encoders byte for byte.
Layouts: ggml/src/ggml-common.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class GgmlBlocks:
    """One ggml type by its name in lower case: ``f32``, ``f16``, ``bf16``, ``q8_0``, ``q4_0``."""

    name: str

    @property
    def type(self) -> gguf.GGMLQuantizationType:
        """The type's number in a GGUF file."""
        return gguf.GGMLQuantizationType[self.name.upper()]

    @property
    def block(self) -> int:
        """Weights in one block; a row must be a multiple of it."""
        return int(gguf.GGML_QUANT_SIZES[self.type][0])

    @property
    def bits_per_weight(self) -> float:
        """Bits for each weight, scales included."""
        weights, size = gguf.GGML_QUANT_SIZES[self.type]
        return 8.0 * int(size) / int(weights)

    def encode(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        """Round each value to the nearest of its block: float32 (..., columns) to the stored array.

        f32 and f16 keep their element type; every other type becomes uint8 (..., bytes of one row).
        """
        encoded: npt.NDArray[np.generic] = gguf.quants.quantize(np.ascontiguousarray(values, np.float32), self.type)
        return encoded

    def decode(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Back to float32 (..., columns)."""
        values: npt.NDArray[np.float32] = gguf.quants.dequantize(stored, self.type)
        return values
