"""Tensor tables as lines of text: a name, its dimensions by symbols, and what decides whether it or a bias is there.

    self_attn.q_proj   q,h   +attention_bias     a weight of (q, h), and a bias where the config says attention_bias
    mlp.fc1            f,h   +                   with a bias always
    self_attn.sinks!   heads                     no module but a bare parameter
    mlp.experts.*.up   m,h                       once for each expert (behind ``experts``)
    self_attn.q_norm   d     ?qk_layernorm       only where the config says qk_layernorm

Symbols are sizes of the model; a number stands for itself, and ``2*f`` for a product. A switch may be a size too: it is
on where that is not 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from quantwise.models.fields import Fields
from quantwise.models.tensor_table import Alike


def write_out(lines: Iterable[str], sizes: Mapping[str, int], fields: Fields) -> Iterator[Alike]:
    """Names and shapes. Raises InputError where a switch of the config is none."""
    for line in lines:
        path, dimensions, *switches = line.split()
        if not all(_on(switch[1:], sizes, fields) for switch in switches if switch[0] == "?"):
            continue
        shape = tuple(_product(dimension, sizes) for dimension in dimensions.split(","))
        biased = any(switch == "+" or _on(switch[1:], sizes, fields) for switch in switches if switch[0] == "+")
        count = sizes["e"] if "*" in path else 1
        if count < 1:
            continue
        module = path.replace("*", "0")
        if module.endswith("!"):
            yield Alike(module[:-1], shape, count)
            continue
        yield Alike(f"{module}.weight", shape, count)
        if biased:
            yield Alike(f"{module}.bias", shape[:1], count)


def _on(switch: str, sizes: Mapping[str, int], fields: Fields) -> bool:
    return bool(sizes[switch]) if switch in sizes else fields.flag(switch)


def _product(text: str, sizes: Mapping[str, int]) -> int:
    return math.prod(int(part) if part.isdigit() else sizes[part] for part in text.split("*"))
