"""GGUF files of random weights in Llama's shape, written in seconds: for time and memory only, never for quality.

One block of rows is encoded for each type and width and then repeated, so that scales are those of real numbers (no
denormals, no infinities) and a file of a gigabyte takes as long as the disk does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from quantwise.formats.gguf.mixes import MixedModel, ggml_types
from quantwise.grids.ggml_blocks import GgmlBlocks

ROWS = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama; heads are 64 or 128 wide."""

    name: str
    hidden: int
    layers: int
    feed_forward: int
    heads: int
    kv_heads: int
    vocab: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names in the file and shapes (rows, columns)."""
        width = self.hidden // self.heads
        found: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab, self.hidden),
            "output_norm.weight": (self.hidden,),
            "output.weight": (self.vocab, self.hidden),
        }
        for i in range(self.layers):
            found |= {
                f"blk.{i}.attn_norm.weight": (self.hidden,),
                f"blk.{i}.attn_q.weight": (self.heads * width, self.hidden),
                f"blk.{i}.attn_k.weight": (self.kv_heads * width, self.hidden),
                f"blk.{i}.attn_v.weight": (self.kv_heads * width, self.hidden),
                f"blk.{i}.attn_output.weight": (self.hidden, self.heads * width),
                f"blk.{i}.ffn_norm.weight": (self.hidden,),
                f"blk.{i}.ffn_gate.weight": (self.feed_forward, self.hidden),
                f"blk.{i}.ffn_up.weight": (self.feed_forward, self.hidden),
                f"blk.{i}.ffn_down.weight": (self.hidden, self.feed_forward),
            }
        return found

    @property
    def parameters(self) -> int:
        """Count of weights."""
        return sum(int(np.prod(shape)) for shape in self.shapes().values())


def types(shape: Shape, mix: str) -> dict[str, str]:
    """The type of each tensor, as llama-quantize assigns them."""
    matrices = shape.shapes()
    if mix == "f16":
        return {name: "f16" if len(s) > 1 else "f32" for name, s in matrices.items()}
    return ggml_types(matrices, mix, MixedModel(shape.layers, shape.heads // shape.kv_heads))


def write_random(path: Path, shape: Shape, mix: str, context: int = 4096) -> Path:
    """Write a file of ``mix``; returns ``path``."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(shape.name)
    writer.add_context_length(context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_vocab_size(shape.vocab)
    _add_tokens(writer, shape.vocab)
    kinds, matrices = types(shape, mix), shape.shapes()
    for name, size in matrices.items():
        data, raw = _values(size, kinds[name])
        writer.add_tensor(name, data, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _values(size: tuple[int, ...], kind: str) -> tuple[np.ndarray[Any, Any], Any]:
    if len(size) == 1:
        return np.ones(size, np.float32), None
    rows = _rows(size[1], kind)
    repeats = -(-size[0] // ROWS)
    data = np.broadcast_to(rows, (repeats, *rows.shape)).reshape(-1, rows.shape[1])[: size[0]]
    return data, None if kind == "f16" else GgmlBlocks(kind).type


@cache
def _rows(columns: int, kind: str) -> np.ndarray[Any, Any]:
    draw = np.random.default_rng(columns)
    return GgmlBlocks(kind).encode(draw.normal(0, columns**-0.5, (ROWS, columns)).astype(np.float32))


def _add_tokens(writer: gguf.GGUFWriter, vocab: int) -> None:
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    words = [f"w{i}" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens + words)
    writer.add_token_scores([0.0] * len(tokens) + [-float(i) for i in range(len(words))])
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
