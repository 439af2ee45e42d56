"""llama.cpp's own part of the quality benchmark (runs where llama-cpp-python is installed).

    llama_kl_arm.py quantize SOURCE.gguf TARGET.gguf TYPE IMPORTANCE.npz
    llama_kl_arm.py divergence BASE.gguf OTHER.gguf TOKENS.json

``quantize`` is ``llama_model_quantize`` with an importance matrix: an array (columns,) for each tensor by its GGUF name.
``divergence`` tells, for each token sequence of a JSON list, the KL summed over its positions in nats.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from told import tell


def quantize(source: str, target: str, kind: str, importance: str) -> None:
    """Write ``target``."""
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in np.load(importance).items()}
    # The list ends with an entry without a name.
    entries = (llama_cpp.llama_model_imatrix_data * (len(arrays) + 1))()
    for entry, (name, values) in zip(entries, arrays.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = 2
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    parameters.imatrix = ctypes.cast(entries, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    if failed := llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters):
        raise SystemExit(f"llama_model_quantize gave {failed}")
    tell({}, ("llama-cpp-python",))


def log_probabilities(file: str, sequences: Sequence[Sequence[int]]) -> list[NDArray[np.float64]]:
    """Of every position of every sequence: (positions, vocabulary)."""
    longest = max(map(len, sequences))
    model = llama_cpp.Llama(file, n_ctx=longest, n_batch=longest, logits_all=True, verbose=False, n_threads=2)
    found = []
    for tokens in sequences:
        model.reset()
        model.eval(list(tokens))
        logits = np.array(model.scores[: len(tokens)], np.float64)
        logits -= logits.max(-1, keepdims=True)
        found.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    return found


def divergence(base: str, other: str, tokens: str) -> None:
    """Tell the sums."""
    sequences = json.loads(Path(tokens).read_text(encoding="utf-8"))
    pairs = zip(log_probabilities(base, sequences), log_probabilities(other, sequences), strict=True)
    tell({}, ("llama-cpp-python",), sums=[float((np.exp(p) * (p - q)).sum()) for p, q in pairs])


def main() -> None:
    """Do what the first argument says."""
    {"quantize": quantize, "divergence": divergence}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
