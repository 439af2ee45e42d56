"""The size of a GGUF file that a recipe will make of a folder, header and vocabulary included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantwise.core.errors import InputError
from quantwise.core.recipe import Recipe
from quantwise.formats.safetensors_header import read_folder
from quantwise.models.decoder import Decoder
from quantwise.plan.model_source import read_config_file
from quantwise.plan.weight_table import weight_table


@dataclass(frozen=True, slots=True)
class GgufBytes:
    """Bytes: ``data`` of all tensors without padding, ``total`` of the file; None where its header is unknown."""

    data: int
    total: int | None
    source: str


def gguf_bytes(decoder: Decoder, recipe: Recipe, folder: Path | None = None, *, rope_factors: int = 0) -> GgufBytes:
    """The file that ``recipe`` makes of ``decoder``, which lies in ``folder``: without its tokenizer the length of the
    header is unknown.

    Raises InputError where the recipe makes no GGUF file, or llama.cpp does not compute or tokenize as this model does.
    """
    if recipe.scheme.format != "gguf":
        raise InputError(f"{recipe.name} makes no GGUF file; name a type such as q8_0 or q4_k_m")
    if recipe.budget is not None:
        raise InputError(f"{recipe.name} chooses types by measuring; its budget is the size of its file")
    data = sum(tensor.bytes for tensor in weight_table(decoder, recipe.name, rope_factors=rope_factors))
    if folder is None or not (folder / "tokenizer.json").is_file():
        return GgufBytes(data, None, "header unknown: it holds the vocabulary, which a folder's tokenizer.json has")
    # The writer of headers and the tokenizer take as long to load as all else here.
    from quantwise.formats.gguf.file_size import gguf_file_bytes

    config, entries = read_config_file(folder / "config.json"), read_folder(folder)
    total = gguf_file_bytes(folder, entries, config, recipe.scheme.name, importance=recipe.reads_data)
    return GgufBytes(data, total, "header written and measured; tensors padded to 32 bytes")
