"""Inputs in FP8 are rounded here as vLLM rounds them on a CPU: the same codes and scales, to the bit."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch

from quantwise.runtimes.rounded_inputs import _float8

PYTHON = os.environ.get("QUANTWISE_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not PYTHON, reason="QUANTWISE_VLLM_PYTHON names no Python with vLLM; run `make test-vllm`"),
]

THEIRS = """
import sys, torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.quantization.input_quant_fp8 import QuantFP8
from vllm.model_executor.layers.quantization.utils.quant_utils import GroupShape
with set_current_vllm_config(VllmConfig()):
    codes, scales = QuantFP8(static=False, group_shape=GroupShape.PER_TOKEN)(torch.load(sys.argv[1]))
torch.save((codes.view(torch.uint8), scales), sys.argv[2])
"""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_codes_and_scales_are_vllms(dtype: torch.dtype, tmp_path: Path) -> None:
    inputs = (torch.randn(512, 1024, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)
    inputs[3] = 0
    torch.save(inputs, tmp_path / "inputs.pt")
    command = [PYTHON, "-c", THEIRS, tmp_path / "inputs.pt", tmp_path / "theirs.pt"]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    codes, scales = torch.load(tmp_path / "theirs.pt")
    ours, our_scales = _float8(inputs, None)
    assert torch.equal(ours.view(torch.uint8), codes)
    assert torch.equal(our_scales, scales)
