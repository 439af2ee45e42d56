"""What makes training fit: a setting before a method that trains less, a smaller model, another site."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantwise.core.errors import InputError
from quantwise.models.decoder import Decoder
from quantwise.plan.fit import MARGINAL
from quantwise.plan.fix import Change, Need, Planned
from quantwise.plan.training import ALLOCATOR, TrainingMemory, memory_of_parts
from quantwise.plan.training_job import Method, Optimizer, Parts, Precision, TrainingJob, parts_of

_LEAST_SEQUENCE = 256


def runs_on(optimizer: Optimizer, kind: str | None) -> bool:
    """Whether an optimizer exists for a kind of site: bitsandbytes 0.50 has no 8-bit or paged one for Apple's GPUs
    (backends/mps).
    """
    return kind != "unified" or (not optimizer.endswith("8bit") and not optimizer.startswith("paged"))


def paged_out(memory: TrainingMemory, kind: str | None, host_bytes: int | None) -> int:
    """Bytes of a paged optimizer's states that a host of ``host_bytes`` takes; none where it is unknown, or there is
    no GPU to page from (bitsandbytes 0.50 warns of that on a CPU and pages nothing).
    """
    return min(memory.paged, int(MARGINAL * (host_bytes or 0))) if kind == "gpu" else 0


@dataclass(frozen=True, slots=True)
class TrainingCase(Planned):
    """A ``model``, by name, that is trained as ``job`` says but for what stands beside it here: the knobs.

    A ``batch`` below the job's own is made up for by accumulating gradients, which are kept then.
    """

    model: str
    job: TrainingJob
    method: Method
    precision: Precision
    optimizer: Optimizer
    checkpointing: bool
    batch: int
    sequence: int

    def turned(self) -> TrainingJob:
        """The job with the knobs where they are. Raises InputError where they do not go together."""
        return replace(
            self.job,
            method=self.method,
            precision=self.precision,
            optimizer=self.optimizer,
            checkpointing=self.checkpointing,
            batch=self.batch,
            sequence=self.sequence,
            accumulates=self.job.accumulates or self.batch < self.job.batch,
        )


def training_case(model: str, job: TrainingJob, site: str, memory_bytes: int | None = None) -> TrainingCase:
    """The case of a job as it is."""
    return TrainingCase(
        model,
        job,
        job.method,
        job.precision,
        job.optimizer,
        job.checkpointing,
        job.batch,
        job.sequence,
        site=site,
        memory_bytes=memory_bytes,
    )


def training_changes(case: TrainingCase, models: Sequence[str] = (), sites: Sequence[str] = ()) -> list[Change]:
    """What may usually be changed. ``models`` go from larger to smaller, ``sites`` from cheap to dear.

    Costs: smaller batches 1, because the sum of gradients is the same; checkpointing 2 (a third more time); an 8-bit
    optimizer 3, a paged one 4; shorter texts 5 and more; 16-bit weights and states 6, which lose small updates.
    """
    told = [
        Change("batch", case.batch >> i, "setting", i, "more passes a step") for i in range(1, 10) if case.batch >> i
    ]
    if not case.checkpointing and case.method != "prefix":
        told.append(Change("checkpointing", True, "setting", 2, "a third more time: blocks are computed twice"))
    if not case.optimizer.endswith("8bit"):
        told.append(Change("optimizer", "adamw-8bit", "setting", 3, "states of 8 bit"))
    if case.optimizer != "paged-adamw-8bit":
        told.append(
            Change("optimizer", "paged-adamw-8bit", "setting", 4, "states of 8 bit, moved to the host and back")
        )
    lengths = [case.sequence >> i for i in (1, 2) if case.sequence >> i >= _LEAST_SEQUENCE]
    told += [Change("sequence", n, "setting", 4 + i, "longer texts are cut off") for i, n in enumerate(lengths, 1)]
    if case.precision != "bf16":
        told.append(Change("precision", "bf16", "setting", 6, "small updates are lost in 16-bit weights"))
    less = {"full": ("lora", "qlora"), "qlora": ()}.get(case.method, ("qlora",))
    told += [Change("method", name, "scheme", i, "trains fewer numbers") for i, name in enumerate(less, 1)]
    smaller = models[models.index(case.model) + 1 :] if case.model in models else models
    told += [Change("model", n, "model", i, "quality is unknown until measured") for i, n in enumerate(smaller, 1)]
    other = [name for name in sites if name != case.site]
    return told + [Change("site", name, "site", i, "another machine") for i, name in enumerate(other, 1)]


@dataclass(frozen=True, slots=True)
class TrainingSites:
    """By name: bytes that a site may give (``limits``), what kind it is (a GPU where nothing is said), and what a
    process or a GPU's context takes there; ``host_bytes`` has the machine around a GPU, None where it is unknown.
    """

    limits: Mapping[str, int]
    kinds: Mapping[str, str | None] = field(default_factory=dict)
    overheads: Mapping[str, int] = field(default_factory=dict)
    host_bytes: int | None = None

    def larger(self, site: str, limit: int) -> list[str]:
        """Sites with more memory where the same training runs, the smallest first: GPUs, and others of the site's
        kind. What is trained on a GPU is not sent to a processor, which would take weeks.
        """
        kinds = {"gpu", self.kinds.get(site, "gpu")}
        able = [name for name, has in self.limits.items() if has > limit and self.kinds.get(name, "gpu") in kinds]
        return sorted(able, key=lambda name: self.limits[name])


def training_need(decoders: Mapping[str, Decoder], sites: TrainingSites) -> Callable[[TrainingCase], Need | None]:
    """A function that says what a case needs of its site's memory or of its own, an allocator's slack and overhead
    included; states of a paged optimizer lie with the host as far as that is known to have room. None where its knobs
    do not go together, the site lacks the optimizer, or the model cannot be counted.
    """

    sorted_out: dict[str, Parts] = {}

    def need(case: TrainingCase) -> Need | None:
        """As ``training_need`` says; the parts of each model are sorted once."""
        limit = sites.limits.get(case.site) if case.memory_bytes is None else case.memory_bytes
        kind = sites.kinds.get(case.site, "gpu")
        if limit is None or case.model not in decoders or not runs_on(case.optimizer, kind):
            return None
        try:
            if case.model not in sorted_out:
                sorted_out[case.model] = parts_of(decoders[case.model])
            memory = memory_of_parts(sorted_out[case.model], case.turned())
        except InputError:
            return None
        held = memory.peak_bytes - paged_out(memory, kind, sites.host_bytes)
        return Need(math.ceil(held * (1 + ALLOCATOR)) + sites.overheads.get(case.site, 0), limit)

    return need
