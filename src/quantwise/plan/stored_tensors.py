"""The tensors of a folder as the model knows them, however many tensors of the file stand for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_header import TensorEntry

Shapes = Mapping[str, tuple[int, ...]]


def logical_tensors(
    entries: Mapping[str, TensorEntry], config: Mapping[str, Any], due: Shapes
) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes and bytes of a folder's tensors by name; ``due`` are the shapes that its config.json describes.

    Where the folder is quantized, codes, scales, zero points and what else a format keeps of a matrix count as that
    matrix, of the shape that is due. Raises InputError where a quantized folder's matrices are not known.
    """
    if "quantization_config" not in config:
        return {n: e.shape for n, e in entries.items()}, {n: e.bytes for n, e in entries.items()}
    if not due:
        kind = config.get("model_type")
        raise InputError(
            f"the folder is quantized and its model type {kind!r:.40} is not known, so that its weights cannot be "
            "counted; give the folder in 16 bit, or a .gguf file"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    stored: dict[str, int] = {}
    for name, entry in entries.items():
        owner = _owner(name, due) or name
        shapes[owner] = due.get(owner, entry.shape)
        stored[owner] = stored.get(owner, 0) + entry.bytes
    return shapes, stored


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
