"""All that a llama.cpp server keeps in memory, term by term and by device."""

from __future__ import annotations

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import XLLAMACPP_2026_10, LlamacppBuild
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.compute import LlamacppCompute, llamacpp_compute
from quantwise.plan.llamacpp.settings import LlamacppSettings
from quantwise.plan.llamacpp.tally import FileTally
from quantwise.plan.terms import READ_ONCE, Device, Memory, Term, exactly

# Merges of a tokenizer for each of its tokens, at most: 280,147 for 128,256 in Llama 3; SentencePiece has none.
_MERGES = 2.2


def llamacpp_memory(
    decoder: Decoder,
    file: FileTally,
    settings: LlamacppSettings,
    build: LlamacppBuild = XLLAMACPP_2026_10,
    *,
    compute: LlamacppCompute | None = None,
    merges: int | None = None,
) -> Memory:
    """Memory of a server on the processor alone (``plan.offload`` splits it), at full context in every slot.

    What the log calls CPU_Mapped are ``weights`` and ``read once``, what it calls CPU_REPACK is ``repacked``; the sum
    of all terms is the process's resident set, of which the system takes back ``read once`` where memory is short.
    ``merges``: those of the tokenizer, if counted.
    ``compute`` spares the replay of the graph where it is known.
    """
    compute = compute or llamacpp_compute(decoder, settings, build)
    cache = llamacpp_cache(decoder, settings)
    return Memory(
        (
            exactly("weights", "cpu", file.mapped - file.read_once, "the file's tensors, mapped"),
            exactly(
                READ_ONCE, "cpu", file.read_once, "mapped pages of what was repacked: page cache, not needed again"
            ),
            exactly("repacked", "cpu", file.repacked, "ggml/src/ggml-cpu/repack.cpp, AVX2"),
            Term("cache", "cpu", cache.total, cache.total, cache.source),
            *compute_terms(compute, "cpu"),
            process_term(decoder, build, merges),
        )
    )


def compute_terms(compute: LlamacppCompute, device: Device) -> tuple[Term, ...]:
    """The compute buffer on a device; outputs and working space stay on the processor.

    Beside a GPU the processor keeps the inputs at least, and its own layers' graph at most.
    """
    outputs = exactly("outputs", "cpu", compute.outputs, "4 bytes a logit, one row a slot")
    if device == "cpu":
        return (
            Term("compute", "cpu", compute.low, compute.high, compute.source),
            outputs,
            exactly("work", "cpu", compute.work, "ggml_graph_plan (ggml/src/ggml-cpu/ggml-cpu.c)"),
        )
    assert compute.gpu is not None, "the buffers of a GPU were not asked for"
    assert compute.host is not None, "nor those beside it"
    below, above = (0.95, 1.1) if compute.known else (compute.low / compute.graph, compute.high / compute.graph)
    return (
        Term("compute", "gpu", int(compute.gpu * below), int(compute.gpu * above), compute.source),
        Term("compute", "cpu", compute.host, max(compute.host, compute.high), compute.source),
        outputs,
        Term("work", "cpu", 0, compute.work, "ggml_graph_plan (ggml/src/ggml-cpu/ggml-cpu.c)"),
    )


def process_term(decoder: Decoder, build: LlamacppBuild, merges: int | None = None) -> Term:
    """The program itself, with the vocabulary as it keeps it; ``merges`` of its tokenizer, where they were counted."""
    words = build.by_token * decoder.vocab
    low, high = (0, int(_MERGES * decoder.vocab)) if merges is None else (merges, merges)
    return Term(
        "process",
        "cpu",
        build.process.low + words + build.by_merge * low,
        build.process.high + words + build.by_merge * high,
        build.process.source,
    )
