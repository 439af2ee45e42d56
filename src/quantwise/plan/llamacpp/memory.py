"""All that a llama.cpp server keeps in memory, term by term and by device."""

from __future__ import annotations

from collections.abc import Sequence

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.compute import LlamacppCompute, llamacpp_compute
from quantwise.plan.llamacpp.file import FileTensor, mapped_bytes, repacked_bytes
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.terms import Device, Memory, Term


def llamacpp_memory(
    decoder: Decoder,
    tensors: Sequence[FileTensor],
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
) -> Memory:
    """Memory of a server on the processor alone (``plan.offload`` splits it), at full context in every slot.

    ``tensors`` in the order of the file. What the log calls CPU_Mapped and CPU_REPACK are ``weights`` and
    ``repacked``; the sum of all terms is the process's resident set. ``compute`` spares the replay of the graph where
    it is known.
    """
    compute = compute or llamacpp_compute(decoder, settings, build)
    cache = llamacpp_cache(decoder, settings)
    mapped, copies = mapped_bytes(tensors, build), repacked_bytes(tensors, build)
    return Memory(
        (
            Term("weights", "cpu", mapped, mapped, "the file's tensors, mapped"),
            Term("repacked", "cpu", copies, copies, "ggml/src/ggml-cpu/repack.cpp, AVX2"),
            Term("cache", "cpu", cache.total, cache.total, cache.source),
            *compute_terms(compute, "cpu"),
            process_term(decoder, build),
        )
    )


def compute_terms(compute: LlamacppCompute, device: Device) -> tuple[Term, ...]:
    """The compute buffer on a device; outputs and working space stay on the processor."""
    return (
        Term("compute", device, compute.low, compute.high, compute.source),
        Term("outputs", "cpu", compute.outputs, compute.outputs, "4 bytes a logit, one row a slot"),
        Term("work", "cpu", 0 if device == "gpu" else compute.work, compute.work, "ggml_graph_plan"),
    )


def process_term(decoder: Decoder, build: LlamacppBuild) -> Term:
    """The program itself, with the vocabulary as it keeps it."""
    words = build.by_token * decoder.vocab
    return Term("process", "cpu", build.process.low + words, build.process.high + words, build.process.source)
