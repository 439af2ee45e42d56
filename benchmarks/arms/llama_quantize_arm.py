"""Quantize a GGUF file with llama.cpp's own ``llama_model_quantize`` (runs where llama-cpp-python is installed).

    llama_quantize_arm.py SOURCE.gguf TARGET.gguf TYPE THREADS

TYPE is a name such as ``q4_k_m``. ``encode`` is that one call: it reads the source, encodes, and writes the target.
"""

from __future__ import annotations

import sys
import time

import llama_cpp
from told import tell


def main() -> None:
    """Quantize, tell."""
    source, target, kind, threads = sys.argv[1:]
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.nthread = int(threads)
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    began = time.perf_counter()
    failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters)
    spent = time.perf_counter() - began
    if failed:
        raise SystemExit(f"llama_model_quantize gave {failed}")
    tell({"encode": spent}, ("llama-cpp-python",))


if __name__ == "__main__":
    main()
