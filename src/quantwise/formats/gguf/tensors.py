"""Which tensors of a Hugging Face Llama become which tensors of a GGUF file, and in which ggml type."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError

Array = npt.NDArray[np.float32]
# Weights of one q8_0 or q4_0 block.
BLOCK = 32


def require_llama(config: dict[str, Any]) -> None:
    """Raise InputError unless llama.cpp's ``llama`` graph computes this model exactly."""
    kind = config.get("model_type")
    if kind != "llama":
        raise InputError(f"GGUF files are written for Llama-architecture models; this is {kind!r}: bring a .gguf of it")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise InputError(f"GGUF with rotary scaling {rope_type!r} is not written; bring a .gguf of this model")
    if config.get("hidden_act", "silu") != "silu":
        raise InputError(f"llama.cpp's Llama uses silu; this model uses {config['hidden_act']!r}: bring a .gguf of it")


def rope_theta(config: dict[str, Any]) -> float:
    """Base of the rotary frequencies; its place in config.json changed with Transformers 5."""
    return float((config.get("rope_parameters") or {}).get("rope_theta") or config.get("rope_theta") or 10000.0)


def head_dim(config: dict[str, Any]) -> int:
    """Width of one attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


class TensorNames:
    """From Hugging Face names to GGUF's, by the gguf package's own table."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, int(config["num_hidden_layers"]))

    def gguf_name(self, name: str) -> str | None:
        """The tensor's name in GGUF, or None where it is recomputed there. Raises InputError where it has no place."""
        if name.endswith("rotary_emb.inv_freq"):
            return None
        mapped: str | None = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if mapped is None:
            raise InputError(f"tensor {name!r} has no place in a GGUF Llama; bring a .gguf of this model")
        return mapped


def arrange(name: str, tensor: Tensor, config: dict[str, Any]) -> Array:
    """float32 values in the order llama.cpp wants.

    Hugging Face rotates dimension i of a head with i + head_dim / 2, llama.cpp rotates neighbours: the rows of q and k,
    (heads, 2, head_dim / 2) there, are (heads, head_dim / 2, 2) here.
    """
    values: Array = tensor.float().numpy()
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, key in heads.items():
        if f".{part}." in name:
            count = int(config.get(key) or config["num_attention_heads"])
            split = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
            return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
    return values


def ggml_type(name: str, shape: tuple[int, ...], wanted: str, sixteen: str) -> tuple[str, Degradation | None]:
    """The ggml type of a GGUF tensor in a file of type ``wanted``, and the retreat if it is another one.

    Vectors stay f32. Embedding and output matrix are read for every token and few in a 4-bit file's bytes: they take
    q8_0 there, as llama-quantize gives them more bits (q6_k) too. Rows that do not split into blocks take ``sixteen``.
    """
    if len(shape) == 1:
        return "f32", None
    if wanted in ("f16", "bf16"):
        return wanted, None
    if shape[-1] % BLOCK:
        return sixteen, Degradation(name, f"rows of {shape[-1]} are no multiple of {BLOCK}: left in {sixteen}")
    if wanted == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return "q8_0", Degradation(name, "embedding and output matrix take q8_0 in a q4_0 file")
    return wanted, None
