"""GGUF files of any architecture and size whose weights are all zero: they load in llama.cpp and take no disk.

For checking what a model takes, which does not depend on its weights. A file is a header and a hole.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantwise.formats.gguf.mixes import MixedModel, ggml_types, tensor_bytes
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.testing.blank_layers import BIASED, CONVOLUTION, layer_shapes


@dataclass(frozen=True, slots=True)
class BlankModel:
    """Sizes of a model of llama.cpp's ``architecture``, and the ``mix`` of types that its file has.

    Every ``period``-th layer sees all tokens and the others ``window`` tokens back, where there is a window.
    ``experts`` is 0 for a dense model. ``rank`` and ``turned``: numbers of a latent and of its rotary part. ``kv_each``
    gives key-value heads layer by layer; where there are none a layer of ``lfm2`` is recurrent. ``state`` numbers are
    kept by Mamba of each of its channels.
    """

    architecture: str = "llama"
    hidden: int = 512
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    dim: int = 64
    feed_forward: int = 1536
    vocab: int = 8192
    tied: bool = False
    mix: str = "q4_k_m"
    context: int = 1 << 17
    window: int = 0
    period: int = 2
    experts: int = 0
    experts_used: int = 2
    shared: int = 0
    rank: int = 0
    turned: int = 0
    kv_each: tuple[int, ...] = ()
    state: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def slides(self, layer: int) -> bool:
        """Whether a layer sees its window only."""
        return bool(self.window) and (layer + 1) % self.period != 0

    def kv_heads_of(self, layer: int) -> int:
        """Key-value heads of a layer."""
        return self.kv_each[layer] if self.kv_each else self.kv_heads

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the file, slowest dimension first."""
        made: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab, self.hidden)}
        for layer in range(self.layers):
            for part, shape in layer_shapes(self, layer).items():
                made[f"blk.{layer}.{part}"] = shape
        if self.architecture != "olmo":
            made["token_embd_norm.weight" if self.architecture == "lfm2" else "output_norm.weight"] = (self.hidden,)
        if self.architecture in BIASED:
            made["output_norm.bias"] = (self.hidden,)
        if not self.tied:
            made["output.weight"] = (self.vocab, self.hidden)
        if self.architecture == "phi2":
            made["output.bias"] = (self.vocab,)
        return made

    @property
    def types(self) -> dict[str, str]:
        """The type of every tensor, as llama-quantize assigns them."""
        model = MixedModel(self.layers, self.heads // max(self.kv_heads, 1), self.experts, self.architecture)
        return ggml_types(self.shapes, self.mix, model)

    @property
    def stored(self) -> dict[str, int]:
        """Bytes of every tensor."""
        kinds = self.types
        return {name: tensor_bytes(shape, kinds[name]) for name, shape in self.shapes.items()}

    def decoder(self) -> Decoder:
        """As the planner sees it."""
        return Decoder(
            name="blank",
            architecture=self.architecture,
            hidden=self.hidden,
            vocab=self.vocab,
            context=self.context,
            tied=self.tied,
            layers=tuple(self._layer(n) for n in range(self.layers)),
            tensors=self.shapes,
            stored=self.stored,
        )

    def _layer(self, layer: int) -> Layer:
        window = self.window if self.slides(layer) else None
        latent = self.rank + self.turned if self.rank else 0
        kv_heads = self.kv_heads_of(layer)
        if self.architecture == "mamba":
            return Layer(None, 0, 2 * self.hidden * (CONVOLUTION - 1 + self.state))
        if not kv_heads:
            return Layer(None, self.feed_forward, self.hidden * (CONVOLUTION - 1))
        attention = Attention(self.heads, kv_heads, self.dim, self.dim, window=window, latent=latent)
        return Layer(attention, self.feed_forward, 0, self.experts, self.experts_used if self.experts else 0)

    def keys(self) -> dict[str, Any]:
        """Metadata without the architecture before it."""
        made: dict[str, Any] = {
            "context_length": self.context,
            "embedding_length": self.hidden,
            "block_count": self.layers,
            "feed_forward_length": self.feed_forward,
            "attention.head_count": self.heads,
            "attention.head_count_kv": list(self.kv_each) or self.kv_heads,
            "attention.key_length": self.dim,
            "attention.value_length": self.dim,
            "attention.layer_norm_rms_epsilon": 1e-5,
            "attention.layer_norm_epsilon": 1e-5,
            "rope.dimension_count": self.dim,
        }
        if self.rank:
            made |= {
                "attention.q_lora_rank": self.rank,
                "attention.kv_lora_rank": self.rank,
                "attention.key_length": self.rank + self.turned,
                "attention.value_length": self.rank,
                "attention.key_length_mla": self.dim,
                "attention.value_length_mla": self.dim,
                "rope.dimension_count": self.turned,
                "leading_dense_block_count": 0,
                "expert_shared_count": 1,
                "expert_gating_func": 1,
            }
        if self.architecture == "lfm2":
            made["shortconv.l_cache"] = CONVOLUTION
        if self.architecture == "mamba":
            made |= {"ssm.conv_kernel": CONVOLUTION, "ssm.inner_size": 2 * self.hidden, "ssm.state_size": self.state}
            made |= {"ssm.time_step_rank": self.hidden // 16, "attention.head_count": 0, "feed_forward_length": 0}
            made |= {"attention.head_count_kv": 0}
        if self.window:
            made["attention.sliding_window"] = self.window
        if self.architecture == "gptneox":
            made["use_parallel_residual"] = True
        if self.experts:
            made |= {"expert_count": self.experts, "expert_used_count": self.experts_used}
            made["expert_feed_forward_length"] = self.feed_forward
        if self.shared:
            made["expert_shared_feed_forward_length"] = self.shared
        return made | self.extra


def write_blank(path: Path, model: BlankModel) -> int:
    """Write the file; returns how many bytes stand before the first tensor. About 2,000 words are real text."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, model.architecture, use_temp_file=False)
    for key, value in model.keys().items():
        _add(writer, f"{model.architecture}.{key}", value)
    words = [f"t{i}" for i in range(model.vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([1] * model.vocab)
    writer.add_token_merges(["t 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    kinds, stored, total = model.types, model.stored, 0
    for name, shape in model.shapes.items():
        number = gguf.GGMLQuantizationType[kinds[name].upper()]
        writer.add_tensor_info(name, shape, np.dtype(np.float32), stored[name], number)
        total += -(-stored[name] // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = -(-path.stat().st_size // 32) * 32
    os.truncate(path, header + total)
    return header


def _add(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case list():
            writer.add_array(key, value)
        case _:
            writer.add_string(key, value)


def weights(model: BlankModel) -> int:
    """How many numbers there are."""
    return sum(math.prod(shape) for shape in model.shapes.values())
