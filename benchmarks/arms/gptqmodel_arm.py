"""Quantize with GPTQModel (runs in .venv-gptqmodel), and say how long ``quantize`` took.

    gptqmodel_arm.py MODEL TOKENS RECIPE [OUT]

RECIPE is ``gptq:intB-gG``. All else stays at GPTQModel's defaults. ``quantize`` is that call on a model and token ids
that are in memory already; nothing is written unless OUT is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from told import Spent, tell


def main() -> None:
    """Load, quantize, tell."""
    from gptqmodel import GPTQModel, QuantizeConfig

    folder, tokens, recipe, *out = sys.argv[1:]
    bits, _, group = recipe.removeprefix("gptq:int").partition("-g")
    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    data = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
    config = QuantizeConfig(bits=int(bits), group_size=int(group), sym=True, device="cpu")
    model = GPTQModel.load(folder, config)
    with Spent() as spent:
        model.quantize(data)
    if out:
        model.save(out[0])
    tell(spent, ("gptqmodel", "transformers", "torch"))


if __name__ == "__main__":
    main()
