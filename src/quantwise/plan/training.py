"""Memory of training: weights, gradients, optimizer states, activations, logits, and the moment that is the peak.

A step has a few moments worth counting: the logits are there (under autocast all 16-bit copies of weights too), the
loss goes back (all activations are there, gradients are not yet), the last and the first block are reached on the way
back, and the optimizer moves the weights. The largest is the peak. Measured against steps on a CPU by
benchmarks/plan_training.py (docs/plan-training.md); the same tensors are there on a GPU, whose allocator and libraries
take more (``ALLOCATOR``, and the runtime's own overhead).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.training_activations import WIDTHS, block_bytes, logit_extra, scores_bytes
from quantwise.plan.training_job import (
    LOW_RANK,
    Parts,
    TrainingJob,
    parts_of,
    trained_parameters,
)

# What allocators hold beyond live tensors, as a share: glibc with every large block mapped held 3 to 22 MiB more in our
# measurements, less than 5 % of any step above 300 MiB (docs/plan-training.md); PyTorch's CUDA allocator rounds and
# splits, which nobody measured here.
ALLOCATOR = 0.1
# Bytes of a logit while the loss goes back: log-probabilities, the gradient of each, and of each logit, in float32
# (torch.nn.functional.cross_entropy, without fusion).
LOGIT_BYTES = 12
# bitsandbytes: a scale for 256 states; tensors below 4096 numbers keep float32 states (optim/optimizer.py); two tables.
_EIGHT_BIT_BLOCK, _EIGHT_BIT_LEAST, _EIGHT_BIT_TABLES = 256, 4096, 2 * 256 * 4
# NF4 (Dettmers et al., arXiv 2305.14314): a float32 scale for 64 weights; doubly quantized, a byte for each and a
# float32 scale for 256 of them; tables of 16 and 256 float32 numbers.
_NF4_BLOCK, _NF4_SCALES = 64, 256


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of one training step, term by term.

    ``weights`` are the model's as held while training, ``adapters`` what is trained beside them; ``copies`` the 16-bit
    copies that autocast keeps for the way back, ``forward_copies`` those that it has when the logits are there.
    ``gradients`` and ``optimizer`` belong to the trained numbers; with a paged optimizer ``paged`` of those bytes may
    lie in host memory. ``activations`` are what all blocks keep, or their inputs alone with checkpointing;
    ``recomputed`` the one block that is computed again then; ``forward_logits`` the loss as it is taken, ``logits`` as
    it goes back; ``working`` what one block needs on its way back; ``update`` what the optimizer computes in.
    """

    trained: int
    parameters: int
    weights: int
    adapters: int
    copies: int
    forward_copies: int
    gradients: int
    optimizer: int
    paged: int
    activations: int
    recomputed: int
    logits: int
    forward_logits: int
    working: int
    update: int
    head_gradient: int
    accumulates: bool
    source: str = "tensors of Transformers 5.23, PyTorch 2.13, bitsandbytes 0.50, counted; peft 0.21's float32 adapters"

    @property
    def moments(self) -> dict[str, int]:
        """Bytes at each moment, all states of a paged optimizer included."""
        always = self.weights + self.adapters + self.optimizer
        passed = self.activations + (self.gradients if self.accumulates else 0)
        kept = passed + self.copies
        head = 0 if self.accumulates else self.head_gradient
        return {
            "logits": always + passed + self.forward_copies + self.forward_logits,
            "loss": always + kept + self.logits,
            "last block": always + kept + head + self.recomputed + self.working,
            "first block": always + self.gradients + max(self.recomputed, self.working) + self.head_gradient,
            "update": always + self.gradients + self.update,
        }

    @property
    def peak_bytes(self) -> int:
        """The largest moment: tensors alive at once."""
        return max(self.moments.values())

    @property
    def total_bytes(self) -> tuple[int, int]:
        """From what must be there (states that may be paged out left away) to what an allocator may hold of it."""
        return self.peak_bytes - self.paged, math.ceil(self.peak_bytes * (1 + ALLOCATOR))


def training_memory(decoder: Decoder, job: TrainingJob) -> TrainingMemory:
    """Memory of training ``decoder`` as ``job`` says. Raises InputError for a target that it lacks, or a layer whose
    activations are not known.
    """
    return memory_of_parts(parts_of(decoder), job)


