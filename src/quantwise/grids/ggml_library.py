"""ggml's own encoders and decoders, called in the shared library of an installed llama.cpp.

The ``xllamacpp`` wheel exports ggml's C functions, so that our bytes are those of llama-quantize by construction. The
library is opened without importing the package. Only ``ggml_quantize_chunk`` and ``dequantize_row_*`` are used
(ggml/include/ggml.h, ggml/src/ggml-quants.h); the former takes one importance for each column.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quantwise.core.errors import EnvironmentFailure

# Matrices below this many weights are done before a thread would have started.
_WORTH_A_THREAD = 1 << 17


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None where no installed package has one with the functions needed."""
    spec = importlib.util.find_spec("xllamacpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder).glob("xllamacpp*.so")):
            try:
                found = ctypes.CDLL(str(file))
                found.ggml_quantize_chunk.restype = ctypes.c_size_t
                found.ggml_quantize_chunk.argtypes = [
                    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
                    ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
                ]  # fmt: skip
            except (OSError, AttributeError):
                continue
            return found
    return None


def encode(
    type_number: int,
    values: npt.NDArray[np.float32],
    row_bytes: int,
    importance: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.uint8]:
    """Encode float32 (rows, columns) to uint8 (rows, ``row_bytes``); ``importance`` is (columns,), positive.

    The rows are shared out to the cores. Raises EnvironmentFailure where there is no library.
    """
    ggml = library()
    if ggml is None:
        raise EnvironmentFailure("this ggml type needs ggml's own encoder; install quantwise[llamacpp]")
    rows, columns = values.shape
    values = np.ascontiguousarray(values)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    if weights is not None and weights.shape != (columns,):
        raise ValueError(f"importance of shape {weights.shape} for {columns} columns")
    stored = np.empty((rows, row_bytes), np.uint8)

    def some(first: int, last: int) -> None:
        written = ggml.ggml_quantize_chunk(
            type_number,
            values[first:last].ctypes.data,
            stored[first:last].ctypes.data,
            0,
            last - first,
            columns,
            None if weights is None else weights.ctypes.data,
        )
        if written != (last - first) * row_bytes:
            raise EnvironmentFailure(f"ggml wrote {written} bytes where {(last - first) * row_bytes} were due")

    if values.size < _WORTH_A_THREAD:
        some(0, rows)
        return stored
    workers = _cores()
    edges = [rows * i // workers for i in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(some, a, b) for a, b in pairwise(edges) if a < b]:
            done.result()
    return stored


def decode(ggml_name: str, stored: npt.NDArray[np.uint8], columns: int) -> npt.NDArray[np.float32]:
    """Decode uint8 (rows, bytes of a row) to float32 (rows, ``columns``); ``ggml_name`` is ggml's spelling: ``q4_K``.

    Raises EnvironmentFailure where there is no library, or it does not know the type.
    """
    ggml = library()
    function = getattr(ggml, f"dequantize_row_{ggml_name}", None)
    if function is None:
        raise EnvironmentFailure(f"no decoder of ggml for {ggml_name!r} here; install quantwise[llamacpp]")
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    values = np.empty((len(stored), columns), np.float32)
    function(np.ascontiguousarray(stored).ctypes.data, values.ctypes.data, values.size)
    return values


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
