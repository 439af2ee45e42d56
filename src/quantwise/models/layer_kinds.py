"""What each layer of a decoder does with the tokens before it: sees all, sees a window, or keeps a state instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.models.fields import Fields

Kind = Literal["full", "sliding", "recurrent", "both"]
Kinds = Callable[[Fields], list[Kind]]

# The words of a config.json. A chunk of Llama 4 is a window that moves by its own length: never more is seen.
_WORDS: dict[str, Kind] = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "conv": "recurrent",
    "hybrid": "both",
}


def listed_kinds(fields: Fields) -> list[Kind] | None:
    """The list in the config.json itself, None where it has none.

    Raises InputError for a word that is not known, and a list that is not as long as the model is deep.
    """
    for key in ("layer_types", "layers_block_type"):
        words = fields.word_list(key, fields.layers)
        if words is None:
            continue
        for word in words:
            if word not in _WORDS:
                raise InputError(f"{fields.where}: {key} has {word!r:.40}; known are {', '.join(_WORDS)}")
        return [_WORDS[word] for word in words]
    return None


def all_full(fields: Fields) -> list[Kind]:
    """Every layer sees all tokens."""
    return ["full"] * fields.layers


def all_sliding(fields: Fields) -> list[Kind]:
    """Every layer sees a window, where the config has one."""
    return ["sliding"] * fields.layers


def all_sliding_if_used(fields: Fields) -> list[Kind]:
    """A window that a switch may turn off, in every layer."""
    return ["sliding" if fields.flag("use_sliding_window") else "full"] * fields.layers


def qwen2_kinds(fields: Fields) -> list[Kind]:
    """A window that a switch may turn off, in the layers above a certain one."""
    first = fields.size("max_window_layers", 28, least=0)
    used = fields.flag("use_sliding_window")
    return ["sliding" if used and layer >= first else "full" for layer in range(fields.layers)]


def dots_kinds(fields: Fields) -> list[Kind]:
    """A window in the layers above a certain one."""
    first = fields.size("max_window_layers", 62, least=0)
    return ["sliding" if layer >= first else "full" for layer in range(fields.layers)]


def sliding_but_every(period: int, key: str = "sliding_window_pattern") -> Kinds:
    """Every ``period``-th layer sees all tokens, the others a window; the period may stand in the config as ``key``.

    There it may be a word such as LLLG too, which stands for its length.
    """

    def kinds(fields: Fields) -> list[Kind]:
        given = fields.get(key)
        every = len(given) if isinstance(given, str) and given else fields.size(key, period, least=0) or fields.layers
        return ["sliding" if (layer + 1) % every else "full" for layer in range(fields.layers)]

    return kinds


def llama4_kinds(fields: Fields) -> list[Kind]:
    """Layers that rotate nothing see all tokens, the others a chunk."""
    rotated = fields.number_list("no_rope_layers")
    if not rotated:
        return sliding_but_every(4, "no_rope_layer_interval")(fields)
    if len(rotated) != fields.layers:
        raise InputError(f"{fields.where}: no_rope_layers names {len(rotated)} layers, the model has {fields.layers}")
    return ["sliding" if flag else "full" for flag in rotated]


def linear_beside(fields: Fields) -> list[Kind]:
    """Linear attention, but for every fourth layer (Qwen3-Next)."""
    every = fields.size("full_attention_interval", 4)
    return ["recurrent" if (layer + 1) % every else "full" for layer in range(fields.layers)]


def jamba_kinds(fields: Fields) -> list[Kind]:
    """Mamba, but for one layer of every eight."""
    period, offset = fields.size("attn_layer_period", 8), fields.size("attn_layer_offset", 4, least=0)
    return ["full" if layer % period == offset else "recurrent" for layer in range(fields.layers)]


def all_recurrent(fields: Fields) -> list[Kind]:
    """No attention anywhere, unless the config lists it."""
    return ["recurrent"] * fields.layers


def conv_beside(fields: Fields) -> list[Kind]:
    """Short convolutions beside the attention layers that are numbered (LFM2)."""
    full = fields.number_list("full_attn_idxs")
    return ["full" if full is None or layer in full else "recurrent" for layer in range(fields.layers)]


def all_both(fields: Fields) -> list[Kind]:
    """Attention and Mamba side by side in every layer (Falcon-H1)."""
    return ["both"] * fields.layers
