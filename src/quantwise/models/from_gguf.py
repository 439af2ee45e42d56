"""A decoder out of the header of a GGUF file.

What llama.cpp keeps of a token in each layer is decided by its src/llama-hparams.cpp and the ``load_hparams`` of each
architecture (src/models/*.cpp, 2026): which layers slide where the file names no pattern is fixed there, and written
down here. An architecture that is not in these tables is taken to attend to everything, which never keeps too little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.models.fields import LARGEST_SIZE, MOST_LAYERS

# Every so many layers one sees all tokens, the others a window; its width where the file leaves that out.
_PERIODS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "gemma2": (2, 4096),
        "gemma3": (6, 0),
        "gemma3n": (5, 0),
        "gpt-oss": (2, 0),
        "cohere2": (4, 0),
        "olmo2": (4, 0),
        "exaone4": (4, 0),
        "llama4": (4, 8192),
        "smallthinker": (4, 0),
    }
)
_ALL_RECURRENT = ("mamba", "mamba2")
_BOTH = ("falcon-h1",)
# One of so many layers attends, the others keep a state; the key says how many.
_INTERVALS = ("qwen3next", "qwen35", "qwen35moe")
_USUAL_INTERVAL = 4
# A layer without key-value heads keeps a state there, elsewhere nothing.
_BY_KV_HEADS = ("jamba", "granitehybrid", "nemotron_h", "nemotron_h_moe", "lfm2", "lfm2moe", "plamo2", "kimi-linear")


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """A header without its file. ``keys`` are single values, ``arrays`` lists; ``shapes`` and ``stored`` the tensors'.

    ``where`` is what complaints call it.
    """

    architecture: str
    keys: Mapping[str, Any]
    arrays: Mapping[str, list[Any]]
    shapes: Mapping[str, tuple[int, ...]]
    stored: Mapping[str, int]
    where: str

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture. Raises InputError where it is missing without a default, or absurd."""
        value = self.keys.get(f"{self.architecture}.{key}", default)
        return self._checked(key, value)

    def each(self, key: str, count: int, default: int | None = None) -> list[int]:
        """A number for each layer, which may be one for all. Raises InputError as ``number`` does."""
        listed = self.arrays.get(f"{self.architecture}.{key}")
        if listed is None:
            return [self.number(key, default)] * count
        if len(listed) < count:
            raise InputError(f"{self.where}: {key} names {len(listed)} layers, the file has {count}; build it again")
        return [self._checked(key, value) for value in listed[:count]]

    def _checked(self, key: str, value: Any) -> int:
        if value is None:
            raise InputError(f"{self.where} lacks {self.architecture}.{key}; give the .gguf file of a decoder")
        if not isinstance(value, int) or not 0 <= value <= LARGEST_SIZE:
            raise InputError(f"{self.where}: {key} must be a whole number of 0 to {LARGEST_SIZE}, not {value!r:.40}")
        return int(value)


def gguf_decoder(facts: GgufFacts, name: str) -> Decoder:
    """The decoder in a GGUF file, called ``name``; its tensors have the file's names and bytes.

    Raises InputError where a size is missing or contradicts another.
    """
    count, hidden = facts.number("block_count"), facts.number("embedding_length")
    if not 0 < count <= MOST_LAYERS or hidden == 0:
        raise InputError(f"{facts.where}: {count} layers of width {hidden} are no decoder; give another file")
    embeddings = facts.shapes.get("token_embd.weight")
    return Decoder(
        name=name,
        architecture=facts.architecture,
        hidden=hidden,
        vocab=embeddings[0] if embeddings else facts.number("vocab_size"),
        context=facts.number("context_length"),
        tied="output.weight" not in facts.shapes,
        layers=tuple(_layers(facts, count, hidden)),
        tensors=dict(facts.shapes),
        stored=dict(facts.stored),
    )


def _layers(facts: GgufFacts, count: int, hidden: int) -> list[Layer]:
    recurrent, attends = _recurrent(facts, count), _attending(facts, count, hidden)
    state = _state(facts, hidden) if any(recurrent) else 0
    used = facts.number("expert_used_count", 0)
    layers = []
    for number, attention in enumerate(attends):
        wide, experts = _feed_forward(facts, number)
        keeps = attention if not recurrent[number] or facts.architecture in _BOTH else None
        layers.append(Layer(keeps, wide, state * recurrent[number], experts, used if experts else 0))
    return layers


