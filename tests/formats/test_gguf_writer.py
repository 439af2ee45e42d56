"""A GGUF file of tensors that were quantized before it was written."""

from pathlib import Path

import numpy as np
import pytest
import torch

import quantwise
from quantwise.formats.gguf.tensors import placed, types_in
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_grid import GgmlGrid

REFERENCE = Path(quantwise.__file__).parent / "models" / "reference"
pytestmark = [
    pytest.mark.skipif(not (REFERENCE / "config.json").is_file(), reason="the reference model is not trained yet"),
    pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)"),
]


def encode(ggml: str, values: np.ndarray) -> np.ndarray:
    return GgmlBlocks(ggml).encode(values)


def packed(source: ModelFolder, types: dict[str, str], layer: int) -> dict[str, torch.Tensor]:
    made = {}
    for name in source:
        if f".{layer}." in name and source[name].ndim == 2:
            grid = GgmlGrid(types[name])
            made[name] = grid.pack(*grid.quantize(source[name].float()))
    return made


def test_packed_rows_and_encoded_values_give_the_same_file(tmp_path: Path) -> None:
    """Also for q and k, whose rows are in another order in the file."""
    source = ModelFolder(REFERENCE)
    types = types_in(source.entries, source.config, "q4_k_m")
    made = packed(source, types, layer=1)
    assert len(made) == 7
    first = write_gguf(tmp_path / "packed", source, "q4_k_m", encode, made=made)
    assert first == write_gguf(tmp_path / "encoded", source, "q4_k_m", encode) == ()
    assert (tmp_path / "packed").read_bytes() == (tmp_path / "encoded").read_bytes()


def test_types_of_ones_own_and_new_values(tmp_path: Path) -> None:
    import gguf

    source = ModelFolder(REFERENCE)
    types = types_in(source.entries, source.config, "q4_k_m")
    gate = "model.layers.0.mlp.gate_proj.weight"
    norm = "model.layers.0.input_layernorm.weight"
    types[gate] = "q2_k"
    write_gguf(tmp_path / "file", source, "auto", encode, types=types, made={norm: 2 * source[norm].float()})
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "file").tensors}
    to = placed(source.entries, source.config)
    assert tensors[to[gate]].tensor_type.name == "Q2_K"
    assert np.array_equal(tensors[to[norm]].data, 2 * source[norm].float().numpy())
    assert np.array_equal(tensors[to[gate]].data, encode("q2_k", source[gate].float().numpy()))


def test_bytes_of_another_type_are_refused(tmp_path: Path) -> None:
    source = ModelFolder(REFERENCE)
    name = "model.layers.0.mlp.gate_proj.weight"
    wrong = torch.from_numpy(encode("q2_k", source[name].float().numpy()))
    with pytest.raises(ValueError, match="packed to rows of 84 bytes"):
        write_gguf(tmp_path / "file", source, "q4_k_s", encode, made={name: wrong})
