"""The fit of one candidate: its weights, cache and overhead at a site, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.evidence import Fit
from quantwise.core.recipe import Recipe, parse_recipe
from quantwise.formats.gguf.header import GgufHeader, read_gguf_header
from quantwise.formats.safetensors_header import TensorEntry, read_folder
from quantwise.models.config import ModelShape, quantization_settings, read_config
from quantwise.plan.fit import fit
from quantwise.plan.kv_cache import (
    CacheShape,
    cache_bytes,
    cache_shape,
    cache_shape_of_gguf,
    gguf_number,
    llamacpp_cache_bytes,
)
from quantwise.plan.layer_bytes import held_folder_bytes
from quantwise.plan.memory import available_bytes
from quantwise.plan.overhead import overhead_bytes
from quantwise.plan.weights import check_shapes, gguf_data_bytes, loaded_bytes, recipe_bytes, sixteen_bit_bytes


@dataclass(frozen=True, slots=True)
class Workload:
    """How it will be used: tokens per request, requests at a time, bytes that the site has (None: this machine)."""

    context: int
    concurrency: int = 1
    memory_bytes: int | None = None

    @property
    def limit_bytes(self) -> int:
        """The site's memory, or what this machine has left now."""
        return available_bytes() if self.memory_bytes is None else self.memory_bytes


def plan_candidate(candidate: Candidate, model: Path | None, workload: Workload) -> Fit:
    """Fit of a candidate: a recipe applied to the folder ``model``, a folder or ``.gguf`` of its own, or a server.

    A server's memory is unknown to us. Raises InputError where a folder or file is missing or damaged, a recipe is
    unknown or has no model, or the cache scheme does not suit the model.
    """
    if candidate.source.startswith(("http://", "https://")):
        return fit(candidate.name, None, None, None, None)
    path = Path(candidate.source)
    if path.suffix == ".gguf":
        return _brought_gguf(candidate, read_gguf_header(path), workload)
    if path.is_dir():
        return _folder(candidate, path, workload, built=False)
    if model is None:
        raise InputError(f"recipe {candidate.source!r} has no model to be applied to; name a MODEL folder")
    return _folder(candidate, model, workload, built=True)


def _folder(candidate: Candidate, folder: Path, workload: Workload, *, built: bool) -> Fit:
    shape, entries = read_config(folder), read_folder(folder)
    check_shapes(entries, shape, folder)
    recipe = parse_recipe(candidate.source) if built else None
    weights = (
        _brought_bytes(candidate, folder, entries) if recipe is None else _made_bytes(recipe, candidate, entries, shape)
    )
    overhead = _overhead(candidate, (shape.hidden, shape.intermediate, shape.vocab), workload)
    return fit(candidate.name, weights, _cache(candidate, cache_shape(shape), workload), overhead, workload.limit_bytes)


def _brought_bytes(candidate: Candidate, folder: Path, entries: Mapping[str, TensorEntry]) -> int | None:
    settings = quantization_settings(folder)
    if not settings:
        return sixteen_bit_bytes(entries)
    if candidate.runtime == "transformers":
        return held_folder_bytes(entries, settings)
    return sum(entry.bytes for entry in entries.values())


def _made_bytes(recipe: Recipe, candidate: Candidate, entries: Mapping[str, TensorEntry], shape: ModelShape) -> int:
    if candidate.runtime == "transformers":
        return loaded_bytes(entries, recipe.scheme)
    # "16bit" in llama.cpp is a file in f16.
    in_gguf = candidate.runtime == "llamacpp" and recipe.scheme.name == "16bit"
    return recipe_bytes(entries, parse_recipe("f16") if in_gguf else recipe, shape)


def _brought_gguf(candidate: Candidate, header: GgufHeader, workload: Workload) -> Fit:
    shape = cache_shape_of_gguf(header)
    hidden, wide = gguf_number(header, "embedding_length"), gguf_number(header, "feed_forward_length")
    vocab = next((t.shape[0] for t in header.tensors if t.name == "token_embd.weight"), None)
    known = vocab is not None and hidden is not None and wide is not None
    overhead = _overhead(candidate, (hidden or 0, wide or 0, vocab or 0), workload) if known else None
    cache = _cache(candidate, shape, workload) if shape else None
    return fit(candidate.name, gguf_data_bytes(header), cache, overhead, workload.limit_bytes)


def _overhead(candidate: Candidate, sizes: tuple[int, int, int], workload: Workload) -> int | None:
    hidden, intermediate, vocab = sizes
    return overhead_bytes(
        candidate.runtime,
        hidden=hidden,
        intermediate=intermediate,
        vocab=vocab,
        context=workload.context,
        concurrency=workload.concurrency,
    )


def _cache(candidate: Candidate, shape: CacheShape, workload: Workload) -> int:
    formula = llamacpp_cache_bytes if candidate.runtime == "llamacpp" else cache_bytes
    return formula(shape, workload.context, workload.concurrency, candidate.cache)


def artifact_bytes(recipe: str, model: Path) -> int:
    """Bytes of tensor data that a recipe will put on disk for the folder ``model``. Raises InputError as above."""
    shape, entries = read_config(model), read_folder(model)
    return recipe_bytes(entries, parse_recipe(recipe), shape)
