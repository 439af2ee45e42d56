"""What is compared with where a 16-bit baseline has no room here: its rows from another machine, or a stand-in.

A baseline that somebody named stays what it is: its question is frozen and waits for its rows. One that nobody named
is replaced by the safest artifact that fits, which is another question, and every verdict of it says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from quantwise.core.artifact import Candidate
from quantwise.core.errors import QuantwiseError
from quantwise.core.evidence import Fit
from quantwise.plan.preflight import needs, no_room
from quantwise.question import pose
from quantwise.question.propose import SAFEST, parse, stand_in_for
from quantwise.question.request import Request, candidates_of
from quantwise.store import Store


def chosen(request: Request, tell: Callable[[str], None] = lambda line: None) -> Request:
    """The request with a stand-in for every baseline that has no room here and whose rows nobody brought.

    A run folder that has begun keeps to what it compares with, whatever is free now; so it does where a ``--baseline``
    was named. ``tell`` is given a line for each stand-in. Raises InputError for what is damaged, EnvironmentFailure
    where a baseline has no room and nothing can stand in for it.
    """
    begun = _begun(request)
    request = request if begun is None else replace(request, stand_ins=begun)
    fits = pose.fits_here(request)
    if begun is not None or (request.baseline is not None and request.run is not None):
        return request  # the question is frozen there, and may wait for the rows
    candidates = candidates_of(request)
    lacking = [c for c in candidates if c.baseline and fits[c.name].fits == "no"]
    found = {}
    for baseline in lacking:
        able = fits[baseline.name]
        if request.baseline is not None or (safest := _safest(request, baseline, candidates, fits)) is None:
            raise no_room(baseline, able)
        tell(
            f"{baseline.name} {needs(able)}: {safest.name} stands in for it; to compare with {baseline.name} "
            f"itself, give --baseline {baseline.source}@{baseline.runtime} --run RUN, and bring its rows by `quantwise "
            "evidence import`"
        )
        found[baseline.name] = safest.source
    return replace(request, stand_ins=found)


def _begun(request: Request) -> dict[str, str] | None:
    """What the run folder's question compares with, where there is one."""
    # A name that no folder can have is no begun run; the store says what is wrong with it.
    if request.run is None or not all(
        os.path.isfile(request.run / name) for name in ("question.json", "evidence.sqlite")
    ):
        return None
    with Store(request.run) as store:
        return {c.stands_for: c.source for c in store.question().candidates if c.stands_for}


def fits(request: Request) -> dict[str, Fit]:
    """The fit here of everything that would be compared. Raises as `chosen` does."""
    return pose.fits_here(chosen(request))


def _safest(
    request: Request, baseline: Candidate, candidates: tuple[Candidate, ...], fits: dict[str, Fit]
) -> Candidate | None:
    """The stand-in, of what was named and, where recipes can be built, of what is known to be safe."""
    known, more = {c.name for c in candidates}, dict[str, Fit]()
    recipes = SAFEST.get(baseline.runtime, ()) if baseline.source == "16bit" and request.candidates else ()
    extra = []
    for recipe in recipes:
        candidate = replace(parse(f"{recipe}@{baseline.runtime}"), model=baseline.model)
        if candidate.name in known:
            continue
        try:
            text = candidate.name
            more |= pose.fits_here(replace(request, candidates=(*request.candidates, text)))
        except QuantwiseError:
            continue  # neither this model nor this runtime needs to know every recipe
        extra.append(candidate)
    return stand_in_for(baseline, candidates, fits | more, extra)
