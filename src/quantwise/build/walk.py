"""The one walk over a model: statistics once, then every recipe, each as an artifact on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from quantwise.build.artifact_folder import GGUF_NAME, Draft, Ingredients, draft, find
from quantwise.build.calibration import Calibration, calibrate
from quantwise.build.statistics import decoder_blocks, linear_layers, walk_blocks
from quantwise.core.artifact import Artifact, Degradation
from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.core.recipe import Recipe
from quantwise.formats.compressed_tensors import IntegerLayer, write_compressed
from quantwise.formats.content_hash import content_files, content_hash
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder, write_sixteen_bit
from quantwise.formats.safetensors_header import read_folder
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.integer import integer_grid
from quantwise.plan.fit import size
from quantwise.plan.memory import available_bytes
from quantwise.quantize import QUANTIZERS
from quantwise.quantize.quantizer import Quantizer

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class _Job:
    """One integer recipe on its way through the model. ``layers`` by module name; ``kept`` are those left in 16 bit."""

    ingredients: Ingredients
    quantizer: Quantizer
    seconds: float = 0.0
    layers: dict[str, IntegerLayer] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    degradations: list[Degradation] = field(default_factory=list)


def build(
    model_dir: Path,
    recipes: Sequence[Recipe],
    calibration: Sequence[str],
    out_dir: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    seed: int = 0,
) -> list[Artifact]:
    """Make an artifact for each recipe, in their order; a complete one in ``out_dir`` is used again.

    ``calibration`` are texts, of which a seeded selection is read, and only where a recipe needs data. The model in
    ``model_dir`` must be 16 bit or more. ``progress`` is told (what, how many done, how many in all). Raises InputError
    for a model, recipe or calibration set that cannot be used, EnvironmentFailure where the disk refuses.
    """
    report = progress or (lambda what, done, total: None)
    source = ModelFolder(model_dir)
    needs_data = {r for r in recipes if r.quantizer and QUANTIZERS[r.quantizer]().needs}
    longest = int(source.config.get("max_position_embeddings", 2048))
    data = calibrate(model_dir, calibration, longest, seed) if needs_data else None
    report("hash the model", 0, 1)
    model_hash = content_hash(model_dir)
    wanted = {r: Ingredients(r, model_hash, data.hash if data and r in needs_data else None) for r in recipes}
    done = {r: found for r, made_of in wanted.items() if (found := _existing(source, out_dir, made_of))}
    missing = [made_of for r, made_of in wanted.items() if r not in done]
    direct = [made_of for made_of in missing if made_of.recipe.scheme.kind != "integer"]
    for i, made_of in enumerate(direct):
        report(f"write {made_of.recipe.name}", i, len(direct))
        done[made_of.recipe] = _write_direct(source, out_dir, made_of)
    jobs = [_Job(m, QUANTIZERS[m.recipe.quantizer or ""]()) for m in missing if m.recipe.scheme.kind == "integer"]
    if jobs:
        _quantize(source, jobs, data if any(job.quantizer.needs for job in jobs) else None, report)
    for i, job in enumerate(jobs):
        report(f"write {job.ingredients.recipe.name}", i, len(jobs))
        done[job.ingredients.recipe] = _write_integer(source, out_dir, job)
    return [done[r] for r in recipes]


def _existing(source: ModelFolder, out: Path, ingredients: Ingredients) -> Artifact | None:
    if ingredients.recipe.name == "16bit" and source.is_sixteen_bit:
        # The model itself is its 16-bit artifact; nothing is copied.
        held = sum(file.stat().st_size for file in content_files(source.path))
        return Artifact(str(source.path), "safetensors", ingredients.model_hash, held, "16bit", 16.0, 0.0)
    return find(out, ingredients)


def _write_direct(source: ModelFolder, out: Path, ingredients: Ingredients) -> Artifact:
    """Recipes that see one weight at a time and no data: 16 bit, and rounding to ggml's blocks."""
    start = time.perf_counter()
    scheme = ingredients.recipe.scheme
    with draft(out, ingredients) as made:
        degradations: tuple[Degradation, ...] = ()
        if scheme.format == "gguf":
            for name in source:
                _require_finite(name, source[name])
            path = made.folder / GGUF_NAME
            degradations = write_gguf(path, source, scheme.name, lambda ggml, values: GgmlBlocks(ggml).encode(values))
            return made.finish(read_gguf_header(path).bits_per_weight, time.perf_counter() - start, degradations)
        write_sixteen_bit(made.folder, source)
        degradations = (Degradation("model", f"stored in more than 16 bits; rounded to {source.sixteen_bit}"),)
        return _finish_folder(made, source, time.perf_counter() - start, degradations)


