"""A Hugging Face Llama folder written as one GGUF file that stock llama.cpp loads.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
import numpy.typing as npt

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.formats.gguf.tensors import TensorNames, arrange, ggml_type, head_dim, require_llama, rope_theta
from quantwise.formats.gguf.tokenizer import read_tokenizer
from quantwise.formats.safetensors_folder import ModelFolder

# The type of what stays in 16 bit. llama.cpp rounds activations to the type of the weights before it multiplies: with
# f16 its logits lie nearer to Transformers' than with bf16, whose 8-bit mantissa would then hold the activations too.
SIXTEEN = "f16"
_F16_LARGEST = 65504.0


class Encode(Protocol):
    """Values (..., columns) to the array stored for a ggml type."""

    def __call__(self, ggml: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        """Encode."""
        ...


def write_gguf(path: Path, source: ModelFolder, scheme: str, encode: Encode) -> tuple[Degradation, ...]:
    """Write ``source`` to ``path`` with its matrices in ggml type ``scheme``; tensors are read and encoded one by one.

    Raises InputError where llama.cpp cannot compute or tokenize as this model does.
    """
    config = source.config
    require_llama(config)
    tokenizer = read_tokenizer(source.path, config)
    names = TensorNames(config)
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    _add_parameters(writer, config, scheme)
    tokenizer.add_to(writer)
    degradations = list(tokenizer.degradations)
    plan: list[tuple[str, str, str]] = []
    for name, entry in source.entries.items():
        target = names.gguf_name(name)
        if target is None or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue
        ggml, retreat = ggml_type(target, entry.shape, scheme, SIXTEEN)
        degradations += [retreat] if retreat else []
        plan.append((name, target, ggml))
        kind = gguf.GGMLQuantizationType[ggml.upper()]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(target, entry.shape, np.dtype(np.float32), math.prod(entry.shape) // block * size, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, _, ggml in plan:
            values = arrange(name, source[name], config)
            if ggml == "f16" and float(np.abs(values).max(initial=0.0)) > _F16_LARGEST:
                raise InputError(f"tensor {name!r} has values beyond float16; build bf16 instead of {scheme}")
            writer.write_tensor_data(encode(ggml, values))
    finally:
        writer.close()
    return tuple(degradations)


def _add_parameters(writer: gguf.GGUFWriter, config: dict[str, Any], scheme: str) -> None:
    heads, width = int(config["num_attention_heads"]), head_dim(config)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_file_type(int(gguf.LlamaFileType[f"MOSTLY_{scheme.upper()}"]))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
