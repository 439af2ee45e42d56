"""Buffers that llama.cpp computes in: the graph's, the outputs', and what the processor works in beside them."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.graph import graph_of, host_graph
from quantwise.plan.llamacpp.model import KNOWN, Blocks, as_llamacpp
from quantwise.plan.llamacpp.replay import buffer_bytes
from quantwise.plan.llamacpp.settings import LlamacppSettings

# How far a graph that was only guessed from tensors may be off, below and above.
_GUESSED = (0.7, 1.5)


@dataclass(frozen=True, slots=True)
class LlamacppCompute:
    """``graph`` bytes of the compute buffer, between ``low`` and ``high``; ``outputs`` of logits on the host; ``work``
    that the processor's kernels share. ``known`` tells whether this architecture's graph was compared with logs.

    Where a GPU computes every layer, ``gpu`` are its bytes and ``host`` those of the inputs that stay on the processor:
    the same replay, compared with a few published logs only (258.50 and 24.01 MiB of Llama 3 8B at 8192, 300.75 of
    Qwen 2.5 3B at 512); None where they were not asked for.
    """

    graph: int
    gpu: int | None
    host: int | None
    low: int
    high: int
    outputs: int
    work: int
    known: bool
    source: str


def llamacpp_compute(
    decoder: Decoder,
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    blocks: Blocks | None = None,
    gpu: bool = True,
) -> LlamacppCompute:
    """The buffers of one server. Recurrent layers are not in the graph that is replayed, so ``known`` is then False.

    ``blocks`` are the decoder's, where they are known; ``gpu`` asks for the buffers beside a GPU too. Raises InputError
    where tensors do not say how latent attention is computed.
    """
    decoder = as_llamacpp(decoder)
    blocks = blocks or Blocks(decoder)
    graph = int(buffer_bytes(graph_of(decoder, settings, build, blocks=blocks)) * build.compute_factor)
    there = buffer_bytes(graph_of(decoder, settings, build, device="gpu", blocks=blocks)) if gpu else None
    recurrent = any(layer.state for layer in decoder.layers)
    known = decoder.architecture in KNOWN and not recurrent
    below, above = (1 - build.compute_error, 1 + build.compute_error) if known else _GUESSED
    return LlamacppCompute(
        graph=graph,
        gpu=None if there is None else int(there * build.compute_factor),
        host=buffer_bytes(host_graph(decoder, settings, build)) if gpu else None,
        low=int(graph * below),
        high=int(graph * above),
        outputs=4 * decoder.vocab * settings.slots,
        work=_work(decoder, settings),
        known=known,
        source=build.name,
    )


def _work(decoder: Decoder, settings: LlamacppSettings) -> int:
    """Inputs of the widest product in the type that its kernel multiplies (ggml/src/ggml-cpu/ggml-cpu.c).

    That is about a byte a number for blocks, and two for the scores of attention without flash attention.
    """
    tokens = settings.reserved_tokens
    widest = max(
        (9 * tokens * layer.feed_forward * max(layer.experts_used, 1) // 8 for layer in decoder.layers), default=0
    )
    if settings.flash_attention:
        return widest
    scores = [2 * tokens * settings.cells * layer.attention.heads for layer in decoder.layers if layer.attention]
    return max([widest, *scores])
