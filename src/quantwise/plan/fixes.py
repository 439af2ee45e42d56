"""The cheapest changes that make a plan fit: a setting before a smaller scheme, a smaller model, more devices, another
site.

A pure search. The caller says what a case needs (``need``: any sum of terms against any limit) and what may be changed;
single changes and pairs are tried, the cheapest first, and only what fits is told. Classes of cost never mix: however
mild a smaller scheme is, every setting comes before it, because a setting is taken back by a word and a scheme is
another artifact to measure. Within a class the sum of the changes' costs decides. Every refusal has a fix, because the
last resort is memory enough for what the case needs. What a GPU does not hold lies with its host, which has to have
room too; where nobody knows what that has, the fix says what it must have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Generic

from quantwise.plan.fit import MARGINAL, room_for, size
from quantwise.plan.fix import CLASSES, C, Change, CostClass, Fix, Need, Rest

# Where a term moves with the limit (half of memory for a runtime, say) one raise is not enough.
_RAISES = 16


def fixes(
    case: C,
    changes: Sequence[Change],
    need: Callable[[C], Need | None],
    share: float = MARGINAL,
    each: int = 2,
    least: Callable[[C], Need | None] | None = None,
) -> list[Fix[C]]:
    """At most ``each`` fixes of each class of cost, the cheapest first; none where the case fits or nobody knows.

    A fix fits within ``share`` of the limit. ``need`` returns None where a case cannot be (a cache type that does not
    suit the heads), and is asked once for each case. ``least`` says less than that, sooner: where it does not fit,
    ``need`` is not asked. Of several ways to turn the same knobs the mildest is told, and no pair of which one change
    would do.
    """
    known = _Asked(need, least, share)
    before = known.need(case)
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
            if not known.may_fit(_applied(case, combination)):
                continue
            combination = _furthest(combination, lambda tried: known.fits_here(_applied(case, tried)))
            fix = _fix(case, combination, kind, known)
            if fix is not None:
                of_kind.append(fix)
        found += of_kind
    if not any(fix.kind == "site" for fix in found):
        found += _memory_enough(case, before, known)
    return found


class _Asked(Generic[C]):
    """What was answered of each case, so that nothing is asked twice."""

    def __init__(
        self, need: Callable[[C], Need | None], least: Callable[[C], Need | None] | None, share: float
    ) -> None:
        self._need, self._least, self.share = need, least, share
        self._known: dict[C, Need | None] = {}
        self._low: dict[C, Need | None] = {}

    def need(self, case: C) -> Need | None:
        if case not in self._known:
            self._known[case] = self._need(case)
        return self._known[case]

    def fits_here(self, case: C) -> bool:
        if case not in self._known and self._least is not None:
            low = self._at_least(case)
            if low is None or not low.fits_here(self.share):
                return False
        found = self.need(case)
        return found is not None and found.fits_here(self.share)

    def may_fit(self, case: C) -> bool:
        """Whether the first memory has room, and both together for what is moved between them."""
        if self._least is not None and (low := self._at_least(case)) is not None and low.beside is not None:
            both = low.limit_bytes + (low.beside.limit_bytes or low.beside.total_bytes / self.share)
            if low.total_bytes + low.beside.total_bytes > self.share * both:
                return False
        return self.fits_here(case)

    def _at_least(self, case: C) -> Need | None:
        if case not in self._low:
            self._low[case] = None if self._least is None else self._least(case)
        return self._low[case]


def _fix(case: C, combination: tuple[Change, ...], kind: CostClass, known: _Asked[C]) -> Fix[C] | None:
    """What a combination comes to; None where it does not fit."""
    before, after = known.need(case), known.need(_applied(case, combination))
    if before is None or after is None or not after.fits(known.share):
        return None
    beside = after.beside
    if beside is not None and beside.limit_bytes is None:
        room = room_for(beside.total_bytes / known.share)
        combination = (*combination, Change("host_bytes", room, kind, 0, "the rest runs on its processor"))
        beside = Rest(beside.total_bytes, room)
    saved = before.total_bytes - after.total_bytes if before.host == after.host else 0
    changed = _applied(case, combination)
    return Fix(combination, kind, changed, saved, after.total_bytes, after.limit_bytes, beside)


def _applied(case: C, combination: Sequence[Change]) -> C:
    for change in combination:
        case = change.applied(case)
    return case


def _furthest(combination: tuple[Change, ...], fits: Callable[[tuple[Change, ...]], bool]) -> tuple[Change, ...]:
    """A combination that fits, with every number at the mildest of its cost that still does."""
    for at, change in enumerate(combination):
        if change.below is not None and isinstance(change.value, int):
            before, behind = combination[:at], combination[at + 1 :]
            mildest = _mildest(change, lambda tried, b=before, e=behind: fits((*b, tried, *e)))  # type: ignore[misc]
            combination = (*before, mildest, *behind)
    return combination


def _mildest(change: Change, fits: Callable[[Change], bool]) -> Change:
    """The change with the value nearest to ``below`` that fits, by halving: what is further takes less."""
    assert isinstance(change.value, int)
    assert change.below is not None
    step = 1 if change.below > change.value else -1
    milder = range(change.value + step, change.below, step)
    more = bisect_left(milder, True, key=lambda value: not fits(replace(change, value=value)))
    return replace(change, value=change.value + step * more)


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


def _memory_enough(case: C, before: Need, known: _Asked[C]) -> list[Fix[C]]:
    """The last resort: any machine with memory enough, around the GPU too."""
    raised: dict[str, int] = {}
    now: Need | None = before
    for _ in range(_RAISES):
        if now is None:
            return []
        if now.fits(known.share) and raised:
            changes = tuple(Change(knob, room, "site", 0, "another machine") for knob, room in raised.items())
            fix = _fix(case, changes, "site", known)
            return [] if fix is None else [fix]
        raised = _raised(raised, now, known.share)
        more: dict[str, Any] = raised
        now = known.need(replace(case, **more))
    return []


def _raised(already: Mapping[str, int], now: Need, share: float) -> dict[str, int]:
    """More of each memory that has no room. Where a term grows with the limit the first guess is too small, and so
    would be every next."""
    told = dict(already)
    parts: list[tuple[str, Need | Rest, bool]] = [
        ("host_bytes" if now.host else "memory_bytes", now, now.fits_here(share))
    ]
    if now.beside is not None:
        parts.append(("host_bytes", now.beside, now.beside.fits(share)))
    for knob, part, fits in parts:
        if not fits:
            more = already[knob] + already[knob] // 4 if knob in already else 0
            # Told in three figures, more than there is has to look like more.
            beyond = part.limit_bytes or 0
            room = room_for(max(part.total_bytes / share, more, beyond + 1))
            told[knob] = room if size(room) != size(beyond) else room_for(room + 1)
    return told
