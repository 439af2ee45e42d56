"""The numbers of a model folder, computed otherwise than by the Transformers runtime: what rounding alone changes.

In another type, with another order of sums in attention, or with the inputs of linear layers rounded to int8 as vLLM
does on processors with AMX for 4-bit weights, whatever the folder says. And as exactly as can be: float64, of numbers
that are read from the files without the runtime's own readers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from quantwise.grids.int8_inputs import round_tokens
from quantwise.models.config import quantization_settings
from quantwise.runtimes.transformers_folder import filled


class Int8Inputs(nn.Module):
    """A linear layer whose inputs are rounded to int8, a scale per token; sums in float32, rounded once."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out) in the type of ``inputs`` (..., in)."""
        codes, scale = round_tokens(inputs)
        out = (codes.float() * scale) @ self.weight.float().T
        return (out if self.bias is None else out + self.bias.float()).to(inputs.dtype)


def model_in(folder: Path, dtype: torch.dtype, rounded: bool = False, attention: str = "sdpa") -> Any:
    """The folder's model with everything but codes in ``dtype``; inputs rounded where its scheme does, and in every
    linear layer but the last where ``rounded``.
    """
    from transformers import AutoModelForCausalLM

    settings = quantization_settings(folder)
    if settings:
        model = filled(folder, settings, dtype)
    else:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True).eval()
    model.set_attn_implementation(attention)
    inner = [(name, m) for name, m in model.named_modules() if type(m) is nn.Linear and name != "lm_head"]
    for name, linear in inner if rounded else ():
        model.set_submodule(name, Int8Inputs(linear))
    return model


def exact_model(source: Path, folder: Path, rounded: bool = False) -> Any:
    """The model of ``source`` with the numbers stored in ``folder``, in float64; its inputs are rounded where the
    folder's scheme does, and in every quantized layer where ``rounded``, to the codes that exact values fall to.

    Norms and rotations stay in float32, as the code of the model has them.
    """
    from transformers import AutoModelForCausalLM

    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
    from meant_weights import RoundsInputs, meant

    model = AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float64, local_files_only=True).eval()
    model.set_attn_implementation("eager")
    settings, own = quantization_settings(folder), model.state_dict()
    stored = load_file(folder / "model.safetensors")
    plain = {name: t.double() for name, t in stored.items() if name in own and own[name].shape == t.shape}
    weights = {name: value.double() for name, value in meant(folder).items()} if settings else {}
    model.load_state_dict({**own, **plain, **{f"{name}.weight": value for name, value in weights.items()}})
    inputs = (
        (settings.get("config_groups") or {"group_0": {}})["group_0"].get("input_activations") if settings else None
    )
    if kind := inputs["type"] if inputs else "int" if rounded else None:
        for name in weights:
            model.set_submodule(name, RoundsInputs(model.get_submodule(name), kind, None))
    return model


@torch.inference_mode()
def logits(model: Any, texts: Sequence[Sequence[int]]) -> list[Tensor]:
    """For each text, given as its tokens after the one that opens it: (tokens, vocabulary), of float32 at least."""
    opening = model.config.eos_token_id
    found = (model(torch.tensor([[opening, *text]])).logits[0, :-1] for text in texts)
    return [text if text.dtype == torch.float64 else text.float() for text in found]
