"""A decoder as llama.cpp computes it: its tensors by the names of a GGUF file, and only the windows that it has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.gguf_names import as_llamacpp_attends, gguf_table
from quantwise.plan.llamacpp.layers import enough_layers

Shapes = Mapping[str, tuple[int, ...]]

KNOWN = frozenset(
    {
        "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "granite", "olmo2", "starcoder2", "gptneox",
        "qwen2moe", "qwen3moe", "phi2", "smollm3", "olmo", "olmoe", "seed_oss", "deepseek2", "gpt-oss", "internlm2",
        "ernie4_5", "exaone", "xverse", "minicpm", "granitemoe", "mistral3", "nanbeige", "hunyuan-dense", "command-r",
        "cohere2", "deci",
    }
)  # fmt: skip
"""Architectures whose graphs were compared with what llama.cpp reserves."""

_PART = re.compile(r"blk\.(\d+)\.(.+)")


def as_llamacpp(decoder: Decoder) -> Decoder:
    """The same decoder with llama.cpp's architecture, names and windows; one out of a GGUF file is returned itself."""
    if "token_embd.weight" in decoder.tensors:
        return decoder
    table = gguf_table(decoder)
    layers = as_llamacpp_attends(decoder).layers
    return replace(decoder, architecture=table.architecture, tensors=table.shapes, layers=layers)


class Blocks:
    """The tensors of every layer of a decoder ``as_llamacpp`` by their part, such as ``attn_q.weight``.

    ``replayed`` are the layers that its graph needs to have (``layers.enough_layers``).
    """

    def __init__(self, decoder: Decoder) -> None:
        self._parts: dict[int, dict[str, tuple[int, ...]]] = {}
        for name, shape in decoder.tensors.items():
            if found := _PART.fullmatch(name):
                self._parts.setdefault(int(found[1]), {})[found[2]] = shape
        self.replayed = enough_layers([(shape, self[n].kinds()) for n, shape in enumerate(decoder.layers)])

    def __getitem__(self, layer: int) -> Block:
        return Block(layer, self._parts.get(layer, {}))


class Block:
    """The tensors of one layer."""

    def __init__(self, layer: int, parts: Mapping[str, tuple[int, ...]]) -> None:
        self._layer, self._parts = layer, parts

    def __contains__(self, part: str) -> bool:
        return f"{part}.weight" in self._parts

    def biased(self, part: str) -> bool:
        """Whether it has a bias."""
        return f"{part}.bias" in self._parts

    def shape(self, part: str) -> tuple[int, ...]:
        """Its shape, slowest dimension first. Raises InputError where the layer has no such tensor."""
        if part not in self:
            raise InputError(
                f"the model's tensors lack blk.{self._layer}.{part}, which llama.cpp's graph needs; give its GGUF file"
            )
        return self._parts[f"{part}.weight"]

    def rows(self, part: str) -> int:
        """How wide its output is."""
        return self.shape(part)[-2]

    def kinds(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """All parts with their shapes: layers with equal ones compute alike."""
        return frozenset(self._parts.items())
