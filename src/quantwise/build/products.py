"""Matrix products in the type in which a model is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def products_in(dtype: torch.dtype) -> Iterator[None]:
    """Products of float32 matrices round their factors to bfloat16 inside, if that is ``dtype``; sums stay in float32.

    Processors that have such products are faster with them, others multiply as before. Float16 has no such mode.
    """
    before = torch.get_float32_matmul_precision()
    if dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
