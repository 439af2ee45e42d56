"""The scales of a finished recipe, trained: read again from what the walk kept, and kept beside it.

The only pass besides ``auto`` that holds the whole model in memory; ``plan.build_job`` says how much. A killed one
begins again, the walk before it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from quantwise.build.calibration import Calibration
from quantwise.build.distil import Coded, Training, distil
from quantwise.build.job import Facts, Job
from quantwise.build.skeleton import Skeleton
from quantwise.build.watch import NOT_HELD_OUT, trained_batches, watch, watched_batches, whole
from quantwise.formats.safetensors_header import TensorEntry
from quantwise.formats.safetensors_stream import read_entry
from quantwise.quantize.quantizer import Quantized

# Of the batches tried on the reference model: few enough that the scales take a hundred steps in three epochs.
_TOKENS_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class _Read:
    """A quantized model: matrices by parameter name, and other parameters that are not the model's own."""

    coded: dict[str, Coded]
    fixed: dict[str, Tensor]


def distil_job(
    job: Job, skeleton: Skeleton, data: Calibration, report: Callable[[str, int, int], None], training: Training
) -> None:
    """Train the scales of ``job``, whose blocks are all kept; its notes tell the divergence before and after.

    Raises InputError where no text is left to train on.
    """
    if not job.kept.has_block(job.distilled, 0):
        vocabulary = int(skeleton.source.config["vocab_size"])
        with whole(skeleton) as model:
            start = time.perf_counter()
            read = _read(job, skeleton)
            found = distil(
                model,
                read.coded,
                trained_batches(data, vocabulary, _TOKENS_AT_ONCE),
                watched := watch(model, watched_batches(data, vocabulary)),
                training,
                fixed=read.fixed,
                report=lambda done, total: report(f"distil {job.recipe.name}", done, total),
            )
        tensors: dict[str, Tensor] = {}
        for name, matrix in found.coded.items():
            made = Quantized(matrix.codes, matrix.steps, torch.empty(0))
            tensors |= job.storage.pack(skeleton.stored_name(name).removesuffix(".weight"), made, {})
        notes = {
            "watched_divergence": {"before": found.before, "after": found.after, "checks": list(found.watched)},
            "watched_tokens": sum(map(len, watched.reference)),
            "watched_texts": NOT_HELD_OUT,
            "distil_seconds": time.perf_counter() - start,
        }
        job.kept.keep_block(job.distilled, 0, tensors, notes)
    job.notes |= job.kept.facts(job.distilled, 0)


def keep_outer(job: Job, skeleton: Skeleton) -> None:
    """Keep the matrices outside of blocks too, where the format quantizes them: their scales are trained as well."""
    from quantwise.build.gguf_storage import GgufFile

    at = len(skeleton.blocks)
    if isinstance(job.storage, GgufFile) and not job.has(at):
        tensors = job.storage.pack_outer(skeleton)
        job.kept.keep_block(job.name, at, tensors, asdict(Facts(replaced=list(tensors))))


def _read(job: Job, skeleton: Skeleton) -> _Read:
    """What a job's blocks stand for."""
    keep_outer(job, skeleton)
    made, _, _ = job.made(skeleton)
    names = {skeleton.stored_name(name): name for name, _ in reversed(list(skeleton.model.named_parameters()))}
    coded: dict[str, Coded] = {}
    for stored in made.replaced:
        path, shape = stored.removesuffix(".weight"), skeleton.source.entries[stored].shape
        grid, quantized = job.storage.grid(path, torch.Size(shape)), job.storage.unpack(path, _reader(made.tensors))
        assert not isinstance(grid, str | None)
        coded[names[stored]] = Coded(grid, quantized.codes, quantized.steps)
    fixed = {
        names[n]: read_entry(entry).float() for n, entry in made.tensors.items() if n in names and names[n] not in coded
    }
    return _Read(dict(sorted(coded.items())), fixed)


def _reader(entries: Any) -> Callable[[str], Tensor]:
    def read(name: str) -> Tensor:
        entry: TensorEntry = entries[name]
        return read_entry(entry)

    return read
