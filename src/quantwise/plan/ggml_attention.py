"""Attention of one token as llama.cpp computes it, timed: ggml's flash attention over a cache in llama.cpp's layout.

The cache of a layer is (tokens, key-value heads, width) and is read through a permuted view, so that the numbers of a
head lie apart (src/llama-kv-cache.cpp). As ``ggml_products``, only run in a process of its own.
"""

from __future__ import annotations

import ctypes as c
from typing import Any

import numpy as np
import numpy.typing as npt

from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.plan.ggml_products import HEADERS, POINTER, Ggml, Init, Signatures, encoded, run_times

HEADS, KV_HEADS, TOKENS = 8, 4, 1024
_F32, _F16 = 0, 1
_MORE: Signatures = {
    "ggml_new_tensor_3d": (POINTER, (POINTER, c.c_int, c.c_int64, c.c_int64, c.c_int64)),
    "ggml_permute": (POINTER, (POINTER, POINTER, c.c_int, c.c_int, c.c_int, c.c_int)),
    "ggml_flash_attn_ext": (POINTER, (*([POINTER] * 5), c.c_float, c.c_float, c.c_float)),
}


def attention_times(threads: int, kind: str, width: int, layers: int, seconds: float) -> npt.NDArray[np.float64]:
    """Seconds of one layer's attention by try (``run_times``), ``layers`` caches of ggml type ``kind`` in turn, heads
    ``width`` wide."""
    ggml = Ggml(threads, _MORE)
    context = ggml("init", Init(HEADERS, None, True))
    buffer = None
    try:
        number = int(GgmlBlocks(kind).type)
        q = ggml("new_tensor_3d", context, _F32, width, 1, HEADS)
        mask = ggml("new_tensor_2d", context, _F16, TOKENS, 1)
        caches = [ggml("new_tensor_3d", context, number, width, KV_HEADS, TOKENS) for _ in range(2 * layers)]
        views = [ggml("permute", context, cache, 0, 2, 1, 3) for cache in caches]
        graphs: list[Any] = []
        for keys, values in zip(views[::2], views[1::2], strict=True):
            output = ggml("flash_attn_ext", context, q, keys, values, mask, width**-0.5, 0.0, 0.0)
            graphs.append(ggml("new_graph_custom", context, 64, False))
            ggml("build_forward_expand", graphs[-1], output)
        buffer = ggml("backend_alloc_ctx_tensors_from_buft", context, ggml("backend_cpu_buffer_type"))
        data = encoded(kind, KV_HEADS * TOKENS, width)
        for cache in caches:
            ggml("backend_tensor_set", cache, data.ctypes.data, 0, data.nbytes)
        asked = np.random.default_rng(1).normal(size=(HEADS, width)).astype(np.float32)
        ggml("backend_tensor_set", q, asked.ctypes.data, 0, asked.nbytes)
        seen = np.zeros(TOKENS, np.float16)
        ggml("backend_tensor_set", mask, seen.ctypes.data, 0, seen.nbytes)
        return run_times(ggml, graphs, seconds)
    finally:
        if buffer is not None:
            ggml("backend_buffer_free", buffer)
        ggml("free", context)
        ggml("backend_free", ggml.backend)
