"""Linear layers that round their inputs as vLLM does, for folders whose scheme says so.

Left alone, Transformers lets compressed-tensors round inputs on the CPU in the model's own 16-bit type: the scale is a
token's largest |input| over 127.5 instead of 127, quotients have 8 bits, and weights and inputs are multiplied after
each was rounded to 16 bit again. So a verdict would be about other numbers than the ones that are served. Here codes
are multiplied as integers (8-bit floats in float32), scaled in float32, and rounded once, to the output's type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quantwise.core.errors import RuntimeFailure
from quantwise.grids.float8 import LARGEST
from quantwise.grids.int8_inputs import round_fixed, round_tokens

# vLLM's, of 8-bit floats (model_executor/layers/quantization/input_quant_fp8.py, 0.32).
_LEAST = 1.0 / (LARGEST * 512.0)


class RoundedLinear(nn.Module):
    """A linear layer of codes.

    ``weight`` (out, in) is int8 or float8_e4m3fn; ``scale`` float32 (out or 1, groups), groups splitting a row evenly;
    ``bias`` (out,) or None; ``input_scale`` float32 (1,), or None for a scale per token.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, input_scale: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("scale", scale.float().reshape(-1, 1) if scale.dim() < 2 else scale.float())
        self.register_buffer("bias", bias)
        self.register_buffer("input_scale", None if input_scale is None else input_scale.float().reshape(1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out) in the type of ``inputs`` (..., in)."""
        flat = inputs.reshape(-1, self.in_features)
        if self.weight.dtype == torch.float8_e4m3fn:
            codes, scale = _float8(flat, self.input_scale)
            out = codes.float() @ self.weight.float().T * self.scale.T * scale
        else:
            codes, scale = _int8(flat, self.input_scale)
            out = self._integer_products(codes) * scale
        if self.bias is not None:
            out = out + self.bias.float()
        return out.to(inputs.dtype).reshape(*inputs.shape[:-1], self.out_features)

    def _integer_products(self, codes: Tensor) -> Tensor:
        """float32 (tokens, out): sums of products as int32, exact, each group's times the scale of its weights."""
        groups = self.scale.shape[1]
        if groups == 1:
            return torch._int_mm(codes, self.weight.T).float() * self.scale.T
        width, total = self.in_features // groups, torch.zeros(len(codes), self.out_features)
        for group in range(groups):
            part = slice(group * width, (group + 1) * width)
            sums = torch._int_mm(codes[:, part].contiguous(), self.weight[:, part].contiguous().T)
            total += sums.float() * self.scale[:, group]
        return total


def round_inputs(model: nn.Module) -> int:
    """Replace every linear layer of a freshly loaded compressed-tensors model whose scheme rounds inputs; how many.

    Raises RuntimeFailure for a scheme that is none of ours.
    """
    wanted = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and getattr(getattr(module, "quantization_scheme", None), "input_activations", None) is not None
    }
    for name, module in wanted.items():
        model.set_submodule(name, _replacement(name, module))
    return len(wanted)


def _replacement(name: str, module: Any) -> RoundedLinear:
    scheme = module.quantization_scheme
    inputs, weights = scheme.input_activations, scheme.weights
    known = inputs.num_bits == 8 and inputs.symmetric and inputs.strategy in ("token", "tensor")
    same = weights is not None and weights.symmetric and weights.type == inputs.type
    if not (known and same and inputs.dynamic is (inputs.strategy == "token")):
        raise RuntimeFailure(
            f"layer {name} rounds its inputs in a way that is not known here ({inputs.num_bits} bit, {inputs.strategy})"
            "; serve the folder with vLLM and give its address as the candidate"
        )
    if hasattr(module, "weight_packed"):
        from compressed_tensors.compressors import unpack_from_int32

        shape = torch.Size(module.weight_shape.tolist())
        weight = unpack_from_int32(module.weight_packed.data, weights.num_bits, shape)
    else:
        weight = module.weight.data
    fixed = None if inputs.dynamic else module.input_scale.data
    return RoundedLinear(weight, module.weight_scale.data, None if module.bias is None else module.bias.data, fixed)


def _int8(inputs: Tensor, fixed: Tensor | None) -> tuple[Tensor, Tensor]:
    return round_tokens(inputs) if fixed is None else (round_fixed(inputs, fixed), fixed)


def _float8(inputs: Tensor, fixed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Codes float8_e4m3fn (tokens, in) and their scale, (tokens, 1) or (1,).

    As vLLM computes them, to the bit: times the reciprocal of a scale that is not below its smallest one.
    """
    values = inputs.float()
    scale = (values.abs().amax(-1, keepdim=True) / LARGEST).clamp(min=_LEAST) if fixed is None else fixed.float()
    return (values * scale.reciprocal()).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale
