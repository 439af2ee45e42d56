"""A decoder as the planner sees it: its layers, what each keeps of a token, and its tensors, without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attention:
    """What an attention layer computes with, and what it keeps of each token.

    ``heads`` ask; ``kv_heads`` are cached, with ``key_dim`` numbers of a key and ``value_dim`` of a value each.
    ``window`` is how many tokens back a sliding layer sees (None: all). ``latent`` is above 0 for multi-head latent
    attention: the numbers kept of a token in all, its compressed keys and values and its rotary part, instead of
    keys and values. ``shared`` means that it reads the cache of an earlier layer and keeps none.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    latent: int = 0
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer. ``attention`` is None where it has none.

    ``state`` counts the numbers that a recurrent layer keeps of a whole sequence, however long. ``feed_forward`` is
    the width of a dense layer or of one expert; ``experts`` how many there are (0: dense), ``experts_used`` how many
    a token passes through.
    """

    attention: Attention | None
    feed_forward: int
    state: int = 0
    experts: int = 0
    experts_used: int = 0


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model. ``name`` is what it was asked for by, ``architecture`` its class in Transformers or its name in GGUF.

    ``tensors`` maps the names of Transformers, or those of a GGUF file, to shapes (out, in). ``stored`` maps the same
    names to bytes, where a header said how each is stored; it is empty for a model known by its config alone.
    """

    name: str
    architecture: str
    hidden: int
    vocab: int
    context: int
    tied: bool
    layers: tuple[Layer, ...]
    tensors: Mapping[str, tuple[int, ...]]
    stored: Mapping[str, int]
