"""A decoder's tensors by the names of a GGUF file, and what their presence tells of llama.cpp's graph."""

from __future__ import annotations

from collections.abc import Mapping

from quantwise.formats.gguf.architectures import USUAL, architecture_of_class
from quantwise.formats.gguf.layout import targets
from quantwise.models.decoder import Decoder

Shapes = Mapping[str, tuple[int, ...]]


def gguf_shapes(decoder: Decoder) -> Shapes:
    """Shapes (slowest dimension first) by GGUF name; of a folder's decoder as llama.cpp's converter would name them.

    What has no name there keeps its own.
    """
    if "token_embd.weight" in decoder.tensors:
        return decoder.tensors
    known = architecture_of_class(decoder.architecture) or USUAL
    return {t.name: t.shape for t in targets(decoder.tensors, known, tied=decoder.tied, strict=False)}


def gguf_name(decoder: Decoder) -> str:
    """llama.cpp's name of the architecture."""
    known = architecture_of_class(decoder.architecture)
    return known.name if known else decoder.architecture


class Block:
    """The tensors of one layer by their part, such as ``attn_q``."""

    def __init__(self, shapes: Shapes, layer: int) -> None:
        self._shapes, self._before = shapes, f"blk.{layer}."

    def __contains__(self, part: str) -> bool:
        return f"{self._before}{part}.weight" in self._shapes

    def biased(self, part: str) -> bool:
        """Whether it has a bias."""
        return f"{self._before}{part}.bias" in self._shapes

    def shape(self, part: str) -> tuple[int, ...]:
        """Its shape, slowest dimension first."""
        return self._shapes[f"{self._before}{part}.weight"]

    def rows(self, part: str) -> int:
        """How wide its output is."""
        return self.shape(part)[-2]

    def kinds(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """All parts with their shapes: layers with equal ones compute alike."""
        found = self._shapes.items()
        return frozenset((n.removeprefix(self._before), s) for n, s in found if n.startswith(self._before))
