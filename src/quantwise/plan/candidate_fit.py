"""The fit of one candidate at a site: what ``quantwise plan`` says of it, against the memory that is there.

Bytes are those of ``plan.deployment_memory``. Where a term is an interval its upper end is taken, so that a plan that
says "may fit: 7 to 9 GiB of 8" is ruled out here: a run that is out of memory halfway costs more than one not begun.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.core.evidence import Fit
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.safetensors_header import read_folder
from quantwise.models.config import quantization_settings, read_config
from quantwise.plan.deployment import Constants, Deployment, own_constants
from quantwise.plan.deployment_memory import bound_memory, held, loaded_bytes, unknown_compute, weights_of
from quantwise.plan.fit import fit
from quantwise.plan.layer_bytes import held_folder_bytes, packs_folder
from quantwise.plan.memory import available_bytes
from quantwise.plan.model import Model, find_model, model_of_file
from quantwise.plan.model_source import is_known_type, read_config_file
from quantwise.plan.serving_settings import RUNTIMES
from quantwise.plan.vllm import VllmSettings
from quantwise.plan.weights import check_shapes, recipe_bytes, sixteen_bit_bytes
from quantwise.plan.what_if import cache_of
from quantwise.scenarios.site import Site

THIS_MACHINE = Site()


@dataclass(frozen=True, slots=True)
class Workload:
    """How it will be used: tokens per request, requests at a time, where. A site without memory is this machine."""

    context: int
    concurrency: int = 1
    site: Site = THIS_MACHINE

    @property
    def limit_bytes(self) -> int:
        """What a model may take of the site, or what this machine has left now."""
        limit = self.site.limit_bytes
        return available_bytes() if limit is None else limit


class Fits:
    """The fits of candidates, of which recipes are applied to the folder ``model``; each model is read once."""

    def __init__(self, model: Path | None) -> None:
        self._model = model
        self._constants: Constants | None = None
        self._models: dict[str, Model | None] = {}

    def of(self, candidate: Candidate, workload: Workload) -> Fit:
        """Fit of a recipe, of a folder or ``.gguf`` file that was brought, or of a server, whose memory is unknown.

        Raises InputError where a folder or file is missing or damaged, a recipe is unknown or has no model, or the
        cache scheme does not suit the model. Of a model whose layers nobody here knows cache and overhead are unknown.
        """
        if candidate.source.startswith(("http://", "https://")):
            return fit(candidate.name, None, None, None, None)
        path = Path(candidate.source)
        is_file = path.suffix == ".gguf"
        made = not is_file and not path.is_dir()
        if made and self._model is None:
            raise InputError(f"recipe {candidate.source!r} has no model to be applied to; name a MODEL folder")
        if made:
            parse_recipe(candidate.source)
        place = self._model if made and self._model is not None else path
        model = self._read(place, is_file=is_file)
        runtime = next((name for name in RUNTIMES if name == candidate.runtime), None)
        if model is None or runtime is None:
            return fit(candidate.name, _least(candidate, place, made), None, None, workload.limit_bytes)
        asked = Deployment(
            model=model,
            site=workload.site,
            scheme=candidate.source if made else "stored" if is_file or quantization_settings(path) else "16bit",
            runtime=runtime,
            cache=candidate.cache,
            context=workload.context,
            concurrency=workload.concurrency,
        )
        return self._fit(candidate.name, asked, workload.limit_bytes)

    def _fit(self, name: str, asked: Deployment, limit: int) -> Fit:
        if self._constants is None:
            self._constants = own_constants()
        _check_cache(asked)
        try:
            found = bound_memory(asked, held(asked, weights_of(asked), self._constants).terms)
        except InputError:
            # The graph of this architecture, or its pages, are not known; its files may be all the same.
            weights = None
            with contextlib.suppress(InputError):
                weights = loaded_bytes(asked, weights_of(asked))
            return fit(name, weights, None, None, limit)
        overhead = None if unknown_compute(asked) else found.compute[1] + found.overhead[1]
        return fit(name, found.weights, found.cache, overhead, limit)

    def _read(self, place: Path, *, is_file: bool) -> Model | None:
        """The model there; None where its layers are not known. Raises InputError where files are missing."""
        key = str(place)
        if key not in self._models:
            self._models[key] = _file(place) if is_file else _folder(place)
        return self._models[key]


def plan_candidate(candidate: Candidate, model: Path | None, workload: Workload) -> Fit:
    """The fit of one candidate alone; arguments and errors as of ``Fits``."""
    return Fits(model).of(candidate, workload)


def _file(path: Path) -> Model | None:
    header = read_gguf_header(path)
    try:
        return model_of_file(header)
    except InputError:
        return None


def _folder(folder: Path) -> Model | None:
    shape = read_config(folder)
    try:
        found = find_model(str(folder))
    except InputError:
        if is_known_type(read_config_file(folder / "config.json")):
            raise
        check_shapes(_shapes(folder), shape, folder)
        return None
    check_shapes(found.decoder.tensors if found.decoder.stored else _shapes(folder), shape, folder)
    return found


def _shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in read_folder(folder).items()}


def _least(candidate: Candidate, place: Path, made: bool) -> int | None:
    """The weights alone, of what else is unknown."""
    if place.suffix == ".gguf":
        return sum(tensor.bytes for tensor in read_gguf_header(place).tensors)
    entries, settings = read_folder(place), quantization_settings(place)
    if made:
        recipe = parse_recipe(candidate.source)
        return recipe_bytes(entries, recipe, read_config(place))
    if not settings:
        return sixteen_bit_bytes(entries)
    return held_folder_bytes(entries, settings, packed=packs_folder(entries, settings))


def _check_cache(asked: Deployment) -> None:
    """Raise InputError where the cache type is none of the runtime's, or does not suit the heads."""
    if asked.runtime == "vllm":
        VllmSettings(asked.context, asked.cache)
    else:
        cache_of(asked.runtime, asked.computed, asked.demand)