def memory_of_parts(parts: Parts, job: TrainingJob) -> TrainingMemory:
    """As ``training_memory``, of a decoder that was sorted out before: for those who ask many times."""
    decoder = parts.decoder
    if any(kind.layer.state for kind in parts.kinds):
        raise InputError(
            f"training memory of the recurrent layers of {decoder.name} is not known here, whatever is trained; "
            "measure a step, or take a model without them"
        )
    widths, full = WIDTHS[job.precision], job.method == "full"
    trained, matrices = trained_parameters(parts, job), sum(n * count for n, count in parts.matrices.items())
    tensors = _trained_tensors(parts, job, trained)
    width = widths.weight if full else _adapter_width(job)
    blocks = [
        block_bytes(decoder, kind, frozenset(targets), job)
        for kind, targets in zip(parts.kinds, parts.targets(job), strict=True)
    ]
    kept = sum(each * kind.count for each, kind in zip(blocks, parts.kinds, strict=True))
    head = decoder.vocab * decoder.hidden
    tokens = job.tokens
    stream = tokens * decoder.hidden * widths.stream
    outside = tokens * decoder.hidden * (4 + ((widths.stream + widths.product) if full else 0))
    optimizer = _states(job, tensors, width)
    copies = 0
    if job.precision == "mixed":
        copies = 2 * ((0 if job.checkpointing else matrices) + head)
    extra = logit_extra(decoder, job)
    # What is trained is copied once and kept until autocast ends; a frozen weight is copied wherever it is used.
    cached = job.precision == "mixed" and full
    return TrainingMemory(
        trained=trained,
        parameters=parts.parameters,
        weights=_weights(parts, job, widths.weight),
        adapters=0 if full else trained * width,
        copies=copies,
        forward_copies=2 * (matrices + head) if cached else copies,
        gradients=trained * width,
        optimizer=optimizer,
        paged=optimizer if job.optimizer.startswith("paged") else 0,
        activations=(len(decoder.layers) * stream if job.checkpointing else kept) + outside,
        recomputed=max(blocks, default=0) if job.checkpointing else 0,
        logits=(LOGIT_BYTES + extra) * tokens * decoder.vocab,
        forward_logits=(8 + extra + (2 if widths.product == 2 else 0)) * tokens * decoder.vocab,
        working=_working(parts, job, widths.product),
        update=_update(job, tensors, width),
        head_gradient=head * width if full else 0,
        accumulates=job.accumulates,
    )


def nf4_bytes(numbers: int, double_quant: bool) -> int:
    """Bytes of a matrix of ``numbers`` weights in NF4, tables included."""
    scales = -(-numbers // _NF4_BLOCK)
    held = -(-numbers // 2) + 16 * 4
    if not double_quant:
        return held + 4 * scales
    return held + scales + 4 * -(-scales // _NF4_SCALES) + 256 * 4


def _adapter_width(job: TrainingJob) -> int:
    """Low-rank adapters and soft prompts are float32; bottlenecks and scales have the model's type."""
    return WIDTHS[job.precision].weight if job.method in ("adapter", "ia3") else 4


def _weights(parts: Parts, job: TrainingJob, width: int) -> int:
    """QLoRA quantizes every matrix of the blocks, experts included, and leaves the rest in the model's type."""
    if job.method != "qlora":
        return width * parts.parameters
    rest = parts.parameters - sum(numbers * count for numbers, count in parts.matrices.items())
    return width * rest + sum(count * nf4_bytes(numbers, job.double_quant) for numbers, count in parts.matrices.items())


def _trained_tensors(parts: Parts, job: TrainingJob, trained: int) -> Mapping[int, int]:
    """How many trained tensors have how many numbers; of small methods, all as one."""
    if job.method == "full":
        return parts.tensors
    if job.method not in LOW_RANK:
        return {trained: 1}
    found: Counter[int] = Counter()
    for (rows, columns), count in parts.adapted(job):
        found[job.rank * rows] += count
        found[job.rank * columns] += count
        found[rows] += count if job.method == "dora" else 0
    return +found


def _states(job: TrainingJob, tensors: Mapping[int, int], width: int) -> int:
    """Two moments of each trained number (Loshchilov and Hutter, arXiv 1711.05101), in the type of the weights; in
    8 bit with scales by block (Dettmers et al., arXiv 2110.02861).
    """
    if not job.optimizer.endswith("8bit"):
        return 2 * width * sum(numbers * count for numbers, count in tensors.items())
    return sum(count * _eight_bit_states(numbers) for numbers, count in tensors.items())


def _eight_bit_states(numbers: int) -> int:
    if numbers < _EIGHT_BIT_LEAST:
        return 2 * 4 * numbers
    return 2 * (numbers + 4 * -(-numbers // _EIGHT_BIT_BLOCK)) + _EIGHT_BIT_TABLES


def _working(parts: Parts, job: TrainingJob, product: int) -> int:
    """Gradients inside one block on its way back: three of the inner feed-forward layer, or two of the scores (before
    and after softmax); with QLoRA also its largest matrix as it was, with DoRA the largest target and two of its size.
    """
    layers = parts.decoder.layers
    inner = max((layer.feed_forward * max(1, layer.experts_used) for layer in layers), default=0)
    scores = max((scores_bytes(layer, job) for layer in layers), default=0)
    unpacked = max(parts.matrices, default=0) * product if job.method == "qlora" else 0
    if job.method == "dora":
        unpacked = 12 * max((rows * columns for (rows, columns), _ in parts.adapted(job)), default=0)
    return max(3 * job.tokens * inner * product, 2 * scores) + unpacked


def _update(job: TrainingJob, tensors: Mapping[int, int], width: int) -> int:
    """What an optimizer computes in: tensor by tensor two of the largest, all at once one of everything
    (torch.optim.adamw), nothing where one kernel does it.
    """
    if job.optimizer == "adamw-foreach":
        return sum(numbers * count for numbers, count in tensors.items()) * width
    return 2 * max(tensors, default=0) * width if job.optimizer in ("adamw", "paged-adamw") else 0