def _attending(facts: GgufFacts, count: int, hidden: int) -> list[Attention | None]:
    if facts.architecture in _ALL_RECURRENT:
        return [None] * count
    heads = facts.each("attention.head_count", count)
    kv_heads = facts.each("attention.head_count_kv", count, 0) if _given(facts, "attention.head_count_kv") else heads
    usual = hidden // max(heads) if max(heads) else 0
    keys, values = facts.number("attention.key_length", usual), facts.number("attention.value_length", usual)
    latent = _latent(facts)
    if latent:
        keys, values = facts.number("attention.key_length_mla"), facts.number("attention.value_length_mla")
    windows = _windows(facts, count)
    slid_keys = facts.number("attention.key_length_swa", keys)
    slid_values = facts.number("attention.value_length_swa", values)
    # The last layers of some read what an earlier one kept; those that predict further tokens keep nothing.
    without = facts.number("attention.shared_kv_layers", 0) + facts.number("nextn_predict_layers", 0)
    found: list[Attention | None] = []
    for number, (asking, cached, window) in enumerate(zip(heads, kv_heads, windows, strict=True)):
        if not asking or not cached:
            found.append(None)
            continue
        if asking % cached and not latent:
            raise InputError(
                f"{facts.where}: {asking} heads do not split over {cached} key-value heads; build it again"
            )
        key, value = (slid_keys, slid_values) if window else (keys, values)
        if not key or not value:
            raise InputError(f"{facts.where}: heads of width {key} and {value} are none; build it again")
        shared = number >= count - without
        kept = asking if latent else cached
        found.append(Attention(asking, kept, key, value, window, latent, shared))
    return found


def _given(facts: GgufFacts, key: str) -> bool:
    full = f"{facts.architecture}.{key}"
    return full in facts.keys or full in facts.arrays


def _latent(facts: GgufFacts) -> int:
    """Numbers of a token in multi-head latent attention; 0 where llama.cpp keeps whole keys and values, as it does of
    files that were made before it knew better.
    """
    if not (_given(facts, "attention.key_length_mla") and _given(facts, "attention.value_length_mla")):
        return 0
    return facts.number("attention.kv_lora_rank") + facts.number("rope.dimension_count")


def _windows(facts: GgufFacts, count: int) -> list[int | None]:
    """Tokens that each layer sees; None: all."""
    period, usual = _PERIODS.get(facts.architecture, (0, 0))
    window = facts.number("attention.sliding_window", usual)
    listed = facts.arrays.get(f"{facts.architecture}.attention.sliding_window_pattern")
    if not window or (listed is None and not period):
        return [None] * count
    if facts.architecture == "llama4":
        window = usual
    if listed is not None:
        slides = facts.each("attention.sliding_window_pattern", count)
        return [window if flag else None for flag in slides]
    every = facts.number("attention.sliding_window_pattern", period) or count
    return [window if (layer + 1) % every else None for layer in range(count)]


def _recurrent(facts: GgufFacts, count: int) -> list[bool]:
    if facts.architecture in (*_ALL_RECURRENT, *_BOTH):
        return [True] * count
    if facts.architecture in _INTERVALS:
        every = facts.number("full_attention_interval", _USUAL_INTERVAL) or 1
        return [(layer + 1) % every != 0 for layer in range(count)]
    if facts.architecture not in _BY_KV_HEADS:
        return [False] * count
    kept = facts.each("attention.head_count_kv", count)
    wide = facts.each("feed_forward_length", count, 0)
    # In Nemotron-H a layer is either this or a feed-forward layer.
    alone = facts.architecture.startswith("nemotron")
    return [not heads and not (alone and width) for heads, width in zip(kept, wide, strict=True)]


def _state(facts: GgufFacts, hidden: int) -> int:
    """Numbers that llama.cpp keeps of a sequence in one recurrent layer: inputs of the convolution, and the state."""
    if short := facts.number("shortconv.l_cache", 0):
        return hidden * (short - 1)
    inner, state = facts.number("ssm.inner_size"), facts.number("ssm.state_size")
    kernel, groups = facts.number("ssm.conv_kernel"), facts.number("ssm.group_count", 0)
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


def _feed_forward(facts: GgufFacts, layer: int) -> tuple[int, int]:
    """Width of the feed-forward layer or of one expert, and how many experts."""
    stacked = facts.shapes.get(f"blk.{layer}.ffn_down_exps.weight")
    if stacked is not None and len(stacked) == 3:
        return stacked[2], stacked[0]
    dense = facts.shapes.get(f"blk.{layer}.ffn_down.weight")
    return (dense[-1] if dense is not None else 0), 0
