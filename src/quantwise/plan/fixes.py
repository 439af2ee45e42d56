"""The cheapest changes that make a plan fit: a setting before a smaller scheme, a smaller model, more devices, another
site.

A pure search. The caller says what a case needs (``need``: any sum of terms against any limit) and what may be changed;
single changes and pairs are tried, the cheapest first, and only what fits is told. Classes of cost never mix: however
mild a smaller scheme is, every setting comes before it, because a setting is taken back by a word and a scheme is
another artifact to measure. Within a class the sum of the changes' costs decides. Every refusal has a fix, because the
last resort is memory enough for what the case needs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Generic, Literal, TypeVar

from quantwise.plan.fit import MARGINAL, size

CostClass = Literal["setting", "scheme", "model", "devices", "site"]
CLASSES: tuple[CostClass, ...] = ("setting", "scheme", "model", "devices", "site")
# Where a term moves with the limit (half of memory for a runtime, say) one raise is not enough.
_RAISES = 16
_LEAST_CONTEXT = 2048


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
    of which layers and runs of layers are split in parallel.
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


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a case takes of the memory that binds (of several the fullest), and what that memory has."""

    total_bytes: int
    limit_bytes: int

    def fits(self, share: float) -> bool:
        """Whether the total stays within a share of the limit."""
        return self.total_bytes <= share * self.limit_bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One knob (a field) of a case, turned to ``value``. ``cost`` orders changes of one class; ``loses`` says what that
    costs the user. Where ``below`` is given, whole numbers up to that one, exclusive, cost the same: of these the
    largest that fits is taken.
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
    """Changes that make a case fit, the ``case`` they lead to, what they save, and what is then taken of what."""

    changes: tuple[Change, ...]
    kind: CostClass
    case: C
    saves_bytes: int
    total_bytes: int
    limit_bytes: int

    def __str__(self) -> str:
        what = " and ".join(_words(change) for change in self.changes)
        saved = f"saves {size(self.saves_bytes)}, " if self.saves_bytes > 0 else ""
        return f"{what}: {saved}then {size(self.total_bytes)} of {size(self.limit_bytes)}"


def fixes(
    case: C,
    changes: Sequence[Change],
    need: Callable[[C], Need | None],
    share: float = MARGINAL,
    each: int = 2,
) -> list[Fix[C]]:
    """At most ``each`` fixes of each class of cost, the cheapest first; none where the case fits or nobody knows.

    A fix fits within ``share`` of the limit. ``need`` returns None where a case cannot be (a cache type that does not
    suit the heads), and is asked once for each case. Of several ways to turn the same knobs the mildest is told, and no
    pair of which one change would do.
    """
    asked: dict[C, Need | None] = {}

    def known(tried: C) -> Need | None:
        if tried not in asked:
            asked[tried] = need(tried)
        return asked[tried]

    before = known(case)
    if before is None or before.fits(share):
        return []
    found: list[Fix[C]] = []
    for kind in CLASSES:
        of_kind: list[Fix[C]] = []
        for combination in _combinations(case, changes, kind):
            if len(of_kind) == each:
                break
            if any(_covers(fix, combination) for fix in (*found, *of_kind)):
                continue
            if not _fits(known(_applied(case, combination)), share):
                continue
            combination = _furthest(combination, lambda tried: _fits(known(_applied(case, tried)), share))
            changed = _applied(case, combination)
            after = known(changed)
            if after is not None:
                saved = before.total_bytes - after.total_bytes
                of_kind.append(Fix(combination, kind, changed, saved, after.total_bytes, after.limit_bytes))
        found += of_kind
    if not any(fix.kind == "site" for fix in found):
        found += _memory_enough(case, before, known, share)
    return found


def _applied(case: C, combination: Sequence[Change]) -> C:
    for change in combination:
        case = change.applied(case)
    return case


def _fits(need: Need | None, share: float) -> bool:
    return need is not None and need.fits(share)


def _furthest(combination: tuple[Change, ...], fits: Callable[[tuple[Change, ...]], bool]) -> tuple[Change, ...]:
    """A combination that fits, with every number at the largest of its cost that still does."""
    for at, change in enumerate(combination):
        if change.below is not None and isinstance(change.value, int):
            before, behind = combination[:at], combination[at + 1 :]
            largest = _largest(change, lambda tried, b=before, e=behind: fits((*b, tried, *e)))  # type: ignore[misc]
            combination = (*before, largest, *behind)
    return combination


def _largest(change: Change, fits: Callable[[Change], bool]) -> Change:
    """The change with the largest value ``below`` that fits, by halving: what is less takes less."""
    assert isinstance(change.value, int)
    above = range(change.value + 1, change.below or 0)
    more = bisect_right(above, False, key=lambda value: not fits(replace(change, value=value)))
    return replace(change, value=change.value + more)


