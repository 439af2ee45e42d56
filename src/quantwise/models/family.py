"""One family of decoders as data, and the lines that most of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quantwise.models.fields import Fields
from quantwise.models.layer_kinds import Kind, Kinds, all_full
from quantwise.models.layer_sizes import Sizes, llama_sizes

Lines = tuple[str, ...]
Sparse = Callable[[Fields, int], bool]
Adjust = Callable[[Fields, int, Kind], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Family:
    """One model type. Lines (``tensor_lines``) of a layer's ``attention``, ``norms``, ``dense`` feed-forward layer,
    ``experts`` in the layers that are ``sparse``, and ``recurrent`` part; ``whole`` are those outside the layers and
    ``output`` the output matrix, which is left out where it is tied.

    ``sizes`` gives the symbols; ``kinds`` what each layer attends to; ``window`` the key of config.json with the
    tokens that a sliding layer sees; ``defaults`` what a config.json leaves out. ``adjust`` gives the sizes in which
    one layer differs from the others.
    """

    attention: Lines
    dense: Lines
    norms: Lines = ("input_layernorm h", "post_attention_layernorm h")
    experts: Lines = ()
    recurrent: Lines = ()
    sparse: Sparse | None = None
    blocks: str = "model.layers"
    whole: Lines = ("model.embed_tokens v,h", "model.norm h")
    output: str = "lm_head v,h"
    sizes: Sizes = llama_sizes
    kinds: Kinds = all_full
    window: str = "sliding_window"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    adjust: Adjust | None = None


def biased(lines: Lines, switch: str = "+") -> Lines:
    """The lines with a bias each, where ``switch`` says so."""
    return tuple(f"{line} {switch}" for line in lines)


TIED = {"tie_word_embeddings": True}
QKV = ("self_attn.q_proj q,h", "self_attn.k_proj kv,h", "self_attn.v_proj kv,h")
OUT = ("self_attn.o_proj h,q",)
PLAIN = QKV + OUT
SWITCHED = biased(PLAIN, "+attention_bias")
QK_NORMS = ("self_attn.q_norm d", "self_attn.k_norm d")
GATED = ("mlp.gate_proj f,h", "mlp.up_proj f,h", "mlp.down_proj h,f")
FEED_FORWARD = tuple(line.replace("mlp.", "feed_forward.") for line in GATED)
LAYER_NORMS = biased(("input_layernorm h", "post_attention_layernorm h"))
BIASED_WHOLE = ("model.embed_tokens v,h", "model.norm h +")
