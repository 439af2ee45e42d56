"""Quantize with GPTQModel (runs in .venv-gptqmodel), and say how long ``quantize`` took.

    gptqmodel_arm.py MODEL TOKENS RECIPE [OUT]

RECIPE is ``gptq:intB-gG``. All else stays at GPTQModel's defaults. ``quantize`` is that call on a model and token ids
that are in memory already; nothing is written unless OUT is given.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from told import tell


def main() -> None:
    """Load, quantize, tell."""
    from gptqmodel import GPTQModel, QuantizeConfig

    folder, tokens, recipe, *out = sys.argv[1:]
    bits, _, group = recipe.removeprefix("gptq:int").partition("-g")
    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    config = QuantizeConfig(bits=int(bits), group_size=int(group), sym=True, device="cpu")
    model = GPTQModel.load(folder, config)
    began = time.perf_counter()
    model.quantize(data)
    spent = time.perf_counter() - began
    if out:
        model.save(out[0])
    tell({"quantize": spent}, ("gptqmodel", "transformers", "torch"))


if __name__ == "__main__":
    main()
