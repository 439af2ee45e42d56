"""Which tensors of a Hugging Face Llama become which tensors of a GGUF file, and in which ggml type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.formats.gguf.mixes import GGML_BLOCKS, MixedModel, ggml_types
from quantwise.formats.safetensors_header import TensorEntry

Rows = npt.NDArray[Any]
# Columns that split into every block.
FITS_ALL = 256


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


def placed(entries: Mapping[str, TensorEntry], config: dict[str, Any]) -> dict[str, str]:
    """The GGUF name of every tensor that the file will hold, by its name in the folder."""
    names = TensorNames(config)
    found = {name: names.gguf_name(name) for name in entries}
    tied = config.get("tie_word_embeddings")
    return {name: to for name, to in found.items() if to is not None and not (tied and name == "lm_head.weight")}


def types_in(
    entries: Mapping[str, TensorEntry], config: dict[str, Any], mix: str, *, importance: bool = False
) -> dict[str, str]:
    """The ggml type that llama-quantize gives every tensor of a folder, by its name in the folder."""
    to = placed(entries, config)
    types = ggml_types({to[n]: entries[n].shape for n in to}, mix, _mixed_model(config), importance=importance)
    return {name: types[target] for name, target in to.items()}


def retreats(
    entries: Mapping[str, TensorEntry], config: dict[str, Any], mix: str, types: Mapping[str, str]
) -> tuple[Degradation, ...]:
    """Matrices that took another of ``types`` than the mix wants, because their rows do not split into its blocks."""
    to = placed(entries, config)
    wide = {to[name]: (*entries[name].shape[:-1], FITS_ALL) for name in to if len(entries[name].shape) > 1}
    wanted = ggml_types(wide, mix, _mixed_model(config))
    found = []
    for name, target in to.items():
        block = GGML_BLOCKS[wanted.get(target, "f32")][0]
        columns = entries[name].shape[-1]
        if columns % block and types[name] != wanted[target]:
            what = f"rows of {columns} are no multiple of {block}: {types[name]} in place of {wanted[target]}"
            found.append(Degradation(target, what))
    return tuple(found)


def _mixed_model(config: dict[str, Any]) -> MixedModel:
    heads = int(config["num_attention_heads"])
    per_kv = heads // int(config.get("num_key_value_heads") or heads)
    return MixedModel(int(config["num_hidden_layers"]), per_kv, int(config.get("num_local_experts") or 0))


def arrange(name: str, values: Rows, config: dict[str, Any]) -> Rows:
    """Rows, (rows, anything), in the order llama.cpp wants: of values, or of the bytes that rows were encoded to.

    Hugging Face rotates dimension i of a head with i + head_dim / 2, llama.cpp rotates neighbours: the rows of q and k,
    (heads, 2, head_dim / 2) there, are (heads, head_dim / 2, 2) here.
    """
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, key in heads.items():
        if f".{part}." in name:
            count = int(config.get(key) or config["num_attention_heads"])
            split = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
            return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))
    return values
