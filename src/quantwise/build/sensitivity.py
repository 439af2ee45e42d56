"""What each type would cost each tensor in divergence: one real measurement a tensor, carried over to its other types.

Near the 16-bit model the divergence is quadratic in a layer's output error, so for one tensor the ratio of the two is
about the same for every type, while it differs between tensors by two orders of magnitude. The output error
tr(E H E^T) of a rounding error E is cheap where the Hessian H of the inputs is at hand; its ratio to the divergence
is measured once, with the tensor in one type (``probe``) and all else in 16 bit. Experts that a file holds in one
tensor have one type, so their errors are summed, each over the tokens that reached it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from quantwise.build.allocate import Choices, Option, allocate
from quantwise.build.watch import Watch
from quantwise.core.errors import InputError

# Of the types tried, the one whose divergence is measured: large enough to stand above float32's rounding, small
# enough to be quadratic.
PROBE = "q3_k"


@dataclass(frozen=True, slots=True)
class Rounding:
    """One tensor in one type: its ``bytes``, and its ``error`` as ``output_error`` gives it."""

    bytes: int
    error: float


@dataclass(frozen=True, slots=True)
class Probe:
    """One tensor, and the ``values`` that it has in one ``kind``: those of its parameters, (out, in) by full name."""

    tensor: str
    kind: str
    values: Mapping[str, Tensor]


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor) -> float:
    """Squared error of a layer's output, summed over its channels and the tokens it saw: tr(E H E^T).

    ``weight`` and ``rounded`` are (out, in), ``hessian`` is the (in, in) sum of x x^T over those tokens.
    """
    error = (rounded - weight).double()
    return float(((error @ hessian.double()) * error).sum())


def sensitivities(
    watched: Watch,
    roundings: Mapping[str, Mapping[str, Rounding]],
    probes: Iterable[Probe],
    report: Callable[[int, int], None] | None = None,
) -> Choices:
    """For each tensor and type, bytes and the divergence expected of it alone, ready for ``allocate``.

    ``roundings`` are by tensor and type; each tensor has one probe in one of its types, read one at a time. ``report``
    is told (probes measured, in all). Raises InputError where a tensor has no probe or its divergence is no number.
    """
    factors: dict[str, float] = {}
    for done, probe in enumerate(probes):
        error = roundings[probe.tensor][probe.kind].error
        found = watched.divergence(probe.values)
        # A tensor that no text reaches costs nothing in any type.
        factors[probe.tensor] = max(found, 0.0) / error if error > 0 else 0.0
        if report:
            report(done + 1, len(roundings))
    if missing := sorted(roundings.keys() - factors.keys()):
        raise InputError(f"no divergence was measured for {missing[0]}; probe every tensor that has a choice")
    return {
        tensor: {kind: Option(r.bytes, factors[tensor] * r.error) for kind, r in kinds.items()}
        for tensor, kinds in roundings.items()
    }


@dataclass(frozen=True, slots=True)
class Mix:
    """A choice of types: ``expected`` is the sum of its single divergences, ``measured`` that of all together."""

    kinds: Mapping[str, str]
    bytes: int
    expected: float
    measured: float


def compare(
    watched: Watch,
    choices: Choices,
    budget: int,
    values: Callable[[str, str], Mapping[str, Tensor]],
    fixed: Mapping[str, Mapping[str, str]],
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Mix]:
    """Mixes within ``budget`` bytes by name, each measured as a whole, because single divergences do not add up.

    ``auto`` is the choice of ``allocate``; the mixes of ``fixed`` (such as that of ``q4_k_m``) join it where they hold
    to the budget and to ``choices``. ``values`` gives the parameters of a tensor in a type; ``report`` is told (mixes
    measured, in all). Raises InputError where the budget is too small.
    """
    candidates: dict[str, Mapping[str, str]] = {"auto": allocate(choices, budget)}
    for name, kinds in fixed.items():
        known = kinds.keys() == choices.keys() and all(kind in choices[tensor] for tensor, kind in kinds.items())
        if known and _bytes(choices, kinds) <= budget and kinds not in candidates.values():
            candidates[name] = dict(kinds)
    mixes: dict[str, Mix] = {}
    for name, kinds in candidates.items():
        replaced = {name: value for tensor, kind in kinds.items() for name, value in values(tensor, kind).items()}
        measured = watched.divergence(replaced)
        expected = sum(choices[tensor][kind].loss for tensor, kind in kinds.items())
        mixes[name] = Mix(kinds, _bytes(choices, kinds), expected, measured)
        if report:
            report(len(mixes), len(candidates))
    return mixes


def best(mixes: Mapping[str, Mix]) -> str:
    """The name of the mix with the least measured divergence; of equals, the smaller, then the first."""
    return min(mixes, key=lambda name: (mixes[name].measured, mixes[name].bytes))


def _bytes(choices: Choices, kinds: Mapping[str, str]) -> int:
    return sum(choices[tensor][kind].bytes for tensor, kind in kinds.items())
