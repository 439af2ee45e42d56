"""The tensors of a folder as the model knows them, however many tensors of the file stand for one: shapes, and bytes.

Transformers holds every number of 16 bit or more in 16, and bitsandbytes as it is. On a processor our runtime packs
compressed-tensors, GPTQ and AWQ where torch has kernels for them (``core.loads.expands``) and expands the others; on a
GPU compressed-tensors is expanded at the first call (compressed_tensors, model_compressor.py: a hook that goes once it
has run), and GPTQ and AWQ are multiplied as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.plan.layer_bytes import held_folder_bytes, packs_folder
from quantwise.plan.terms import Device
from quantwise.plan.weights import sixteen_bit_bytes

Shapes = Mapping[str, tuple[int, ...]]
Bytes = Mapping[str, int]
WITH_KERNELS = ("gptq", "awq")


@dataclass(frozen=True, slots=True)
class FolderTensors:
    """By name: ``stored`` bytes, and those ``loaded`` by Transformers on a device (None: config.json does not say)."""

    shapes: Shapes
    stored: Bytes
    loaded: Mapping[Device, Bytes | None]


def logical_tensors(entries: Mapping[str, TensorEntry], config: Mapping[str, Any], due: Shapes) -> FolderTensors:
    """A folder's tensors; ``due`` are the shapes that its config.json describes.

    Where the folder is quantized, codes, scales, zero points and what else a format keeps of a matrix count as that
    matrix, of the shape that is due. Raises InputError where a quantized folder's matrices are not known.
    """
    if config.get("quantization_config") is None:
        loaded = {name: sixteen_bit_bytes({name: entry}) for name, entry in entries.items()}
        stored = {name: entry.bytes for name, entry in entries.items()}
        return FolderTensors({n: e.shape for n, e in entries.items()}, stored, {"cpu": loaded, "gpu": loaded})
    if not due:
        kind = config.get("model_type")
        raise InputError(
            f"the folder is quantized and its model type {kind!r:.40} is not known, so that its weights cannot be "
            "counted; give the folder in 16 bit, or a .gguf file"
        )
    owned: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in entries.items():
        owned.setdefault(_owner(name, due) or name, {})[name] = entry
    shapes = {owner: due.get(owner) or next(reversed(parts.values())).shape for owner, parts in owned.items()}
    stored = {owner: sum(entry.bytes for entry in parts.values()) for owner, parts in owned.items()}
    settings = config["quantization_config"]
    if not isinstance(settings, dict):
        return FolderTensors(shapes, stored, {"cpu": None, "gpu": None})
    on_cpu = _held(owned, settings, packed=packs_folder(entries, settings))
    kernels = settings.get("quant_method") in WITH_KERNELS
    return FolderTensors(
        shapes, stored, {"cpu": on_cpu, "gpu": stored if kernels else _held(owned, settings, packed=False)}
    )


def _held(owned: Mapping[str, Mapping[str, TensorEntry]], settings: Mapping[str, Any], *, packed: bool) -> Bytes | None:
    found = {owner: held_folder_bytes(parts, settings, packed=packed) for owner, parts in owned.items()}
    known = {owner: amount for owner, amount in found.items() if amount is not None}
    return known if len(known) == len(found) else None


def _owner(name: str, due: Shapes) -> str | None:
    """The tensor that ``name`` is a part of: ``a.qweight`` and ``a.weight_scale`` of ``a.weight``, and so on."""
    plain = name.removeprefix("language_model.").replace("model.language_model.", "model.", 1)
    if plain in due:
        return plain
    for at in range(len(plain) - 1, 0, -1):
        if plain[at] in "._":
            for owner in (plain[:at], f"{plain[:at]}.weight"):
                if owner in due:
                    return owner
    return None
