"""What ``quantwise plan MODEL --train METHOD`` answers: every term of a training step, and what makes it fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.constants import CUDA_CONTEXT, TRANSFORMERS_PROCESS, ByteInterval
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fixes import fixes
from quantwise.plan.model_source import read_decoder
from quantwise.plan.training import ALLOCATOR, memory_of_parts
from quantwise.plan.training_fixes import (
    TrainingSites,
    paged_out,
    runs_on,
    training_case,
    training_changes,
    training_need,
)
from quantwise.plan.training_job import TrainingJob, parts_of
from quantwise.plan.wanted import Wanted
from quantwise.scenarios.sites import sites

_SMALLER = 3


def training_answer(decoder: Decoder, job: TrainingJob, wanted: Wanted, smaller: Sequence[str] = ()) -> dict[str, Any]:
    """The record. ``total_bytes`` holds an allocator's slack and the process or GPU context; of what a paged optimizer
    moves (``paged_to_host_bytes``) only what the host is not known to take. Raises InputError for a job that cannot be.
    """
    site = wanted.site
    if not runs_on(job.optimizer, site.kind):
        raise InputError(f"{job.optimizer} does not run on {site.name}: bitsandbytes has none there; take --optimizer "
                         "adamw, or a --site that is no Mac")  # fmt: skip
    parts = parts_of(decoder)
    memory = memory_of_parts(parts, job)
    overhead = _overhead(site.kind)
    paged = memory.paged if site.kind == "gpu" else 0
    host = None if wanted.host is None else wanted.host.limit_bytes
    total = math.ceil((memory.peak_bytes - paged_out(memory, site.kind, host)) * (1 + ALLOCATOR)) + overhead.high
    least = memory.peak_bytes - (paged if host is None else min(paged, host)) + overhead.low
    limit = wanted.limit_bytes or site.limit_bytes
    # What must leave the GPU has a place only where the host is known.
    fits = _fits(least, total, limit, homeless=paged > 0 and host is None)
    return {
        "model": decoder.name,
        "site": site.name,
        "training": asdict(job),
        "targets": sorted({name for block in parts.targets(job) for name in block}),
        "trainable_parameters": memory.trained,
        "trainable_share": memory.trained / max(memory.parameters, 1),
        "terms": {name: amount for name, amount in asdict(memory).items() if isinstance(amount, int)},
        "moments": memory.moments,
        "peak_bytes": memory.peak_bytes,
        "paged_to_host_bytes": paged,
        "host": {"name": None if wanted.host is None else wanted.host.name, "limit_bytes": host} if paged else None,
        "overhead_bytes": overhead.high,
        "overhead_bytes_at_least": overhead.low,
        "total_bytes": total,
        "total_bytes_at_least": least,
        "limit_bytes": limit,
        "fits": fits,
        "fixes": [] if limit is None or fits == "yes" else _fixes(decoder, job, wanted, smaller[:_SMALLER], limit),
        "source": memory.source,
    }


def _overhead(kind: str | None) -> ByteInterval:
    return CUDA_CONTEXT if kind == "gpu" else TRANSFORMERS_PROCESS


def _fits(least: int, total: int, limit: int | None, *, homeless: bool) -> str:
    if limit is None:
        return "unknown"
    if least > limit:
        return "no"
    if total <= MARGINAL * limit:
        return "yes"
    return "unknown" if homeless and total > limit else "marginal"


def _fixes(
    decoder: Decoder, job: TrainingJob, wanted: Wanted, smaller: Sequence[str], limit: int
) -> list[dict[str, Any]]:
    site = wanted.site
    shipped = {s.name: s for s in sites().values() if s.limit_bytes} | {site.name: site}
    places = TrainingSites(
        limits={name: s.limit_bytes or 0 for name, s in shipped.items()} | {site.name: limit},
        kinds={name: s.kind for name, s in shipped.items()},
        overheads={name: _overhead(s.kind).high for name, s in shipped.items()},
        host_bytes=None if wanted.host is None else wanted.host.limit_bytes,
    )
    decoders = {decoder.name: decoder} | {name: read_decoder(name) for name in smaller}
    case = training_case(decoder.name, job, site.name)
    changes = training_changes(case, smaller, places.larger(site.name, limit))
    return [
        {
            "what": str(fix),
            "kind": fix.kind,
            "changes": [{"knob": c.knob, "value": c.value, "loses": c.loses} for c in fix.changes],
            "saves_bytes": fix.saves_bytes,
            "total_bytes": fix.total_bytes,
            "limit_bytes": fix.limit_bytes,
        }
        for fix in fixes(case, changes, training_need(decoders, places))
    ]
