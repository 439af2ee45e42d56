"""Where an artifact's bytes lie: embeddings, attention, feed-forward, norms, output; by the names of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from quantwise.build.architecture import TensorClass
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.safetensors_header import read_folder

CLASSES: tuple[TensorClass, ...] = ("embeddings", "attention", "feed-forward", "norms", "output")
_NORM = re.compile(r"norm|(^|[._])ln_")
_ATTENTION = re.compile(r"attn|attention")
_OUTPUT = re.compile(r"^(lm_head|embed_out|output)\b")
_IN_BLOCK = re.compile(r"(^|\.)\d+\.")


def bytes_by_class(place: Path) -> dict[str, int]:
    """Bytes of tensor data in a .gguf file or a folder of safetensors, scales and zero points with their matrix.

    Raises InputError where it cannot be read.
    """
    if place.is_file():
        return summed((tensor.name, tensor.bytes) for tensor in read_gguf_header(place).tensors)
    return summed((entry.name, entry.bytes) for entry in read_folder(place).values())


def summed(tensors: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The bytes of named tensors by their class, every class named."""
    found: dict[str, int] = dict.fromkeys(CLASSES, 0)
    for name, size in tensors:
        found[tensor_class(name)] += size
    return found


def tensor_class(name: str) -> TensorClass:
    """The class of a tensor as Hugging Face folders and GGUF files call it. Routers count as feed-forward."""
    if _NORM.search(name):
        return "norms"
    if _IN_BLOCK.search(name):
        return "attention" if _ATTENTION.search(name) else "feed-forward"
    return "output" if _OUTPUT.search(name) else "embeddings"
