"""The mixes of GGUF in stock llama.cpp: they load, and say nearly what the 16-bit model says."""

from pathlib import Path

import pytest
from test_in_llamacpp import STORY, compare

import quantwise
from quantwise.formats.gguf.tensors import types_in
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
# Largest divergence in nats over a few prefixes: a type read wrongly gives several nats.
MOST = {
    "q8_0": 0.01, "q6_k": 0.02, "q5_k_m": 0.05, "q5_k_s": 0.05, "q5_1": 0.05, "q5_0": 0.05, "q4_k_m": 0.2,
    "q4_k_s": 0.2, "q4_1": 0.2, "q4_0": 0.2, "q3_k_l": 0.5, "q3_k_m": 0.5, "q3_k_s": 0.5, "q2_k": 1.5,
}  # fmt: skip
QUICK = ("q4_k_m", "q2_k")


@pytest.mark.parametrize("mix", [m if m in QUICK else pytest.param(m, marks=pytest.mark.long) for m in MOST])
def test_a_mix_loads_and_answers(tmp_path: Path, mix: str) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, ModelFolder(REFERENCE), mix, lambda ggml, values: GgmlBlocks(ggml).encode(values))
    found = compare(REFERENCE, str(file), [STORY, "7 + 8 = ", "The boy"])
    assert found < MOST[mix]


def test_packed_codes_mean_the_same_there(tmp_path: Path) -> None:
    """q3_k, packed by us with codes moved off the encoder's choice: llama.cpp computes with the values we decode."""
    import torch

    source = ModelFolder(REFERENCE)
    types = types_in(source.entries, source.config, "q3_k_m")
    made, values = {}, {}
    for name in source:
        if ".layers." in name and source[name].ndim == 2:
            grid = GgmlGrid(types[name])
            codes, steps = grid.quantize(source[name].float())
            moved = codes.float().sub(1).clamp(grid.lowest, grid.highest)
            codes = torch.where(torch.arange(codes.shape[1]) % 16 == 0, moved, codes.float()).to(torch.int8)
            made[name], values[name] = grid.pack(codes, steps), grid.decode(codes, steps)
    write_gguf(
        tmp_path / "packed.gguf", source, "q3_k_m", lambda ggml, v: GgmlBlocks(ggml).encode(v), types=types, made=made
    )
    folder = tmp_path / "folder"
    expand(folder, values)
    assert compare(folder, str(tmp_path / "packed.gguf"), [STORY, "The boy"]) < 0.02


def expand(folder: Path, values: dict[str, object]) -> None:
    """The reference model with ``values`` in place of its weights, in float32."""
    import shutil

    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for file in REFERENCE.glob("*.json"):
        shutil.copy(file, folder / file.name)
    tensors = load_file(REFERENCE / "model.safetensors")
    save_file({n: values.get(n, t.float()) for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
