"""All that a server takes in any of the runtimes, as one list of terms."""

from __future__ import annotations

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import CUDA_CONTEXT, TRANSFORMERS_PROCESS, VLLM_0_32, VLLM_0_32_CPU, VllmVersion
from quantwise.plan.terms import Device, Memory, between, exactly
from quantwise.plan.transformers_memory import transformers_cache, transformers_compute
from quantwise.plan.vllm import VllmSettings, vllm_activations, vllm_libraries, vllm_pages
from quantwise.plan.what_if import Demand


def transformers_memory(
    decoder: Decoder, weights: int, demand: Demand, *, device: Device = "cpu", bytes_of_number: int = 2
) -> Memory:
    """A process of Transformers that holds ``weights`` bytes (``plan.loaded_weights``) on a device.

    Full context in every request, all computed at once. Raises InputError as its cache does.
    """
    context, texts = demand.context, demand.concurrency
    cache = transformers_cache(decoder, context, texts, demand.cache)
    compute = transformers_compute(decoder, context, texts, bytes_of_number=bytes_of_number)
    terms = [
        exactly("weights", device, weights, "the tensors, as they are held"),
        exactly("cache", device, cache, "transformers cache_utils.py, at full context"),
        between("compute", device, compute),
        between("process", "cpu", TRANSFORMERS_PROCESS),
    ]
    if device == "gpu":
        terms.append(between("context", "gpu", CUDA_CONTEXT))
    return Memory(tuple(terms))


def vllm_memory(
    decoder: Decoder,
    weights: int,
    demand: Demand,
    *,
    parallel: int = 1,
    version: VllmVersion = VLLM_0_32,
    device: Device = "gpu",
) -> Memory:
    """One device's share of a vLLM server with ``weights`` bytes in all, if it kept cache for this demand only.

    vLLM takes all of ``version.utilization`` of a GPU whatever is asked (``plan.vllm.vllm_available``). On a processor
    it is another build, ``VLLM_0_32_CPU``, whatever ``version`` says. Raises InputError as its pages do.
    """
    version = version if device == "gpu" else VLLM_0_32_CPU
    if demand.concurrency < 1:
        raise InputError(f"concurrency must be a whole number of at least 1, not {demand.concurrency}")
    # More requests than its own default are served only where --max-num-seqs says so.
    sequences = max(version.sequences, demand.concurrency)
    settings = VllmSettings(demand.context, demand.cache, parallel, sequences=sequences)
    pages = vllm_pages(decoder, settings, version)
    return Memory(
        (
            exactly("weights", device, weights // parallel, "the tensors, split over the devices"),
            exactly("cache", device, demand.concurrency * pages.request_bytes, pages.source),
            between("compute", device, vllm_activations(decoder, settings, version)),
            between("process" if device == "cpu" else "libraries", device, vllm_libraries(settings, version)),
            between("context", device, version.context),
        )
    )
