"""Mixtures of experts in compressed-tensors folders.

Transformers holds the experts of a block fused, in two parameters, so compressed-tensors can only unpack them while it
loads; zero points of experts and the rounding of inputs are lost on the way. Here every layer is read as it is stored
(``formats/compressed_tensors.py``): its codes with their zero points become 16-bit weights, and where the scheme rounds
inputs, experts become linear layers of their own that round theirs, as any other layer does (``rounded_inputs``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quantwise.core.errors import RuntimeFailure
from quantwise.formats.safetensors_header import read_folder
from quantwise.runtimes.expanded_layouts import tensors_of
from quantwise.runtimes.rounded_inputs import RoundedLinear
from quantwise.runtimes.stored_layer import PARTS, StoredLayer, stored_layer

_EXPERT = re.compile(r"(?P<block>.*\.layers\.\d+)\..*experts\.(?P<number>\d+)\.(?P<part>\w+)")
# What Mixtral calls them, and what the others do.
_ROLES = {"w1": "gate", "gate_proj": "gate", "w3": "up", "up_proj": "up", "w2": "down", "down_proj": "down"}
_STRATEGIES = ("tensor", "channel", "group")
_SETTINGS = {"quant_method": "compressed-tensors"}


class RoundedExperts(nn.Module):
    """What a fused experts module computes, each expert's three layers on rounded inputs."""

    def __init__(self, layers: Sequence[Mapping[str, RoundedLinear]], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.ModuleDict(dict(one)) for one in layers])
        self.act = act

    def forward(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """``hidden`` (tokens, width), ``chosen`` and ``weights`` (tokens, experts per token) to (tokens, width)."""
        out = torch.zeros_like(hidden)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            if len(token):
                layers: Any = expert
                rows = hidden[token]
                made = layers["down"](self.act(layers["gate"](rows)) * layers["up"](rows))
                out.index_add_(0, token, (made * weights[token, place, None]).to(out.dtype))
        return out


def holds_mixture(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds experts in compressed-tensors, in layouts that are read here."""
    if settings.get("quant_method") != "compressed-tensors":
        return False
    known = all((group.get("weights") or {}).get("strategy") in _STRATEGIES for group in _groups(settings))
    names = list(read_folder(folder))
    return known and any(".experts." in n for n in names) and not any(n.endswith("weight_g_idx") for n in names)


def stored_layers(folder: Path) -> tuple[dict[str, StoredLayer], dict[str, Tensor]]:
    """The quantized layers of a compressed-tensors folder by their stored names, and all other tensors by theirs.

    Raises RuntimeFailure where a layer is not complete.
    """
    plain = dict(tensors_of(folder))
    names = [name.removesuffix(".weight_scale") for name in plain if name.endswith(".weight_scale")]
    layers = {}
    for name in names:
        parts = {part: plain.pop(f"{name}.{part}") for part in PARTS["compressed-tensors"] if f"{name}.{part}" in plain}
        try:
            layers[name] = stored_layer(parts, _SETTINGS)
        except (KeyError, RuntimeError, ValueError) as error:
            raise RuntimeFailure(f"{folder}: layer {name} is no complete compressed-tensors layer ({error})") from error
    return layers, plain


def round_mixture(model: nn.Module, layers: Mapping[str, StoredLayer]) -> None:
    """Make every quantized layer of ``model`` round its inputs, experts too.

    Raises RuntimeFailure where a layer has no place in the model's tree.
    """
    fused = {name.rpartition(".mlp")[0]: name for name, _ in model.named_modules() if name.endswith(".experts")}
    experts: dict[str, dict[int, dict[str, RoundedLinear]]] = {}
    for name, layer in layers.items():
        found = _EXPERT.fullmatch(name)
        if found is None:
            bias = getattr(_module(model, name), "bias", None)
            model.set_submodule(name, _rounded(layer, None if bias is None else bias.data))
        elif found["part"] in _ROLES and found["block"] in fused:
            of_block = experts.setdefault(found["block"], {})
            of_block.setdefault(int(found["number"]), {})[_ROLES[found["part"]]] = _rounded(layer, None)
        else:
            raise _no_place(name)
    for block, of_block in experts.items():
        path = fused[block]
        numbered: Any = model.get_submodule(path)
        if sorted(of_block) != list(range(numbered.num_experts)) or any(len(one) < 3 for one in of_block.values()):
            raise RuntimeFailure(f"the experts of {block} are not complete; build or download the folder again")
        model.set_submodule(path, RoundedExperts([of_block[n] for n in sorted(of_block)], numbered.act_fn))


def rounds_inputs(settings: Mapping[str, Any]) -> bool:
    """Whether a folder's scheme rounds inputs. Raises RuntimeFailure for a way that is none of ours."""
    inputs = [group.get("input_activations") or {} for group in _groups(settings)]
    if not any(inputs):
        return False
    for one in inputs:
        dynamic = one.get("dynamic") is (one.get("strategy") == "token")
        if not (dynamic and one.get("num_bits") == 8 and one.get("symmetric")):
            raise RuntimeFailure(
                "this mixture of experts rounds its inputs in a way that is not known here; serve the folder with vLLM "
                "and give its address as the candidate"
            )
    return True


def _groups(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [group for group in (settings.get("config_groups") or {}).values() if isinstance(group, dict)]


def _rounded(layer: StoredLayer, bias: Tensor | None) -> RoundedLinear:
    return RoundedLinear(layer.codes, layer.scale, bias, layer.input_scale)


def _module(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise _no_place(name) from error


def _no_place(name: str) -> RuntimeFailure:
    return RuntimeFailure(f"layer {name} has no place in the model that Transformers makes; serve the folder with vLLM")
