"""What ``quantwise plan MODEL --train METHOD`` answers: every term of a training step, and what makes it fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quantwise.models.decoder import Decoder
from quantwise.plan.constants import CUDA_CONTEXT, TRANSFORMERS_PROCESS
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fixes import fixes
from quantwise.plan.model_source import read_decoder
from quantwise.plan.training import ALLOCATOR, training_memory
from quantwise.plan.training_fixes import training_case, training_changes, training_need
from quantwise.plan.training_job import TrainingJob
from quantwise.plan.wanted import Wanted
from quantwise.scenarios.sites import sites

_SMALLER = 3


def training_answer(decoder: Decoder, job: TrainingJob, wanted: Wanted, smaller: Sequence[str] = ()) -> dict[str, Any]:
    """The record. ``total_bytes`` holds an allocator's slack and the process or GPU context; what a paged optimizer
    may keep on the host is not in it. Raises InputError for a job that cannot be.
    """
    memory = training_memory(decoder, job)
    overhead = CUDA_CONTEXT if wanted.site.kind == "gpu" else TRANSFORMERS_PROCESS
    held = memory.peak_bytes - memory.paged
    total = math.ceil(held * (1 + ALLOCATOR)) + overhead.high
    limit = wanted.limit_bytes or wanted.site.limit_bytes
    least = held + overhead.low
    fits = "unknown" if limit is None else "no" if least > limit else "yes" if total <= MARGINAL * limit else "marginal"
    told: list[dict[str, Any]] = []
    if limit is not None and fits != "yes":
        names = smaller[:_SMALLER]
        decoders = {decoder.name: decoder} | {name: read_decoder(name) for name in names}
        limits = {s.name: s.limit_bytes for s in sites().values() if s.limit_bytes} | {wanted.site.name: limit}
        dearer = [n for n, amount in sorted(limits.items(), key=lambda item: item[1]) if amount > limit]
        case = training_case(decoder.name, job, wanted.site.name)
        changes = training_changes(case, names, dearer)
        need = training_need(decoders, limits, overhead.high)
        told = [
            {
                "what": str(fix),
                "kind": fix.kind,
                "changes": [{"knob": c.knob, "value": c.value, "loses": c.loses} for c in fix.changes],
                "total_bytes": fix.total_bytes,
            }
            for fix in fixes(case, changes, need)
        ]
    parts = {name: amount for name, amount in asdict(memory).items() if isinstance(amount, int)}
    return {
        "model": decoder.name,
        "site": wanted.site.name,
        "training": asdict(job),
        "trainable_parameters": memory.trained,
        "trainable_share": memory.trained / max(memory.parameters, 1),
        "terms": parts,
        "moments": memory.moments,
        "peak_bytes": memory.peak_bytes,
        "paged_to_host_bytes": memory.paged,
        "overhead_bytes": overhead.high,
        "total_bytes": total,
        "total_bytes_at_least": least,
        "limit_bytes": limit,
        "fits": fits,
        "fixes": told,
        "source": memory.source,
    }
