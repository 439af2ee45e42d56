"""A Hugging Face Llama folder written as one GGUF file that stock llama.cpp loads.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.core.scheme import FIXED_SCHEMES
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.formats.gguf.tensors import arrange, head_dim, placed, require_llama, retreats, rope_theta, types_in
from quantwise.formats.gguf.tokenizer import read_tokenizer
from quantwise.formats.safetensors_folder import ModelFolder

_F16_LARGEST = 65504.0


class Encode(Protocol):
    """Values (..., columns) to the array stored for a ggml type."""

    def __call__(self, ggml: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
        """Encode."""
        ...


def write_gguf(
    path: Path,
    source: ModelFolder,
    scheme: str,
    encode: Encode,
    *,
    types: Mapping[str, str] | None = None,
    made: Mapping[str, Tensor] | None = None,
) -> tuple[Degradation, ...]:
    """Write ``source`` to ``path``; tensors are read, encoded and written one by one.

    ``types`` is the ggml type of each tensor by its name in the folder; without it, what llama-quantize assigns to a
    file of the name ``scheme``. ``made`` stands for tensors of the folder, by name: uint8 (rows, bytes of one row) is
    what was quantized already, in the folder's order of rows; anything else are new values, encoded here. Raises
    InputError where llama.cpp cannot compute or tokenize as this model does.
    """
    config = source.config
    require_llama(config)
    tokenizer = read_tokenizer(source.path, config)
    target = placed(source.entries, config)
    kinds = types or types_in(source.entries, config, scheme)
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=False)
    _add_parameters(writer, config, scheme)
    tokenizer.add_to(writer)
    for name in target:
        shape = source.entries[name].shape
        kind = gguf.GGMLQuantizationType[kinds[name].upper()]
        held = tensor_bytes(shape, kinds[name])
        writer.add_tensor_info(target[name], shape, np.dtype(np.float32), held, kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in target:
            tensor = made[name] if made and name in made else source[name]
            due = tensor_bytes(source.entries[name].shape, kinds[name])
            rows = arrange(name, _array(name, tensor, kinds[name], due), config)
            writer.write_tensor_data(rows if rows.dtype == np.uint8 else encode(kinds[name], rows))
    finally:
        writer.close()
    # What was mixed otherwise ("auto") wanted no type that it did not get.
    missed = retreats(source.entries, config, scheme, kinds) if scheme in FIXED_SCHEMES else ()
    return (*tokenizer.degradations, *missed)


def _array(name: str, tensor: Tensor, ggml: str, due: int) -> npt.NDArray[Any]:
    """Packed rows as they are, which must be ``due`` bytes; anything else in float32."""
    if tensor.dtype != torch.uint8:
        values: npt.NDArray[np.float32] = tensor.float().numpy()
        if ggml == "f16" and float(np.abs(values).max(initial=0.0)) > _F16_LARGEST:
            raise InputError(f"tensor {name!r} has values beyond float16; build bf16 instead")
        return values
    if tensor.numel() != due:
        raise ValueError(f"{name} was packed to rows of {tensor.shape[-1]} bytes, which are not those of {ggml}")
    packed: npt.NDArray[np.uint8] = tensor.numpy()
    return packed


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
    # A file of mixed types of our own has no name there.
    kind = gguf.LlamaFileType.__members__.get(f"MOSTLY_{scheme.upper()}", gguf.LlamaFileType.GUESSED)
    writer.add_file_type(int(kind))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
