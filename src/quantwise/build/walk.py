"""The one walk over a model: block after block, statistics once, then every recipe, each as an artifact on disk.

At any time one decoder block is in memory. What is finished of a block goes to disk at once (``unfinished``), so that
memory grows neither with depth nor with recipes, and the same command goes on where a killed one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quantwise.build.artifact_folder import GGUF_NAME, Draft, Ingredients, draft, find, no_disk
from quantwise.build.beforehand import announce
from quantwise.build.calibration import Batch, Calibration, Sample, calibrate
from quantwise.build.distil import Training
from quantwise.build.distil_pass import distil_job
from quantwise.build.give_back import give_back, settle
from quantwise.build.job import Job
from quantwise.build.preflight import check_names
from quantwise.build.skeleton import Skeleton
from quantwise.build.storage import Storage, storage_for
from quantwise.build.stream import Stream
from quantwise.build.tensor_bytes import bytes_by_class
from quantwise.build.unfinished import Unfinished
from quantwise.core.artifact import Artifact, Degradation
from quantwise.core.errors import EnvironmentFailure, QuantwiseError
from quantwise.core.recipe import Recipe
from quantwise.formats.content_hash import content_files, content_hash
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.writer import write_gguf
from quantwise.formats.safetensors_folder import ModelFolder, copy_side_files, require_finite, write_config
from quantwise.formats.safetensors_stream import write_model
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.quantize.gptq import share_factors

if TYPE_CHECKING:
    from quantwise.build.auto import Auto

Progress = Callable[[str, int, int], None]


def build(
    model_dir: Path,
    recipes: Sequence[Recipe],
    calibration: Sequence[str] | Sample,
    out_dir: Path,
    *,
    progress: Progress | None = None,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> list[Artifact]:
    """Make an artifact for each recipe, in their order; a complete one in ``out_dir`` is used again.

    ``calibration`` are texts, of which a seeded selection is read, and only where a recipe needs data. The model in
    ``model_dir`` must be 16 bit or more. ``progress`` is told (what, how many done, how many in all), ``tell``
    beforehand what the build will take. Raises InputError for a model, recipe or calibration set that cannot be used,
    EnvironmentFailure where the disk refuses or has too little room.
    """
    report = progress or (lambda what, done, total: None)
    source = ModelFolder(model_dir)
    for recipe in recipes:
        check_names(recipe, source.entries)
    storages = {r: storage_for(r, source) for r in recipes if not _is_direct(r)}
    needs_data = {recipe for recipe in recipes if recipe.reads_data}
    longest = int(source.config.get("max_position_embeddings", 2048))
    data = calibrate(model_dir, calibration, longest, seed) if needs_data else None
    report("hash the model", 0, 1)
    model_hash = content_hash(model_dir)
    wanted = {r: Ingredients(r, model_hash, data.hash if data and r in needs_data else None) for r in recipes}
    done = {r: found for r, made_of in wanted.items() if (found := _existing(source, out_dir, made_of))}
    missing = [made_of for r, made_of in wanted.items() if r not in done]
    direct = [made_of for made_of in missing if _is_direct(made_of.recipe)]
    if missing:
        open_storages = {m.recipe: storages[m.recipe] for m in missing if m.recipe in storages}
        if tell and data and data.unread:
            tell(data.sentence)
        behind = Unfinished.left_behind(out_dir, *_walk_of(model_hash, data))
        announce(source, out_dir, [m.recipe for m in missing], open_storages, data, tell, behind)
        report("read the model", 0, 1)
        settle()
        skeleton = Skeleton(source)
        skeleton.check_folder()
        _require_finite(source, report)
    for i, made_of in enumerate(direct):
        report(f"write {made_of.recipe.name}", i, len(direct))
        done[made_of.recipe] = _write_direct(source, out_dir, made_of)
        report(f"write {made_of.recipe.name}", i + 1, len(direct))
    walked = [made_of for made_of in missing if not _is_direct(made_of.recipe)]
    if walked:
        for artifact, made_of in zip(_walk(skeleton, out_dir, walked, storages, data, report), walked, strict=True):
            done[made_of.recipe] = artifact
    else:
        Unfinished.sweep(out_dir, *_walk_of(model_hash, data))
    return [done[r] for r in recipes]


def _is_direct(recipe: Recipe) -> bool:
    """Recipes that see one weight at a time and no data: 16 bit, and rounding to ggml's blocks."""
    return recipe.scheme.kind == "float" or (recipe.scheme.format == "gguf" and not recipe.reads_data)


