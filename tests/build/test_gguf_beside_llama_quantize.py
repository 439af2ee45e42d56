"""Our files beside those of ``llama_model_quantize``, byte for byte, where llama-cpp-python is installed.

QUANTWISE_LLAMA_PYTHON names the Python that has it; without it, it is .venv-llama/bin/python, as for the benchmarks.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gguf_architectures import FIXED
from tiny_models import write_tiny

from quantwise.formats.gguf.architectures import ARCHITECTURES
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(os.environ.get("QUANTWISE_LLAMA_PYTHON") or ROOT / ".venv-llama" / "bin" / "python")
ARM = ROOT / "benchmarks" / "arms" / "llama_quantize_arm.py"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PEER.exists(), reason="QUANTWISE_LLAMA_PYTHON names no Python with llama-cpp-python"),
    pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)"),
]
MIXES = ("q4_k_m", "q2_k", "q4_0")
# Rows of whole blocks, and layers enough that the mixes treat some otherwise.
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
_SCALED = {"layer_types": None, "head_dim": 32, "query_pre_attn_scalar": 32}
OWN: dict[str, dict[str, Any]] = {
    "gemma2": _SCALED,
    "gemma3_text": _SCALED,
    "gpt_neox": {"num_key_value_heads": None},
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_key_value_heads": 8},
    "phi": {"num_key_value_heads": 8},
    "qwen2_moe": {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 512},
    "qwen3_moe": {"moe_intermediate_size": 256},
    "smollm3": {"no_rope_layers": None},
}


def encode(ggml: str, values: np.ndarray) -> np.ndarray:
    return GgmlBlocks(ggml).encode(values)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_tensor_is_the_same(kind: str, tmp_path: Path) -> None:
    import gguf

    write_tiny(tmp_path, kind, **{**FIXED.get(kind, {}), **WIDE, **OWN.get(kind, {})})
    source, full = ModelFolder(tmp_path), tmp_path / "full.gguf"
    write_gguf(full, source, "f32", encode)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for mix in MIXES:
        ours, theirs = tmp_path / f"{mix}.gguf", tmp_path / f"{mix}-theirs.gguf"
        write_gguf(ours, source, mix, encode)
        command = [str(PEER), str(ARM), str(full), str(theirs), mix, "1"]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        found = {t.name: t for t in gguf.GGUFReader(ours).tensors}
        due = {t.name: t for t in gguf.GGUFReader(theirs).tensors}
        assert {n: t.tensor_type.name for n, t in found.items()} == {n: t.tensor_type.name for n, t in due.items()}
        assert all(np.array_equal(found[name].data, due[name].data) for name in due), mix
