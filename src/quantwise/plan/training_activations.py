"""What a block keeps of each token until its backward pass: the tensors that PyTorch saves, one by one.

Korthikanti et al. (arXiv 2205.05198) count 34 bytes a hidden number and 5 a score for GPT in 16 bit. Newer blocks
differ: gated feed-forward layers, fewer key-value heads, RMSNorm computed in float32. So the tensors are counted as the
modules of Transformers 5 and PyTorch 2.13 save them:

- RMSNorm squares and scales a float32 copy (the stream itself in float32) and, where its weight is trained, keeps the
  scaled numbers; LayerNorm keeps its input;
- a linear layer keeps its input only where its weight, or an adapter beside it, is trained; under autocast each layer
  makes a 16-bit copy of its own; a float32 adapter beside a 16-bit layer makes a float32 one;
- attention by ``sdpa`` keeps queries, keys, values, its result and a float32 number for each head (with a mask: keys
  and values repeated for all heads, and the mask in its own type, in each layer); by ``math`` keys and
  values repeated for all heads, the scores after softmax in float32 and, where arithmetic is in 16 bit, a 16-bit copy;
- a gated feed-forward layer keeps the gate before and after its activation and what it is multiplied with.

What families do otherwise stands in ``_family``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.plan.training_job import ATTENTION_INPUT, FEED_FORWARD_INPUT, ROUTERS, Kind, TrainingJob

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes of a number: of ``weight``, of the residual ``stream``, of what a matrix product gives (``product``)."""

    weight: int
    stream: int
    product: int


WIDTHS = {"fp32": Widths(4, 4, 4), "mixed": Widths(4, 4, 2), "bf16": Widths(2, 2, 2)}


def block_bytes(decoder: Decoder, kind: Kind, targets: AbstractSet[str], job: TrainingJob) -> int:
    """Bytes that one block keeps of all tokens of a pass. ``targets`` are the modules that have a low-rank adapter.

    Those of a recurrent layer nobody has counted here.
    """
    layer, shapes = kind.layer, kind.modules
    inputs = _Inputs(shapes, targets, job)
    each = _norms(decoder, layer, shapes, job) + _feed_forward(decoder, layer, inputs, job)
    if layer.attention is not None:
        each += _attention(decoder, layer.attention, inputs, job)
    each += inputs.rest()
    if job.method == "adapter":
        each += 2 * (decoder.hidden + job.rank) * WIDTHS[job.precision].product
    return job.tokens * each


def scores_bytes(layer: Layer, job: TrainingJob) -> int:
    """Bytes of all attention scores of a layer in float32; 0 where no kernel writes them out."""
    if layer.attention is None or job.attention != "math":
        return 0
    return 4 * job.tokens * layer.attention.heads * _reach(job)


def _norms(decoder: Decoder, layer: Layer, shapes: _Shapes, job: TrainingJob) -> int:
    """Bytes a token of all normalizations of the block, two of hidden width where its tensors are not known."""
    widths, full = WIDTHS[job.precision], job.method == "full"
    found = {name: shape[0] for name, shape in shapes.items() if len(shape) == 1 and _is_norm(name)}
    count = sum(width == decoder.hidden for width in found.values()) or 2
    centred = not _root_mean_square(decoder)
    wide = widths.stream if centred else 4
    kept = 0 if centred or not full else 1
    # Gemma multiplies by one more than the weight before it goes back to 16 bit.
    scaled = 4 if _family(decoder, "gemma") else widths.stream
    total = count * decoder.hidden * (wide + kept * scaled)
    if layer.attention is not None:
        heads = {"q": layer.attention.heads, "k": layer.attention.kv_heads}
        for letter, number in heads.items():
            if f"{letter}_norm" in found or f"attn_{letter}_norm" in found:
                total += (
                    number
                    * layer.attention.key_dim
                    * (4 + kept * max(widths.product, scaled * _family(decoder, "gemma")))
                )
    return total


def _attention(decoder: Decoder, attention: Attention, inputs: _Inputs, job: TrainingJob) -> int:
    product = WIDTHS[job.precision].product
    queries, result = attention.heads * attention.key_dim, attention.heads * attention.value_dim
    # Latent attention is trained with keys and values of all heads; masks repeat heads.
    windowed = attention.window is not None and job.sequence >= attention.window
    masked = job.padded or job.method == "prefix" or windowed
    repeated = job.attention == "math" or attention.latent > 0 or masked
    heads = attention.heads if repeated else attention.kv_heads
    keys, values = heads * attention.key_dim, heads * attention.value_dim
    total = product * (queries + result) + product * (keys + values) * _reach(job) // job.sequence
    if job.attention == "math":
        capped = product if _family(decoder, "gemma2") else 0
        total += attention.heads * _reach(job) * (4 + (2 if product == 2 else 0) + capped)
        # The result is copied into order for the next layer, which keeps it only where it is trained.
        total -= 0 if job.method == "full" or "o_proj" in inputs.targets else product * result
    else:
        total += 4 * attention.heads + (product * _reach(job) if masked else 0)
    if job.method == "ia3":
        total += product * attention.kv_heads * (attention.key_dim + attention.value_dim)
    total += inputs.read(decoder.hidden, ATTENTION_INPUT, 3, cast=True)
    return total + inputs.read(result, ("o_proj",), 1, cast=False, kept=True)


