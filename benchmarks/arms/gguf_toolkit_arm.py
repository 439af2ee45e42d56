"""Error-compensated k-quants of IST-DASLab/gptq-gguf-toolkit, on a CPU.

    gguf_toolkit_arm.py CHECKOUT MODEL TOKENS TYPE OUT.safetensors

Its program asks for CUDA and NCCL before anything else; the class behind it does not, and is called here with that
program's defaults, in float32. Every matrix of the blocks becomes TYPE (``q4_k``); what they then stand for is written
to OUT, float32. Nothing of that repository is kept in this one: CHECKOUT is a clone of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from told import Spent, tell

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    """Load, quantize, tell."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    checkout, folder, tokens, kind, out = sys.argv[1:]
    sys.path.insert(0, str(Path(checkout) / "quant" / "gptq"))
    from src.quant_utils import GGMLQuantizationType
    from src.quantizer import Quantizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    defaults = {"rel_damp": 1e-2, "block_size": 128, "act_order": False, "quant_scale": "absmax"}
    defaults |= {"static_groups": False, "rmin": -1.0, "rdelta": 0.1, "nstep": 20}
    with tempfile.TemporaryDirectory() as kept, Spent() as spent:
        quantizer = Quantizer(
            model,
            data_loader=[([], {"input_ids": torch.tensor([row])}) for row in rows],
            quantizable_modules=r".*layers.*((q|k|v|o|gate|up|down)_proj)$",
            quantizer_kwargs=defaults,
            pre_block_modules=["model.embed_tokens"],
            block_modules="model.layers",
            post_block_modules=["lm_head"],
            device=torch.device("cpu"),
            save_dir=kept,
        )
        quantizer.quantize(dict.fromkeys(MATRICES, GGMLQuantizationType[kind.upper()]))
    matrices = {f"{n}.weight": m.weight.data.contiguous() for n, m in model.named_modules() if n.endswith(MATRICES)}
    save_file(matrices, out)
    tell(spent, ("transformers", "torch", "gguf"))


if __name__ == "__main__":
    main()
