"""Quantize a GGUF file with llama.cpp's own ``llama_model_quantize`` (runs where llama-cpp-python is installed).

    llama_quantize_arm.py SOURCE.gguf TARGET.gguf TYPE THREADS [IMPORTANCE.npz]

TYPE is a name such as ``q4_k_m``; IMPORTANCE holds an array (columns,) for each tensor by its GGUF name. ``encode`` is
that one call: it reads the source, encodes, and writes the target.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import llama_cpp
import numpy as np
from told import Spent, tell


def importance_matrix(file: str) -> tuple[Any, dict[str, Any]]:
    """The list that llama.cpp reads, and the arrays that it points into, which must live as long."""
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in np.load(file).items()}
    # The list ends with an entry without a name.
    entries = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for entry, (name, values) in zip(entries, arrays.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries, arrays


def main() -> None:
    """Quantize, tell."""
    source, target, kind, threads, *importance = sys.argv[1:]
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = int(threads)
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    if importance:
        entries, _arrays = importance_matrix(importance[0])
        parameters.imatrix = ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    with Spent() as spent:
        failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters)
    if failed:
        raise SystemExit(f"llama_model_quantize gave {failed}")
    tell(spent, ("llama-cpp-python",))


if __name__ == "__main__":
    main()