def usual_changes(
    case: ServedCase,
    *,
    caches: Sequence[str] = (),
    schemes: Sequence[str] = (),
    models: Sequence[str] = (),
    sites: Sequence[str] = (),
    layers: int = 0,
    devices: int = 0,
) -> list[Change]:
    """What may usually be changed. ``caches``, ``schemes`` and ``models`` go from larger to smaller, ``sites`` from
    cheap to dear; of the first three those after the case's own are taken, of sites all others. ``layers`` above 0 lets
    that many move to the CPU, and no more than must; ``devices`` lets that many of the site's work together. Contexts
    go down to a quarter and not below 2048 tokens; requests at a time to one.

    Costs count how much is lost: an 8-bit cache 1, fewer bits 4 and more; half the requests 2; half the context 3;
    up to a quarter of the layers on the CPU 3, because each token waits for them; half the ubatch 1 (slower prompts);
    twice the devices 8, stages of them 9.
    """
    told = [
        Change("cache", name, "setting", 1 if _eight_bit(name) else 3 + i, "answers may differ: measure the task")
        for i, name in enumerate(_after(caches, case.cache), 1)
    ]
    ubatches = [case.ubatch >> i for i in (1, 2) if case.ubatch >> i >= 64]
    told += [Change("ubatch", n, "setting", i, "prompts are read more slowly") for i, n in enumerate(ubatches, 1)]
    requests = [case.concurrency >> i for i in range(1, case.concurrency.bit_length())]
    told += [Change("concurrency", n, "setting", 2 * i, "others wait longer") for i, n in enumerate(requests, 1)]
    contexts = [case.context >> i for i in (1, 2) if case.context >> i >= _LEAST_CONTEXT]
    told += [Change("context", n, "setting", 3 * i, "longer texts are cut off") for i, n in enumerate(contexts, 1)]
    told += _fewer_layers(case, layers) if layers else []
    for kind, names, own in (("scheme", schemes, case.scheme), ("model", models, case.model)):
        loses = "quality is unknown until measured"
        told += [_named(kind, name, i, loses) for i, name in enumerate(_after(names, own), 1)]
    told += _more_devices(case, devices)
    other = [name for name in sites if name != case.site]
    return told + [_named("site", name, i, "another machine") for i, name in enumerate(other, 1)]


def _fewer_layers(case: ServedCase, layers: int) -> list[Change]:
    """Down by quarters, the last one but for one layer, and to none. The output counts as one layer more."""
    held = layers + 1 if case.gpu_layers is None else min(case.gpu_layers, layers + 1)
    steps = sorted({min(held, layers) * left // 4 for left in range(4)} | {1}, reverse=True)
    steps = [step for step in steps if step < held]
    tops = [held, *steps]
    return [
        Change("gpu_layers", step, "setting", 3 * i, "the rest runs on the CPU", below=top)
        for i, (step, top) in enumerate(zip(steps, tops, strict=False), 1)
    ]


def _more_devices(case: ServedCase, most: int) -> list[Change]:
    """Twice as many, and so on: each with a share of every layer, or else of the layers."""
    own = case.tensor_parallel * case.pipeline_parallel
    knobs = (("tensor_parallel", case.tensor_parallel), ("pipeline_parallel", case.pipeline_parallel))
    return [
        Change(knob, now << i, "devices", 8 * i + stages, f"{(own << i) - own} more of these GPUs")
        for stages, (knob, now) in enumerate(knobs)
        for i in range(1, (most // own).bit_length())
    ]


def _named(kind: str, name: str, cost: int, loses: str) -> Change:
    knob: Literal["scheme", "model", "site"] = "scheme" if kind == "scheme" else "model" if kind == "model" else "site"
    return Change(knob, name, knob, cost, loses)


def _after(names: Sequence[str], own: str) -> Sequence[str]:
    """What comes after the case's own name; everything where that is not listed."""
    return names[names.index(own) + 1 :] if own in names else names


def _eight_bit(cache: str) -> bool:
    return "8" in cache.split("/")[0]


def _combinations(case: C, changes: Sequence[Change], kind: CostClass) -> Iterator[tuple[Change, ...]]:
    """Single changes and pairs of different knobs whose dearest is of ``kind``, the cheapest first.

    A site is changed alone, or with one more. A cheaper class may help a dearer one: a smaller scheme and a setting.
    """
    rank = CLASSES.index(kind)
    able = [c for c in changes if CLASSES.index(c.kind) <= rank and c.applied(case) != case]
    singles = [(c,) for c in able if c.kind == kind]
    pairs = [p for p in combinations(able, 2) if p[0].knob != p[1].knob and kind in (p[0].kind, p[1].kind)]
    yield from sorted((*singles, *pairs), key=_price)


def _price(combination: tuple[Change, ...]) -> tuple[int, int]:
    """The sum of costs; of equal ones the single change."""
    return sum(change.cost for change in combination), len(combination)


def _covers(fix: Fix[C], combination: tuple[Change, ...]) -> bool:
    """Whether a fix turns the same knobs, or fewer of them, no further: then the combination adds nothing."""
    further = {change.knob: change for change in combination}
    return all(c.knob in further and c.cost <= further[c.knob].cost for c in fix.changes) or (
        {c.knob for c in fix.changes} == set(further)
    )


def _memory_enough(case: C, before: Need, need: Callable[[C], Need | None], share: float) -> list[Fix[C]]:
    """The last resort: any site with memory enough."""
    bytes_needed = before.limit_bytes
    for raised in range(_RAISES):
        now = need(replace(case, memory_bytes=bytes_needed))
        if now is None:
            return []
        if now.fits(share) and bytes_needed > before.limit_bytes:
            change = Change("memory_bytes", bytes_needed, "site", 0, "another machine")
            saved = before.total_bytes - now.total_bytes
            return [Fix((change,), "site", change.applied(case), saved, now.total_bytes, now.limit_bytes)]
        # Where a term grows with the limit the first guess is too small, and so would be every next.
        more = bytes_needed + bytes_needed // 4 + 1 if raised else 0
        bytes_needed = max(math.ceil(now.total_bytes / share), more)
    return []


def _words(change: Change) -> str:
    if change.knob == "memory_bytes":
        return f"a machine with {size(int(change.value))} free"
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
