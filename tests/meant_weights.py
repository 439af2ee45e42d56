"""What the numbers of an artifact mean, read from its files in the slow, obvious way, and a model that holds them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

LIBRARY_NF4 = 16


def meant(folder: Path) -> dict[str, Tensor]:
    """float32 weights (out, in) of the quantized layers of a folder, by the layer's name."""
    stored = load_file(folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    reader: Callable[[str, dict[str, Tensor], dict[str, Any]], Tensor]
    ending, reader = {
        "compressed-tensors": (".weight_scale", _compressed),
        "gptq": (".qweight", _gptq),
        "awq": (".qweight", _awq),
        "bitsandbytes": (".weight.absmax", _nf4) if settings.get("load_in_4bit") else (".SCB", _int8),
    }[settings["quant_method"]]
    names = [name.removesuffix(ending) for name in stored if name.endswith(ending)]
    return {name: reader(name, stored, settings) for name in names}


def bits_of(words: list[int], bits: int, count: int) -> list[int]:
    """The first ``count`` codes of a stream of 32-bit words, lowest bits first."""
    stream = sum((word & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(words))
    return [stream >> (bits * i) & ((1 << bits) - 1) for i in range(count)]


def _unpacked(rows: Tensor, bits: int, count: int) -> Tensor:
    return torch.tensor([bits_of(row, bits, count) for row in rows.tolist()])


def _compressed(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    groups = settings["config_groups"].values()
    by_name = [g for g in groups if any(t.startswith("re:") and re.match(t[3:], name) for t in g["targets"])]
    weights = (*by_name, *(g for g in groups if g["targets"] == ["Linear"]))[0]["weights"]
    scale = stored[f"{name}.weight_scale"].float()
    scale = scale.reshape(1, 1) if scale.dim() < 2 else scale
    if f"{name}.weight" in stored:
        codes = stored[f"{name}.weight"].float()
        return codes * scale.repeat_interleave(codes.shape[1] // scale.shape[1], 1)
    bits = weights["num_bits"]
    rows, columns = stored[f"{name}.weight_shape"].tolist()
    codes = _unpacked(stored[f"{name}.weight_packed"], bits, columns) - (1 << (bits - 1))
    zero = torch.zeros_like(scale)
    if f"{name}.weight_zero_point" in stored:
        zero = _unpacked(stored[f"{name}.weight_zero_point"].t(), bits, rows).t().float() - (1 << (bits - 1))
    width = columns // scale.shape[1]
    return (codes - zero.repeat_interleave(width, 1)) * scale.repeat_interleave(width, 1)


def _gptq(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    bits, v1 = settings["bits"], settings["checkpoint_format"] == "gptq"
    scales, group = stored[f"{name}.scales"].float(), stored[f"{name}.g_idx"].long()
    rows, columns = scales.shape[1], len(group)
    codes = _unpacked(stored[f"{name}.qweight"].t(), bits, columns)
    zeros = _unpacked(stored[f"{name}.qzeros"], bits, rows).t() + int(v1)
    return (codes - zeros[:, group]).float() * scales.t()[:, group]


def _awq(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    scales = stored[f"{name}.scales"].float().t()
    nibble = [0, 4, 1, 5, 2, 6, 3, 7]

    def spread(words: Tensor) -> Tensor:
        return torch.stack([(words.long() >> (4 * n)) & 15 for n in nibble], -1).reshape(len(words), -1).t()

    codes, zeros = spread(stored[f"{name}.qweight"]), spread(stored[f"{name}.qzeros"])
    width = codes.shape[1] // scales.shape[1]
    return (codes - zeros.repeat_interleave(width, 1)).float() * scales.repeat_interleave(width, 1)


def _nf4(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    state = json.loads(bytes(stored[f"{name}.weight.quant_state.bitsandbytes__nf4"].tolist()))
    packed = stored[f"{name}.weight"].reshape(-1).long()
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)
    scale = stored[f"{name}.weight.absmax"]
    if f"{name}.weight.nested_absmax" in stored:
        largest = stored[f"{name}.weight.nested_absmax"].repeat_interleave(state["nested_blocksize"])[: len(scale)]
        scale = stored[f"{name}.weight.nested_quant_map"][scale.long()] * largest + state["nested_offset"]
    values = stored[f"{name}.weight.quant_map"][codes] * scale.repeat_interleave(state["blocksize"])
    return values.reshape(state["shape"])


def _int8(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> Tensor:
    return stored[f"{name}.weight"].float() * (stored[f"{name}.SCB"] / 127).unsqueeze(1)


def meant_in_gguf(file: Path) -> dict[str, Tensor]:
    """float32 values of every tensor of a GGUF file, as the gguf package reads them, by its GGUF name."""
    import gguf

    return {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()).float()
        for t in gguf.GGUFReader(file).tensors
    }


class RoundsInputs(nn.Module):
    """A linear layer that rounds its inputs first, in float64: codes and steps as the scheme says."""

    def __init__(self, layer: nn.Linear, kind: str, fixed: float | None) -> None:
        super().__init__()
        self.layer, self.kind, self.fixed = layer, kind, fixed

    def forward(self, x: Tensor) -> Tensor:
        highest = 448.0 if self.kind == "float" else 127.0
        values = x.double()
        step = (
            values.abs().amax(-1, keepdim=True) / highest if self.fixed is None else torch.tensor(self.fixed).double()
        )
        codes = (values.float() / step.float()).clamp(-highest - (self.kind == "int"), highest)
        codes = codes.to(torch.float8_e4m3fn).double() if self.kind == "float" else codes.round().double()
        out = (codes * step) @ self.layer.weight.double().T
        return (out if self.layer.bias is None else out + self.layer.bias.double()).to(x.dtype)


@torch.no_grad()
def model_of(source: Path, artifact: Path) -> Any:
    """The model of ``source`` with the meant weights, biases and norms of ``artifact``, a folder.

    It computes in bfloat16, as the runtime does: rounded inputs would otherwise fall to other codes. The weights behind
    rounded inputs stay in float32.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    stored = load_file(artifact / "model.safetensors")
    own = model.state_dict()
    plain = {name: t.float() for name, t in stored.items() if name in own and own[name].shape == t.shape}
    weights = {f"{name}.weight": value.float() for name, value in meant(artifact).items()}
    model.load_state_dict({**own, **plain, **weights})
    model = model.to(torch.bfloat16)
    settings = json.loads((artifact / "config.json").read_text())["quantization_config"]
    inputs = (settings.get("config_groups") or {"group_0": {}})["group_0"].get("input_activations")
    for name in meant(artifact) if inputs else ():
        fixed = stored.get(f"{name}.input_scale")
        layer = model.get_submodule(name).float()
        layer.weight.copy_(weights[f"{name}.weight"])
        rounded = RoundsInputs(layer, inputs["type"], None if fixed is None else float(fixed))
        model.set_submodule(name, rounded)
    return model
