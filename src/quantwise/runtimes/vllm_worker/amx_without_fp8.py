"""FP8 on a processor whose AMX has none: multiplied in float32, in the process that imports this; vLLM's workers do.

vLLM leaves FP8 to ``torch._scaled_mm``. Wherever there is AMX, torch hands a product with one scale for a whole matrix
to oneDNN, which without FP8 in AMX has reference code only (``ref:any`` in its log): a step of a model of 300 million
weights takes minutes, and vLLM gives it up. Torch's own way, taken where there is no AMX, widens both sides to float32
and multiplies these. The numbers are the same but for the order of the sums.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

# By its short name: the workers' path holds this folder, and nothing of quantwise.
importlib.import_module("amx_tiles")
_scaled_mm = torch._scaled_mm


def scaled_mm(*operands: Any, **settings: Any) -> Any:
    """``torch._scaled_mm`` without oneDNN, but for a compiled graph, which cannot hold a switch."""
    if torch.compiler.is_compiling():
        return _scaled_mm(*operands, **settings)
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        return _scaled_mm(*operands, **settings)
    finally:
        torch._C._set_mkldnn_enabled(before)


torch._scaled_mm = scaled_mm


class AmxWithoutFp8:
    """vLLM wants a class; it adds nothing to the worker."""
