"""What a search for fixes speaks of: a case, what it needs of which memory, changes of it, and what makes it fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from quantwise.plan.fit import size

CostClass = Literal["setting", "scheme", "model", "devices", "site"]
CLASSES: tuple[CostClass, ...] = ("setting", "scheme", "model", "devices", "site")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Where something runs. ``memory_bytes`` stands for the memory of the ``site`` where it is given."""

    site: str
    memory_bytes: int | None = None


C = TypeVar("C", bound=Planned)


@dataclass(frozen=True, slots=True)
class ServedCase(Planned):
    """A model that is served. ``context`` is tokens a request, ``concurrency`` requests at a time, ``ubatch`` tokens
    computed at once, ``gpu_layers`` how many layers the accelerator holds (None: all, or there is none), over how many
    of which layers and runs of layers are split in parallel. ``experts_on_cpu`` layers leave their experts to the host,
    whose memory ``host_bytes`` stands for where it is given.
    """

    model: str
    scheme: str
    cache: str
    context: int
    concurrency: int
    ubatch: int
    gpu_layers: int | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    experts_on_cpu: int = 0
    host_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Bytes that a case takes of the host's memory, and what that has; None where nobody knows."""

    total_bytes: int
    limit_bytes: int | None

    def fits(self, share: float) -> bool:
        """Whether the total stays within a share of the limit."""
        return self.limit_bytes is None or self.total_bytes <= share * self.limit_bytes


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a case takes of the memory that binds (of several the fullest), and what that memory has.

    ``beside``: what lies with the host, more where the first holds less; None where nothing does. ``host``: the first
    is the host's memory too.
    """

    total_bytes: int
    limit_bytes: int
    beside: Rest | None = None
    host: bool = False

    def fits(self, share: float) -> bool:
        """Whether both totals stay within a share of their limits. A host that nobody knows is taken to have room."""
        return self.fits_here(share) and (self.beside is None or self.beside.fits(share))

    def fits_here(self, share: float) -> bool:
        """Of the first memory alone."""
        return self.total_bytes <= share * self.limit_bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One knob (a field) of a case, turned to ``value``. ``cost`` orders changes of one class; ``loses`` says what that
    costs the user. Where ``below`` is given, whole numbers from ``value`` to that one, exclusive, cost the same: of
    these the nearest to it that fits is taken.
    """

    knob: str
    value: str | int
    kind: CostClass
    cost: int
    loses: str
    below: int | None = None

    def applied(self, case: C) -> C:
        """The case with this knob turned. A new site has its own memory."""
        turned: dict[str, Any] = {self.knob: self.value}
        if self.knob == "site":
            turned["memory_bytes"] = None
        return replace(case, **turned)


@dataclass(frozen=True, slots=True)
class Fix(Generic[C]):
    """Changes that make a case fit, the ``case`` they lead to, what they save, and what is then taken of what.

    Nothing is saved where the case moves to another memory. ``beside`` is what the host then has to hold.
    """

    changes: tuple[Change, ...]
    kind: CostClass
    case: C
    saves_bytes: int
    total_bytes: int
    limit_bytes: int
    beside: Rest | None = None

    def __str__(self) -> str:
        what = " and ".join(_words(change) for change in self.changes)
        saved = f"saves {size(self.saves_bytes)}, " if self.saves_bytes > 0 else ""
        told = f"{what}: {saved}then {size(self.total_bytes)} of {size(self.limit_bytes)}"
        if self.beside is None or self.beside.limit_bytes is None:
            return told
        return f"{told}, {size(self.beside.total_bytes)} of {size(self.beside.limit_bytes)} on the host"


def _words(change: Change) -> str:
    if change.knob == "memory_bytes":
        return f"a machine with {size(int(change.value))} free"
    if change.knob == "host_bytes":
        return f"a host with {size(int(change.value))} free"
    if change.knob == "experts_on_cpu":
        return f"experts of {change.value} layers on the CPU"
    names = {
        "cache": "kv",
        "concurrency": "requests at a time",
        "gpu_layers": "layers on the GPU",
        "tensor_parallel": "GPUs that share every layer:",
        "pipeline_parallel": "GPUs with a run of layers each:",
    }
    if isinstance(change.value, bool):
        return change.knob if change.value else f"no {change.knob}"
    return f"{names.get(change.knob, change.knob)} {change.value}"
