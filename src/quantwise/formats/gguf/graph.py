"""What there is to say of one decoder that llama.cpp computes; ``architectures`` says it of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """One graph of llama.cpp.

    ``parts`` and ``whole`` give the GGUF name of every module, within a block and outside; ``biases`` the names there
    that may have a bias, or must where ``needs_biases``. ``rope``: the two numbers of a head that are turned together
    lie in its two halves, as in the folder, or are neighbours, for which the rows of q and k are reordered.
    ``fused_by_head``: a head's query, key and value lie together in the folder; llama.cpp wants all queries first.
    ``norm_offset`` is what a norm adds to its stored weight. ``eps`` is the key of config.json and its default; without
    a key it is fixed. ``floats`` are numbers copied to a key of the file: that key, the key of config.json and its
    default. ``must`` are keys of config.json, their defaults, and the only values that the graph computes. ``sliding``:
    whether it can attend to a window. ``square``: heads together are as wide as the hidden state. ``output``: whether
    the output matrix is the embedding: "tied" always, "own" never.
    """

    name: str
    class_name: str
    parts: dict[str, str]
    whole: dict[str, str]
    blocks: str = "model.layers"
    biases: frozenset[str] = frozenset()
    needs_biases: bool = False
    rope: Literal["halves", "neighbours"] = "halves"
    theta: float = 10000.0
    partial_rotary: float | None = None
    factors: bool = False
    fused_by_head: bool = False
    norm_offset: float = 0.0
    layer_norm: bool = False
    eps: tuple[str | None, float] = ("rms_norm_eps", 1e-6)
    act: Literal["silu", "gelu"] = "silu"
    act_key: str = "hidden_act"
    floats: tuple[tuple[str, str, float | None], ...] = ()
    must: tuple[tuple[str, Any, tuple[Any, ...]], ...] = ()
    sliding: bool = False
    square: bool = False
    output: Literal["any", "tied", "own"] = "any"
