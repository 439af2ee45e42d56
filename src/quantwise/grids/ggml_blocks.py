"""The number formats of ggml (the tensor library of llama.cpp): blocks of one row with their scales, as bytes.

Encoding is ggml's own code where an installed llama.cpp has it, else that of the ``gguf`` package, which reproduces
the reference encoders of the simple types byte for byte. Layouts: ggml/src/ggml-common.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
import numpy.typing as npt

from quantwise.core.errors import EnvironmentFailure
from quantwise.grids import ggml_library

_FLOATS = ("f32", "f16", "bf16")
# What the gguf package encodes by itself, importance aside.
_SIMPLE = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")


@dataclass(frozen=True, slots=True)
class GgmlBlocks:
    """One ggml type by its name in lower case, such as ``f16``, ``q8_0`` or ``q4_k``."""

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

    def encode(
        self, values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.generic]:
        """Round as llama-quantize does: float32 (..., columns) to the stored array.

        f32 and f16 keep their element type; every other type becomes uint8 (..., bytes of one row). ``importance`` is a
        positive (columns,) vector, one row of an importance matrix. Raises EnvironmentFailure where a type needs ggml's
        own encoder and no llama.cpp is installed.
        """
        values = np.ascontiguousarray(values, np.float32)
        without = ggml_library.library() is None and self.name in _SIMPLE and importance is None
        if self.name in _FLOATS or without:
            encoded: npt.NDArray[np.generic] = gguf.quants.quantize(values, self.type)
            return encoded
        weights, size = gguf.GGML_QUANT_SIZES[self.type]
        columns = values.shape[-1]
        if columns % weights:
            raise ValueError(f"rows of {columns} do not split into blocks of {weights}")
        rows = values.reshape(-1, columns)
        try:
            stored = ggml_library.encode(int(self.type), rows, columns // int(weights) * int(size), importance)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"cannot encode {self.name}: {error}") from error
        return stored.reshape(*values.shape[:-1], -1)

    def decode(self, stored: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Back to float32 (..., columns)."""
        values: npt.NDArray[np.float32] = gguf.quants.dequantize(stored, self.type)
        return values
