"""Where the Transformers runtime computes: on the processor, or on the GPU that QUANTWISE_DEVICE names."""

from __future__ import annotations

import os
import re

from quantwise.core.errors import EnvironmentFailure, InputError

VARIABLE = "QUANTWISE_DEVICE"


def device() -> str:
    """``cpu``, ``cuda`` or ``cuda:N``.

    The processor unless told otherwise: torch's kernels for few bits are read there only, and what arms take is
    planned in its memory. Raises InputError for a word that is none of these, EnvironmentFailure where torch has no
    such GPU.
    """
    said = os.environ.get(VARIABLE, "") or "cpu"
    if re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", said) is None:
        raise InputError(f"{VARIABLE} is {said!r:.40}; allowed: cpu, cuda, cuda:0, cuda:1 and so on; or unset it")
    if said != "cpu":
        import torch

        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(said.partition(":")[2] or 0) >= there:
            found = f"{there} of them" if there else "none"
            raise EnvironmentFailure(
                f"{VARIABLE} is {said}, and of CUDA's GPUs torch {torch.__version__} finds {found}; set it to cpu"
            )
    return said


def is_cuda() -> bool:
    """Whether it is a GPU. Raises as ``device``."""
    return device() != "cpu"


def peak_bytes() -> int | None:
    """The most that tensors of this process have taken of the GPU at once; None on the processor."""
    if not is_cuda():
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device()))
