"""A quantized folder whose linear layers are computed by torch's kernels for few bits: the packed path.

The model's tree is made with those layers left out, so no 16-bit weight is ever made for them; then each layer is read,
packed and put in its place, one after the other. Which schemes that is for: ``core.loads.expands``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from quantwise.core.errors import RuntimeFailure
from quantwise.formats.safetensors_header import TensorEntry, read_folder
from quantwise.models.stored_scheme import expanded_because
from quantwise.runtimes.expanded_layouts import refuses
from quantwise.runtimes.packed_linear import packed_linear
from quantwise.runtimes.stored_layer import PARTS, SCALE, stored_layer

_FIXED: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def packed_model(path: Path, settings: Mapping[str, Any], dtype: torch.dtype) -> nn.Module | None:
    """The model with packed layers, for inputs of ``dtype``; None where torch has no kernel for some layer of it.

    ``settings`` is the ``quantization_config``. Raises RuntimeFailure where a layer is not complete or tensors lack.
    """
    method = settings.get("quant_method")
    if method not in SCALE or expanded_because(settings) is not None:
        return None
    if method in ("gptq", "awq") and refuses(settings) is not None:
        return None
    entries = read_folder(path)
    parts, scale = PARTS[method], SCALE[method]
    layers = [name.removesuffix(f".{scale}") for name in entries if name.endswith(f".{scale}")]
    config, kind = _kind(path)
    if not layers or not _are_linear(kind, config, layers):
        return None
    taken = {f"{layer}.{part}" for layer in layers for part in (*parts, "bias")}
    plain = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in ((name, _read(entry)) for name, entry in entries.items() if name not in taken)
    }
    model: nn.Module = _hollow(path, kind, config, layers, plain, dtype)
    for layer in layers:
        own = {p: _read(entries[f"{layer}.{p}"]) for p in (*parts, "bias") if f"{layer}.{p}" in entries}
        module = _packed(path, layer, own, settings, dtype)
        if module is None:
            return None
        model.set_submodule(layer, module)
    return model


def _packed(
    path: Path, layer: str, own: dict[str, Tensor], settings: Mapping[str, Any], dtype: torch.dtype
) -> nn.Module | None:
    bias = own.pop("bias", None)
    try:
        return packed_linear(stored_layer(own, settings), bias, dtype)
    except (KeyError, RuntimeError, IndexError, ValueError) as error:
        method = settings["quant_method"]
        raise RuntimeFailure(f"{path}: layer {layer} is no complete {method} layer ({error})") from error


def _kind(path: Path) -> tuple[Any, type[Any]]:
    """The folder's config without what it says of quantization, and the class of its model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(path), **_FIXED)
    del config.quantization_config
    with torch.device("meta"):
        return config, type(AutoModelForCausalLM.from_config(config))


def _are_linear(kind: type[Any], config: Any, layers: Sequence[str]) -> bool:
    """Whether each layer has its place in the model's tree under its own name, as a linear layer."""
    with torch.device("meta"):
        known = {name for name, module in kind(config).named_modules() if type(module) is nn.Linear}
    return known.issuperset(layers)


def _hollow(
    path: Path, kind: type[Any], config: Any, layers: Sequence[str], plain: Mapping[str, Tensor], dtype: torch.dtype
) -> Any:
    """The model with ``plain`` tensors, and nothing where ``layers`` are."""

    class Hollow(kind):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for layer in layers:
                self.set_submodule(layer, nn.Identity())

    model, told = Hollow.from_pretrained(
        None, config=config, state_dict=dict(plain), dtype=dtype, output_loading_info=True
    )
    if lacking := sorted(told["missing_keys"]):
        raise RuntimeFailure(f"{path} lacks {lacking[0]} and {len(lacking) - 1} more of its tensors; download it again")
    model.__class__ = kind
    return model.eval()


def _read(entry: TensorEntry) -> Tensor:
    with safe_open(entry.file, framework="pt") as stream:
        tensor: Tensor = stream.get_tensor(entry.name)
        return tensor