def _existing(source: ModelFolder, out: Path, ingredients: Ingredients) -> Artifact | None:
    if ingredients.recipe.name == "16bit" and source.is_sixteen_bit:
        # The model itself is its 16-bit artifact; nothing is copied.
        held = sum(file.stat().st_size for file in content_files(source.path))
        return Artifact(str(source.path), "safetensors", ingredients.model_hash, held, "16bit", 16.0, 0.0)
    return find(out, ingredients)


def _require_finite(source: ModelFolder, report: Progress) -> None:
    """Raise InputError where any tensor is not finite, before hours of work: most recipes copy what lies outside of
    the blocks unseen.
    """
    for done, name in enumerate(source):
        report("check the weights", done, len(source))
        require_finite(name, source[name])
    give_back()


def _write_direct(source: ModelFolder, out: Path, ingredients: Ingredients) -> Artifact:
    start = time.perf_counter()
    scheme = ingredients.recipe.scheme
    with draft(out, ingredients) as made:
        degradations: tuple[Degradation, ...] = ()
        if scheme.format == "gguf":
            path = made.folder / GGUF_NAME
            degradations = write_gguf(path, source, scheme.name, lambda ggml, values: GgmlBlocks(ggml).encode(values))
            return _finish_folder(made, source, time.perf_counter() - start, degradations)
        write_model(made.folder, source, {})
        write_config(made.folder, source.config, source.sixteen_bit)
        copy_side_files(source.path, made.folder)
        return _finish_folder(made, source, time.perf_counter() - start, _rounded(source))


def _rounded(source: ModelFolder) -> tuple[Degradation, ...]:
    """That the weights were rounded to 16 bit before anything else."""
    if not source.is_wider:
        return ()
    return (Degradation("model", f"stored in more than 16 bits; rounded to {source.sixteen_bit}"),)


def _walk_of(model_hash: str, data: Calibration | None) -> tuple[str, str]:
    """What a walk is known by."""
    return model_hash, data.hash if data else ""


def _walk(
    skeleton: Skeleton,
    out: Path,
    wanted: Sequence[Ingredients],
    storages: Mapping[Recipe, Storage],
    data: Calibration | None,
    report: Progress,
) -> list[Artifact]:
    """Take every recipe through every block, then write the artifacts.

    What is finished stays on disk when the process is killed or interrupted, or the machine fails, and goes with the
    last artifact, or where the walk was refused.
    """
    names = ", ".join(made_of.recipe.name for made_of in wanted)
    with no_disk(names, out):
        kept = Unfinished.take(out, *_walk_of(wanted[0].model_hash, data))
    try:
        with no_disk(names, out):
            mixed = [m for m in wanted if m.recipe.budget is not None]
            auto = _auto(skeleton, mixed, kept) if mixed else None
            jobs = [Job(m, storages[m.recipe], kept) for m in wanted if m not in mixed]
            for job in [*jobs, *(auto.jobs if auto else [])]:
                job.check(skeleton)
            batches = list(data.batches()) if data else []
            together = [job for job in jobs if "propagate" not in job.recipe.options] + (auto.jobs if auto else [])
            if together:
                share_factors(job.quantizer for job in together)
                _pass(skeleton, together, batches, kept, report)
            if auto and data:
                jobs += auto.chosen(data, report)
            for job in jobs:
                if "propagate" in job.recipe.options:
                    _pass(skeleton, [job], batches, kept, report, own=job.name)
            for job in jobs:
                if data and "distil" in job.recipe.options:
                    distil_job(job, skeleton, data, report, Training())
            _note_data(jobs, data)
            jobs.sort(key=lambda job: wanted.index(job.ingredients))
            artifacts = []
            for i, job in enumerate(jobs):
                report(f"write {job.recipe.name}", i, len(jobs))
                artifacts.append(_write_made(skeleton, out, job))
                report(f"write {job.recipe.name}", i + 1, len(jobs))
            kept.forget()
            return artifacts
    except EnvironmentFailure as error:
        if not kept.worth_keeping:
            kept.forget()
            raise
        raise EnvironmentFailure(f"{error}; the same command goes on with the blocks that are finished") from error
    except QuantwiseError:
        kept.forget()
        raise
    finally:
        kept.leave()


