"""The scheme of weights that somebody else quantized, as far as a folder's ``quantization_config`` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from quantwise.core.artifact import FormatName
from quantwise.core.loads import expands
from quantwise.core.scheme import Activations, Granularity, Scheme

# What compressed-tensors calls its numbers, how inputs are scaled, and what we call both.
_INPUTS: Mapping[tuple[str, str], Activations] = {
    ("int", "token"): "int8-token",
    ("int", "tensor"): "int8-tensor",
    ("float", "token"): "fp8-token",
    ("float", "tensor"): "fp8-tensor",
}


def stored_scheme(settings: Mapping[str, Any]) -> Scheme | None:
    """The scheme of a GPTQ, AWQ or compressed-tensors folder; None where its settings do not say, or say several."""
    method = str(settings.get("quant_method")).lower()
    if method in ("gptq", "awq"):
        size, bits = settings.get("group_size"), settings.get("bits")
        symmetric = bool(settings.get("sym", True)) if method == "gptq" else not settings.get("zero_point", True)
        return _integer(cast(FormatName, method), bits, size, symmetric, None)
    groups = settings.get("config_groups")
    if method != "compressed-tensors" or not isinstance(groups, Mapping) or len(groups) != 1:
        return None
    (group,) = groups.values()
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    rounded = _INPUTS.get((str(inputs.get("type")), str(inputs.get("strategy"))))
    if inputs and rounded is None:
        return None
    if weights.get("type") == "float" and weights.get("num_bits") == 8:
        return Scheme("stored", "float8", 8, "channel", "compressed-tensors", activations=rounded)
    size = None if weights.get("strategy") == "tensor" else weights.get("group_size") or -1
    symmetric = bool(weights.get("symmetric", True))
    return _integer("compressed-tensors", weights.get("num_bits"), size, symmetric, rounded)


def expanded_because(settings: Mapping[str, Any], runtime: str = "transformers") -> str | None:
    """Why a runtime expands the weights of a folder with this ``quantization_config``, or None where it does not."""
    if not settings or settings.get("quant_method") == "bitsandbytes":
        return None
    groups = settings.get("config_groups")
    each = {"": None} if not isinstance(groups, Mapping) or not groups else groups
    for name, group in each.items():
        scheme = stored_scheme(settings if group is None else {**settings, "config_groups": {name: group}})
        why = "its config does not say how it is quantized" if scheme is None else expands(runtime, scheme)
        if why is not None:
            return why
    return None


def _integer(
    form: FormatName, bits: object, size: object, symmetric: bool, inputs: Activations | None
) -> Scheme | None:
    """``size`` is that of a group, -1 for a whole row, None for a whole matrix."""
    if not isinstance(bits, int) or not isinstance(size, int | None):
        return None
    shape: Granularity = "tensor" if size is None else "channel" if size < 1 else "group"
    group = size if shape == "group" else None
    return Scheme("stored", "integer", bits, shape, form, group=group, symmetric=symmetric, activations=inputs)