def _feed_forward(decoder: Decoder, layer: Layer, inputs: _Inputs, job: TrainingJob) -> int:
    product = WIDTHS[job.precision].product
    copies = max(1, layer.experts_used) if layer.experts else 1
    inner = layer.feed_forward * copies
    gated = layer.experts > 0 or any(name in inputs.shapes for name in ("gate_proj", "gate_up_proj"))
    total = 0
    if layer.experts:
        # Tokens are gathered for each expert, and what it gives is weighted. A shared expert has matrices of its own.
        total += 2 * product * copies * decoder.hidden + 4 * layer.experts
        total += product * inner if job.method == "full" else 0
        inner += inputs.shapes.get("up_proj", (0,))[0]
    # A rectifier keeps what it gives, which the next layer keeps too.
    total += product * inner * (3 if gated else 0 if _family(decoder, "opt") and job.method == "full" else 1)
    total += inputs.read(decoder.hidden, FEED_FORWARD_INPUT, 2, cast=True)
    if job.method == "ia3":
        return total + product * inner
    down = inputs.shapes.get("down_proj", (0, inner))[1] if layer.experts else inner
    return total + inputs.read(down, ("down_proj",), 0 if layer.experts else 1, cast=False)


class _Inputs:
    """What linear layers keep of their inputs, and low-rank adapters beside them; each module is counted once."""

    def __init__(self, shapes: _Shapes, targets: AbstractSet[str], job: TrainingJob) -> None:
        self.shapes, self.targets, self.job = shapes, targets, job
        self.counted = set(ROUTERS)

    def read(self, width: int, names: Sequence[str], usual: int, *, cast: bool, kept: bool = False) -> int:
        """Bytes a token of one input of ``width`` that the layers ``names`` read; ``usual`` of them where no tensor is
        known. ``cast`` says that under autocast it comes in float32; ``kept`` that attention keeps it anyway.
        """
        job, widths = self.job, WIDTHS[self.job.precision]
        there = [name for name in names if name in self.shapes]
        self.counted |= set(there)
        if job.method == "full":
            count = len(there) if self.shapes else usual
            if kept or not count:
                return 0
            return width * widths.product * (count if cast and job.precision == "mixed" else 1)
        if not (reading := [name for name in there if name in self.targets]):
            return 0
        low = len(reading) * job.rank * (2 if job.precision == "mixed" else 4)
        if job.method == "dora":
            # The layer's output and the adapter's, each multiplied by a trained magnitude.
            outputs = sum(self.shapes[name][0] for name in reading)
            low += outputs * (widths.product + (2 if job.precision == "mixed" else 4))
        if job.precision == "bf16":
            return low + 4 * width * len(reading)
        if job.precision == "mixed":
            return low + 2 * width * len(reading)
        return low + (0 if kept else widths.product * width)

    def rest(self) -> int:
        """Bytes a token of the inputs of all other matrices of the block, each of its own."""
        others = [name for name, shape in self.shapes.items() if len(shape) == 2 and name not in self.counted]
        return sum(self.read(self.shapes[name][1], (name,), 1, cast=False) for name in others)


def _reach(job: TrainingJob) -> int:
    """Tokens that a token may look at."""
    return job.sequence + (job.virtual if job.method in ("prefix", "prompt") else 0)


def logit_extra(decoder: Decoder, job: TrainingJob) -> int:
    """Bytes of a logit that are kept besides those of the loss: Gemma 2 caps logits, and keeps what tanh gives."""
    return WIDTHS[job.precision].product if _family(decoder, "gemma2") else 0


def _family(decoder: Decoder, name: str) -> bool:
    """Whether the class in Transformers or the architecture in GGUF is of a family."""
    return decoder.architecture.lower().startswith(name)


def _is_norm(name: str) -> bool:
    return "norm" in name or name in ("ln_1", "ln_2")


def _root_mean_square(decoder: Decoder) -> bool:
    """Normalizations with a bias subtract the mean (LayerNorm)."""
    return not any(name.endswith(".bias") and ("norm" in name or "ln_" in name) for name in decoder.tensors)
