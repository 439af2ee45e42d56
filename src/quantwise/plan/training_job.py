"""What is trained, and how: the options that memory depends on, and the numbers that each method trains."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder, Layer
from quantwise.models.tensor_table import TensorTable

Method = Literal["full", "lora", "qlora", "dora", "ia3", "prefix", "prompt", "adapter"]
Precision = Literal["fp32", "mixed", "bf16"]
Optimizer = Literal["adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"]
AttentionKernel = Literal["sdpa", "math"]

MOST_TRAINED = 1 << 24
"""Tokens of a text, texts at once, and a rank: more is a slip of the hand."""
LOW_RANK = ("lora", "qlora", "dora")
# GGUF's names of matrices, and others', as adapters call them.
_ALIASES: Mapping[str, str] = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_qkv": "qkv_proj",
    "query_key_value": "qkv_proj",
    "attn_output": "o_proj",
    "dense": "o_proj",
    "out_proj": "o_proj",
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
    "dense_h_to_4h": "up_proj",
    "dense_4h_to_h": "down_proj",
    "fc1": "up_proj",
    "fc2": "down_proj",
    "w1": "gate_proj",
    "w3": "up_proj",
    "w2": "down_proj",
}
# What peft adapts where a family has fused or compressed the usual targets.
_STANDS_FOR: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("qkv_proj", "q_b_proj"),
    "k_proj": ("qkv_proj", "kv_b_proj"),
    "v_proj": ("qkv_proj", "kv_b_proj"),
}
ATTENTION_INPUT = ("q_proj", "k_proj", "v_proj", "qkv_proj")
FEED_FORWARD_INPUT = ("gate_proj", "up_proj", "gate_up_proj")
# What chooses the experts stays as it is.
ROUTERS = ("gate", "router", "ffn_gate_inp")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blk|blocks)\.(\d+)\.(.+)$")


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One way to train. ``sequence`` tokens in each of ``batch`` texts that pass through the model at once.

    ``precision``: ``fp32`` throughout; ``mixed``, float32 weights and 16-bit arithmetic (autocast); ``bf16``, all of
    the model in 16 bit. Low-rank adapters and soft prompts are float32 always, as ``peft`` makes them. ``rank`` is that
    of low-rank adapters, or the width of bottlenecks; ``targets`` the matrices that get a low-rank adapter
    (``("all",)``: every one of the blocks, experts left out); ``virtual`` the tokens of a prefix or soft prompt.
    ``padded`` texts bring a mask, for which ``sdpa`` repeats keys and values. ``accumulates`` keeps gradients over
    several passes.
    """

    method: Method
    sequence: int
    batch: int = 1
    precision: Precision = "bf16"
    optimizer: Optimizer = "adamw"
    checkpointing: bool = False
    attention: AttentionKernel = "sdpa"
    rank: int = 16
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    virtual: int = 32
    double_quant: bool = True
    padded: bool = False
    accumulates: bool = False

    def __post_init__(self) -> None:
        """Raise InputError for a name that is unknown, a size below 1, or what cannot be combined."""
        for name, kind in (
            ("method", Method),
            ("precision", Precision),
            ("optimizer", Optimizer),
            ("attention", AttentionKernel),
        ):
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise InputError(f"unknown training {name} {getattr(self, name)!r:.40}; allowed: {allowed}")
        for name in ("sequence", "batch", "rank", "virtual"):
            value = getattr(self, name)
            if not 1 <= value <= MOST_TRAINED:
                raise InputError(f"{name} must be at least 1 and at most {MOST_TRAINED:,}, not {value!s:.40}")
        if not self.targets or not all(self.targets):
            raise InputError("targets must name matrices such as q_proj,v_proj, or be all")
        if self.method == "prefix" and self.checkpointing:
            raise InputError("prefix tuning keeps a cache, which checkpointing drops; train without checkpointing")

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model at once, soft prompts included."""
        return self.batch * (self.sequence + (self.virtual if self.method == "prompt" else 0))


@dataclass(frozen=True, slots=True)
class Kind:
    """``count`` blocks that are alike: their layer, and the shapes of their tensors outside experts by module, as
    adapters call it (``q_proj``, ``input_layernorm``).
    """

    layer: Layer
    modules: Mapping[str, tuple[int, ...]]
    count: int

    @property
    def able(self) -> dict[str, tuple[int, int]]:
        """Shapes (out, in) of the matrices that a low-rank adapter can stand beside."""
        return {n: (s[0], s[1]) for n, s in self.modules.items() if len(s) == 2 and n not in ROUTERS}


@dataclass(frozen=True, slots=True)
class Parts:
    """A decoder sorted out once. ``tensors`` counts all tensors by how many numbers they have, ``matrices`` those of
    blocks with more than one dimension, experts included and what chooses them left out.
    """

    decoder: Decoder
    kinds: tuple[Kind, ...]
    tensors: Mapping[int, int]
    matrices: Mapping[int, int]

    @property
    def parameters(self) -> int:
        """Numbers of all tensors."""
        return sum(numbers * count for numbers, count in self.tensors.items())

    def targets(self, job: TrainingJob) -> list[dict[str, tuple[int, int]]]:
        """Shapes (out, in) of the matrices that get a low-rank adapter, for each kind of block; none for other methods.

        Raises InputError where a target is in no block.
        """
        if job.method not in LOW_RANK:
            return [{} for _ in self.kinds]
        able = [kind.able for kind in self.kinds]
        if job.targets == ("all",):
            return able
        there = {name for block in able for name in block}
        wanted = {
            next((other for other in (name, *_STANDS_FOR.get(name, ())) if other in there), name)
            for name in job.targets
        }
        if missing := sorted(wanted - there):
            raise InputError(
                f"{self.decoder.name} has no matrix {', '.join(missing)}; it has {', '.join(sorted(there)) or 'none'}; "
                "name targets among these, or all"
            )
        return [{n: s for n, s in block.items() if n in wanted} for block in able]

    def adapted(self, job: TrainingJob) -> list[tuple[tuple[int, int], int]]:
        """Every shape that gets a low-rank adapter, with its count."""
        chosen = zip(self.targets(job), self.kinds, strict=True)
        return [(shape, kind.count) for block, kind in chosen for shape in block.values()]


def parts_of(decoder: Decoder) -> Parts:
    """Sort the tensors of a decoder into its blocks, and the blocks into kinds."""
    modules: list[dict[str, tuple[int, ...]]] = [{} for _ in decoder.layers]
    tensors: Counter[int] = Counter()
    matrices: Counter[int] = Counter()
    for row in TensorTable.of(decoder.tensors).rows:
        name, shape, numbers = row.name, row.shape, math.prod(row.shape)
        tensors[numbers] += row.count
        match = _BLOCK.search(name)
        if match is None or int(match[1]) >= len(modules):
            continue
        path = match[2].removesuffix(".weight")
        leaf = path.rsplit(".", 1)[-1]
        matrices[numbers] += row.count * (len(shape) > 1 and leaf not in ROUTERS)
        if ".experts." not in path and not path.startswith("experts.") and not leaf.endswith("_exps"):
            modules[int(match[1])][path if leaf == "bias" else _ALIASES.get(leaf, leaf)] = shape
    alike: dict[tuple[Layer, tuple[tuple[str, tuple[int, ...]], ...]], int] = {}
    for layer, block in zip(decoder.layers, modules, strict=True):
        key = layer, tuple(sorted(block.items()))
        alike[key] = alike.get(key, 0) + 1
    kinds = tuple(Kind(layer, dict(block), count) for (layer, block), count in alike.items())
    return Parts(decoder, kinds, tensors, +matrices)


def low_rank_parameters(rows: int, columns: int, rank: int) -> int:
    """Numbers of one adapter of a (rows, columns) matrix: rank * (rows + columns) (Hu et al., arXiv 2106.09685)."""
    return rank * (rows + columns)


def trained_parameters(parts: Parts, job: TrainingJob) -> int:
    """How many numbers a job trains. Raises InputError for a target that the model lacks.

    - ``dora`` adds a magnitude for each row (Liu et al., arXiv 2402.09353);
    - ``ia3`` scales keys, values and the inner feed-forward layer (Liu et al., arXiv 2205.05638);
    - ``prefix`` has keys and values of ``virtual`` tokens in each layer, without the network that reparametrizes them
      (Li and Liang, arXiv 2101.00190);
    - ``prompt`` has ``virtual`` embeddings (Lester et al., arXiv 2104.08691);
    - ``adapter`` has a bottleneck with biases behind attention and feed-forward (Houlsby et al., arXiv 1902.00751).
    """
    decoder = parts.decoder
    if job.method == "full":
        return parts.parameters
    if job.method in LOW_RANK:
        return sum(
            count * (low_rank_parameters(*shape, job.rank) + (shape[0] if job.method == "dora" else 0))
            for shape, count in parts.adapted(job)
        )
    if job.method == "prompt":
        return job.virtual * decoder.hidden
    cached = [(a.kv_heads * a.key_dim, a.kv_heads * a.value_dim) for layer in decoder.layers if (a := layer.attention)]
    if job.method == "prefix":
        return job.virtual * sum(map(sum, cached))
    if job.method == "ia3":
        return sum(map(sum, cached)) + sum(layer.feed_forward for layer in decoder.layers)
    return len(decoder.layers) * 2 * (2 * decoder.hidden * job.rank + job.rank + decoder.hidden)