def _note_data(jobs: Sequence[Job], data: Calibration | None) -> None:
    for job in jobs:
        if data and job.recipe.reads_data:
            job.notes["calibration"] = data.read


def _pass(
    skeleton: Skeleton,
    jobs: Sequence[Job],
    batches: Sequence[Batch],
    kept: Unfinished,
    report: Progress,
    own: str = "",
) -> None:
    """Once through the model with all ``jobs``, whose blocks see what the 16-bit model gives; with ``own``, one job
    alone, whose blocks see what its own quantized blocks give.
    """
    needed = frozenset[str]().union(*(job.needs for job in jobs))
    count = len(skeleton.blocks)
    first = next((i for i in range(count) if not all(job.has(i) for job in jobs)), count)
    stream: Stream | None = None
    if needed and (own or first < count):
        at, hidden = kept.hidden(own or "shared") or (0, None)
        stream = Stream(skeleton, batches, at, hidden) if own or at <= first else Stream(skeleton, batches)
    for index in range(stream.at if stream else first, count):
        report("quantize blocks", index, count)
        # A block of a job alone is made again where its hidden states were not kept: they need what it stands for.
        open_jobs = [job for job in jobs if own or not job.has(index)]
        with skeleton.filled(skeleton.block_name(index)):
            seen = stream.see(needed if open_jobs else frozenset(), advance=not own) if stream else {}
            # What the activations took is room for what quantizing takes.
            give_back()
            values: dict[str, Tensor] = {}
            for job in open_jobs:
                made = job.quantize(skeleton, index, seen)
                values = made if own else {}
                del made
            if stream and own:
                with skeleton.holding(values):
                    stream.see(frozenset())
            del seen, values
        give_back()
        if stream:
            kept.keep_hidden(own or "shared", stream.at, stream.hidden)
    report("quantize blocks", count, count)


def _auto(skeleton: Skeleton, mixed: Sequence[Ingredients], kept: Unfinished) -> Auto:
    # GGUF is an extra of its own.
    from quantwise.build.auto import Auto

    return Auto.of(skeleton, mixed, kept)


def _write_made(skeleton: Skeleton, out: Path, job: Job) -> Artifact:
    start = time.perf_counter()
    made, degradations, seconds = job.made(skeleton)
    with draft(out, job.ingredients) as drafted:
        degradations = (*_rounded(skeleton.source), *degradations)
        degradations += job.storage.write(drafted.folder, skeleton.source, made)
        seconds += time.perf_counter() - start
        return _finish_folder(drafted, skeleton.source, seconds, degradations, job.notes)


def _finish_folder(
    made: Draft,
    source: ModelFolder,
    seconds: float,
    found: tuple[Degradation, ...],
    notes: Mapping[str, Any] | None = None,
) -> Artifact:
    gguf = made.ingredients.recipe.scheme.format == "gguf"
    by_class = bytes_by_class(made.folder / GGUF_NAME if gguf else made.folder)
    if gguf:
        bits = read_gguf_header(made.folder / GGUF_NAME).bits_per_weight
    else:
        bits = 8 * sum(by_class.values()) / sum(torch.Size(entry.shape).numel() for entry in source.entries.values())
    return made.finish(bits, seconds, found, by_class, notes)
