"""What is trained, and how: the options that memory depends on, and the numbers that each method trains."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder

Method = Literal["full", "lora", "qlora", "dora", "ia3", "prefix", "prompt", "adapter"]
Precision = Literal["fp32", "mixed", "bf16"]
Optimizer = Literal["adamw", "adamw-foreach", "adamw-fused", "adamw-8bit", "paged-adamw", "paged-adamw-8bit"]
AttentionKernel = Literal["sdpa", "math"]

LOW_RANK = ("lora", "qlora", "dora")
# GGUF's names of matrices, and others', as adapters call them.
_ALIASES: Mapping[str, str] = {
    "attn_q": "q_proj",
    "attn_k": "k_proj",
    "attn_v": "v_proj",
    "attn_qkv": "qkv_proj",
    "query_key_value": "qkv_proj",
    "attn_output": "o_proj",
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
        if min(self.sequence, self.batch, self.rank, self.virtual) < 1:
            raise InputError("sequence, batch, rank and virtual tokens must be at least 1")
        if self.method == "prefix" and self.checkpointing:
            raise InputError("prefix tuning keeps a cache, which checkpointing drops; train without checkpointing")

    @property
    def tokens(self) -> int:
        """Tokens that pass through the model at once, soft prompts included."""
        return self.batch * (self.sequence + (self.virtual if self.method == "prompt" else 0))


def block_tensors(decoder: Decoder) -> dict[int, dict[str, tuple[int, ...]]]:
    """Shapes of each block's tensors by their name in the block, without ``.weight``."""
    blocks: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, shape in decoder.tensors.items():
        if match := _BLOCK.search(name):
            blocks.setdefault(int(match[1]), {})[match[2].removesuffix(".weight")] = shape
    return blocks


def modules(block: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of a block's tensors by module, as adapters call it (``q_proj``, ``input_layernorm``), without experts."""
    found = {}
    for name, shape in block.items():
        if ".experts." not in f".{name}." and not name.endswith(("_exps", ".bias")):
            module = name.rsplit(".", 1)[-1]
            found[_ALIASES.get(module, module)] = shape
    return found


def low_rank_targets(decoder: Decoder, targets: tuple[str, ...]) -> dict[int, dict[str, tuple[int, int]]]:
    """Shapes (out, in) of the matrices of each block that get an adapter.

    Raises InputError where a target is in no block.
    """
    chosen: dict[int, dict[str, tuple[int, int]]] = {}
    there: set[str] = set()
    for number, tensors in block_tensors(decoder).items():
        matrices = {
            name: (shape[0], shape[1])
            for name, shape in modules(tensors).items()
            if len(shape) == 2 and name not in ROUTERS
        }
        there |= set(matrices)
        chosen[number] = {n: s for n, s in matrices.items() if targets == ("all",) or n in targets}
    if missing := [name for name in targets if name not in there and name != "all"]:
        raise InputError(f"{decoder.name} has no matrix {', '.join(missing)}; it has {', '.join(sorted(there))}")
    return chosen


def low_rank_parameters(rows: int, columns: int, rank: int) -> int:
    """Numbers of one adapter of a (rows, columns) matrix: rank * (rows + columns) (Hu et al., arXiv 2106.09685)."""
    return rank * (rows + columns)


def trained_parameters(decoder: Decoder, job: TrainingJob) -> int:
    """How many numbers a job trains. Raises InputError for a target that the model lacks.

    - ``dora`` adds a magnitude for each row (Liu et al., arXiv 2402.09353);
    - ``ia3`` scales keys, values and the inner feed-forward layer (Liu et al., arXiv 2205.05638);
    - ``prefix`` has keys and values of ``virtual`` tokens in each layer, without the network that reparametrizes them
      (Li and Liang, arXiv 2101.00190);
    - ``prompt`` has ``virtual`` embeddings (Lester et al., arXiv 2104.08691);
    - ``adapter`` has a bottleneck with biases behind attention and feed-forward (Houlsby et al., arXiv 1902.00751).
    """
    if job.method == "full":
        return all_parameters(decoder)
    if job.method in LOW_RANK:
        chosen = low_rank_targets(decoder, job.targets)
        shapes = [shape for block in chosen.values() for shape in block.values()]
        magnitudes = sum(rows for rows, _ in shapes) if job.method == "dora" else 0
        return sum(low_rank_parameters(*shape, job.rank) for shape in shapes) + magnitudes
    if job.method == "prompt":
        return job.virtual * decoder.hidden
    cached = [(a.kv_heads * a.key_dim, a.kv_heads * a.value_dim) for layer in decoder.layers if (a := layer.attention)]
    if job.method == "prefix":
        return job.virtual * sum(map(sum, cached))
    if job.method == "ia3":
        return sum(map(sum, cached)) + sum(layer.feed_forward for layer in decoder.layers)
    return len(decoder.layers) * 2 * (2 * decoder.hidden * job.rank + job.rank + decoder.hidden)


def all_parameters(decoder: Decoder) -> int:
    """Numbers of all tensors."""
    return sum(math.prod(shape) for shape in decoder.tensors.values())
