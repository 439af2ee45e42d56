"""Bytes beside weights and cache: the process itself, and the buffers that one step computes in."""

from __future__ import annotations

from collections.abc import Mapping

# Resident set before a model is loaded, CPU builds, measured on Linux x86-64: Python with torch and transformers
# imported; a server of the xllamacpp wheel.
PROCESS_BYTES: Mapping[str, int] = {"transformers": 368 << 20, "llamacpp": 32 << 20}
# Tokens that llama.cpp computes at once (its default n_ubatch).
UBATCH = 512


def overhead_bytes(
    runtime: str, *, hidden: int, intermediate: int, vocab: int, context: int, concurrency: int
) -> int | None:
    """Process and compute buffers in bytes, at full context and concurrency; None for a runtime we know nothing of.

    32-bit activations: about eight copies of the hidden state and two of the feed-forward layer are live at the peak.
    In llama.cpp that is for one ubatch; the fit to its logged buffers on two small Llamas is within 3 %, of the mask
    (16 bit, one slot's context wide) exact. Its logits are reserved for a whole ubatch in older builds and for a row a
    slot in newer ones (src/llama-context.cpp): the older, larger figure is taken. Transformers computes all prompts of
    a batch at once and one row of logits each; nobody has fitted that term yet.
    """
    if runtime not in PROCESS_BYTES:
        return None
    layer = 8 * hidden + 2 * intermediate
    if runtime == "llamacpp":
        at_once = min(context * concurrency, UBATCH)
        return PROCESS_BYTES[runtime] + 4 * at_once * max(layer, vocab + hidden) + 2 * at_once * context
    return PROCESS_BYTES[runtime] + 4 * concurrency * (context * layer + vocab)
