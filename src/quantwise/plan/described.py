"""How a quantized folder stores its weights, as far as its config.json tells it where the files themselves are away."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from quantwise.core.artifact import FormatName
from quantwise.core.scheme import INTEGER_BITS, Scheme, parse_scheme
from quantwise.models.config import FORMATS
from quantwise.models.decoder import Decoder
from quantwise.models.stored_scheme import stored_scheme
from quantwise.models.tensor_table import TensorTable
from quantwise.plan.layer_bytes import LayerBytes, stored_layer_bytes
from quantwise.plan.loaded_weights import layer_held
from quantwise.plan.stored_tensors import Bytes
from quantwise.plan.terms import Device
from quantwise.plan.weight_table import folder_table


def quantization_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``quantization_config`` of a config.json; empty where it has none."""
    settings = config.get("quantization_config")
    if settings is None:
        return {}
    return dict(settings) if isinstance(settings, dict) else {"quant_method": settings}


def stored_form(settings: Mapping[str, Any]) -> FormatName | None:
    """The format of a folder with these settings; None for one that ``core.loads`` does not know."""
    return FORMATS.get(str(settings.get("quant_method")).lower()) if settings else "safetensors"


def described_bytes(
    decoder: Decoder, settings: Mapping[str, Any]
) -> tuple[Bytes | None, Mapping[Device, Bytes | None]]:
    """Bytes of each tensor as stored, and as Transformers holds it by device; of all experts by the first one's name.

    None where the settings name several schemes, or none that is known: one of GPTQ, AWQ, compressed-tensors with one
    group of layers, or bitsandbytes in NF4 or eight bits.
    """
    try:
        scheme, left = _scheme(settings), _left(settings)
    except (AttributeError, TypeError, re.error):
        # A config of another shape than its tool writes tells nothing.
        scheme = None
    if scheme is None or scheme.bits not in INTEGER_BITS:
        return None, {"cpu": None, "gpu": None}
    on = {device: _bytes(decoder, scheme, layer_held(decoder, scheme, device), left) for device in _DEVICES}
    return _bytes(decoder, scheme, stored_layer_bytes, left), on


_DEVICES: tuple[Device, ...] = ("cpu", "gpu")


def _bytes(decoder: Decoder, scheme: Scheme, layer: LayerBytes, left: Callable[[str], bool]) -> Bytes:
    rows = TensorTable.of(decoder.tensors).rows
    numbers = {row.name: row.numbers for row in rows}
    return {t.name: 2 * numbers[t.name] if left(t.name) else t.bytes for t in folder_table(rows, scheme, layer)}


def _scheme(settings: Mapping[str, Any]) -> Scheme | None:
    if settings.get("quant_method") != "bitsandbytes":
        return stored_scheme(settings)
    if settings.get("load_in_8bit"):
        return parse_scheme("llm-int8")
    if settings.get("bnb_4bit_quant_type") != "nf4":
        return None
    return parse_scheme("nf4-dq" if settings.get("bnb_4bit_use_double_quant") else "nf4")


def _left(settings: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a tensor is of a layer that stays in 16 bit. Each tool has a key of its own; a pattern begins ``re:``,
    and of GPTQModel ``-:``.
    """
    keys = ("ignore", "modules_to_not_convert", "llm_int8_skip_modules")
    lists = [settings.get(key) for key in keys]
    named = {str(name) for names in lists if isinstance(names, list) for name in names}
    dynamic = settings.get("dynamic")
    named |= {f"re:{name[2:]}" for name in (dynamic if isinstance(dynamic, dict) else ()) if name.startswith("-:")}
    patterns = [re.compile(name[3:]) for name in named if name.startswith("re:")]
    parts = {f".{name}." for name in named if not name.startswith("re:")}

    def left(name: str) -> bool:
        module = name.rpartition(".")[0]
        return any(p.match(module) for p in patterns) or any(part in f".{name}." for part in parts)

    return left


def one_scheme_each(settings: Mapping[str, Any]) -> list[Scheme]:
    """The schemes of a folder with these settings, as far as they say; of compressed-tensors one for each group."""
    groups = settings.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        found = [stored_scheme(settings)]
    else:
        found = [stored_scheme({**settings, "config_groups": {name: group}}) for name, group in groups.items()]
    return [replace(scheme, name="stored") for scheme in found if scheme is not None]
