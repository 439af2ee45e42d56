"""Quantize with llm-compressor (runs in .venv-llmcompressor), and say how long ``oneshot`` took.

    llmcompressor_arm.py MODEL TOKENS RECIPE [OUT]

RECIPE is a quantwise recipe's name; it is translated to the modifiers that do the same. All else stays at
llm-compressor's defaults. ``quantize`` is the call of ``oneshot`` on a model and token ids that are in memory already;
nothing is written unless OUT is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from told import Spent, tell


def scheme(name: str) -> dict[str, Any]:
    """The ``config_groups`` of a quantwise scheme: ``int4-g128``, ``int8-channel``, ``w8a8``."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    inputs = None
    if name == "w8a8":
        weights = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="channel")
        inputs = QuantizationArgs(num_bits=8, type="int", symmetric=True, strategy="token", dynamic=True)
    else:
        bits, _, shape = name.removeprefix("int").partition("-")
        shape, _, asymmetric = shape.partition("-")
        group = int(shape[1:]) if shape.startswith("g") else None
        weights = QuantizationArgs(
            num_bits=int(bits),
            type="int",
            symmetric=not asymmetric,
            strategy="group" if group else shape,
            group_size=group,
        )
    return {"group_0": QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)}


def modifiers(recipe: str) -> list[Any]:
    """llm-compressor's steps for a recipe such as ``gptq:int4-g128`` or ``smoothquant+rtn:w8a8``."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    head, _, name = recipe.partition(":")
    *transforms, quantizer = head.split("+")
    made: list[Any] = [SmoothQuantModifier(smoothing_strength=0.5) for t in transforms if t == "smoothquant"]
    kind = {"gptq": GPTQModifier, "rtn": QuantizationModifier}[quantizer]
    return [*made, kind(config_groups=scheme(name), ignore=["lm_head"])]


def main() -> None:
    """Load, quantize, tell."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, tokens, recipe, *out = sys.argv[1:]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    rows = json.loads(Path(tokens).read_text(encoding="utf-8"))
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    steps = modifiers(recipe)
    # Given one, it tokenizes nothing: the rows are ids already.
    processor = AutoTokenizer.from_pretrained(folder)
    with Spent() as spent:
        oneshot(
            model=model,
            processor=processor,
            dataset=data,
            recipe=steps,
            max_seq_length=max(map(len, rows)),
            num_calibration_samples=len(rows),
            shuffle_calibration_samples=False,
        )
    if out:
        model.save_pretrained(out[0], save_compressed=True)
        processor.save_pretrained(out[0])
    tell(spent, ("llmcompressor", "compressed-tensors", "transformers", "torch"))


if __name__ == "__main__":
    main()