def _quantize(source: ModelFolder, jobs: Sequence[_Job], data: Calibration | None, report: Progress) -> None:
    """Fill every job, block after block. The model is run only where a job needs statistics."""
    model = _load(source, with_weights=data is not None)
    prefix, blocks = decoder_blocks(model)
    statistics = walk_blocks(model, list(data.batches())) if data else None
    for index, block in enumerate(blocks):
        report("quantize blocks", index, len(blocks))
        hessians = next(statistics).hessians if statistics else {}
        for name in linear_layers(prefix, index, block):
            if f"{name}.weight" not in source:
                raise InputError(f"{source.path} has no tensor {name}.weight; its config describes another model")
            weight = source[f"{name}.weight"].to(source.sixteen_bit).float()
            _require_finite(f"{name}.weight", weight)
            for job in jobs:
                _quantize_layer(job, name, weight, hessians.get(name), source.sixteen_bit)
    report("quantize blocks", len(blocks), len(blocks))


def _quantize_layer(job: _Job, name: str, weight: Tensor, hessian: Tensor | None, dtype: torch.dtype) -> None:
    scheme = job.ingredients.recipe.scheme
    if not scheme.divides(weight.shape[1]):
        what = f"rows of {weight.shape[1]} are no multiple of {scheme.group}: left in 16 bit"
        job.degradations.append(Degradation(name, what))
        job.kept.append(name)
        return
    if "hessian" in job.quantizer.needs and hessian is None:
        raise InputError(f"calibration never reached {name}; give more texts, or use rtn:{scheme.name}")
    start = time.perf_counter()
    seen = {} if hessian is None else {"hessian": hessian}
    made = job.quantizer(weight, integer_grid(scheme, dtype), seen)
    job.seconds += time.perf_counter() - start
    job.layers[name] = IntegerLayer(made.codes, made.scale, made.zero)
    job.degradations += [replace(d, where=name) for d in made.degradations]


def _write_integer(source: ModelFolder, out: Path, job: _Job) -> Artifact:
    start = time.perf_counter()
    if not job.layers:
        raise InputError(
            f"no row of {source.path} splits into groups of {job.ingredients.recipe.scheme.group}; "
            f"{job.ingredients.recipe.name} would change nothing: use a channel scheme"
        )
    with draft(out, job.ingredients) as made:
        write_compressed(made.folder, source, job.layers, job.ingredients.recipe.scheme, ["lm_head", *job.kept])
        return _finish_folder(made, source, job.seconds + time.perf_counter() - start, tuple(job.degradations))


def _finish_folder(made: Draft, source: ModelFolder, seconds: float, found: tuple[Degradation, ...]) -> Artifact:
    weights = sum(torch.Size(entry.shape).numel() for entry in source.entries.values())
    stored = sum(entry.bytes for entry in read_folder(made.folder).values())
    return made.finish(8 * stored / weights, seconds, found)


def _load(source: ModelFolder, with_weights: bool) -> nn.Module:
    """The 16-bit model computing in float32; without weights only its shape, on torch's meta device."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    # Its bars would cut through our own progress.
    logging.disable_progress_bar()
    try:
        if not with_weights:
            with torch.device("meta"):
                shape: nn.Module = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source.path))
                return shape.eval()
        _require_room(source)
        # Rounded to 16 bit first: the statistics are those of the model that the artifacts are compared with.
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            source.path, dtype=source.sixteen_bit, local_files_only=True
        )
        return model.float().eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"Transformers cannot load {source.path}: {str(error).splitlines()[0]}") from error


def _require_room(source: ModelFolder) -> None:
    """Calibration computes in float32, with the whole model loaded."""
    needed, free = 4 * sum(torch.Size(entry.shape).numel() for entry in source.entries.values()), available_bytes()
    if needed > free:
        raise EnvironmentFailure(
            f"calibrating on {source.path} needs {size(needed)} of the {size(free)} that are free here; "
            "use recipes of rtn, or build where there is more memory"
        )


def _require_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise InputError(f"tensor {name!r} holds NaN or infinite values; repair the model before it is quantized")
