"""GGUF files of every architecture without running them: bytes planned beforehand, and rows packed by the walk."""

from pathlib import Path

import pytest
import torch
from test_gguf_architectures import FIXED
from tiny_models import write_tiny

from quantwise.formats.gguf.architectures import ARCHITECTURES
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.tensors import layout, types_in
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.plan.weights import artifact_bytes, gguf_data_bytes

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")


def write(folder: Path, source: ModelFolder, mix: str, **given: object) -> Path:
    write_gguf(folder / "file.gguf", source, mix, lambda g, v: GgmlBlocks(g).encode(v), **given)  # type: ignore[arg-type]
    return folder / "file.gguf"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_bytes_are_known_beforehand_and_packed_rows_are_placed(kind: str, tmp_path: Path) -> None:
    """Packed rows come in the folder's order, one matrix for each expert; encoded whole, the file is the same."""
    write_tiny(tmp_path, kind, **FIXED.get(kind, {}))
    source = ModelFolder(tmp_path)
    for mix in ("f16", "q4_k_m", "q4_0"):
        file = write(tmp_path, source, mix)
        assert artifact_bytes(mix if mix == "f16" else f"rtn:{mix}", tmp_path) == gguf_data_bytes(
            read_gguf_header(file)
        )
    whole, types = file.read_bytes(), types_in(source.entries, source.config, "q4_0")
    matrices = [name for target in layout(source.entries, source.config) for name in target.sources
                if types[name] == "q4_0"]  # fmt: skip
    grid = GgmlGrid("q4_0")
    made = {name: grid.pack(*grid.quantize(source[name].float())) for name in matrices}
    assert all(rows.dtype == torch.uint8 for rows in made.values())
    assert len(made) >= 8
    assert write(tmp_path, source, "q4_0", types=types, made=made).read_bytes() == whole


@pytest.mark.parametrize(("recipe", "found"), [("rtn:q4_0", False), ("gptq:q4_0", True), ("awq+rtn:q4_0", True)])
def test_what_calibration_changes_in_a_mix_is_planned(recipe: str, found: bool, tmp_path: Path) -> None:
    write_tiny(tmp_path, "qwen2", num_hidden_layers=8)
    source = ModelFolder(tmp_path)
    types = types_in(source.entries, source.config, "q4_0", importance=found)
    assert ("q4_1" in types.values()) is found
    written = gguf_data_bytes(read_gguf_header(write(tmp_path, source, "q4_0", types=types)))
    assert artifact_bytes(recipe, tmp_path) == written


def test_factors_of_a_rotary_embedding_count_too(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "rope_theta": 1e4, "original_max_position_embeddings": 32}  # fmt: skip
    write_tiny(tmp_path, "llama", rope_parameters=rope)
    header = read_gguf_header(write(tmp_path, ModelFolder(tmp_path), "q8_0"))
    assert header.tensors[0].name == "rope_freqs.weight"
    assert artifact_bytes("rtn:q8_0", tmp_path) == gguf_data_bytes(header)


def test_experts_of_several_types_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path, "mixtral")
    source = ModelFolder(tmp_path)
    types = types_in(source.entries, source.config, "q8_0")
    types["model.layers.1.block_sparse_moe.experts.2.w1.weight"] = "q4_0"
    with pytest.raises(ValueError, match=r"blk\.1\.ffn_gate_exps\.weight lie in one tensor"):
        write(tmp_path, source, "auto", types=types)
