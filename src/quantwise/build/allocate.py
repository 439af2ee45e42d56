"""Bits where they are worth most: one type for each tensor, the least summed loss under a budget of bytes.

The multiple-choice knapsack problem (Kellerer, Pferschy, Pisinger 2004, "Knapsack Problems", chapter 11). Sizes of
tensors share a large common divisor, so that dynamic programming over bytes is exact and fast for ordinary models;
beyond ``MOST_CELLS`` it is the Lagrangian's choice (the convex hull, steepest steps first) repaired by local search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from quantwise.core.errors import InputError

# Cells of the exact table, one byte each: tensors times distinct budgets.
MOST_CELLS = 200_000_000
# Single changes among which pairs are looked for; with more tensors, each is too small a part to matter.
_MOST_PAIRED = 4_000


@dataclass(frozen=True, slots=True)
class Option:
    """What storing a tensor in one type takes in bytes, and costs in loss."""

    bytes: int
    loss: float


Choices = Mapping[str, Mapping[str, Option]]


def allocate(choices: Choices, budget: int, *, most_cells: int = MOST_CELLS) -> dict[str, str]:
    """One type for each tensor of ``choices`` (tensor to type to option), at most ``budget`` bytes together.

    Of equal losses the choice with fewer bytes wins. Pure: equal arguments give equal choices. Raises InputError for a
    tensor without options, a loss that is no number, or a budget below the smallest choice, which it names.
    """
    for tensor, options in choices.items():
        if not options:
            raise InputError(f"tensor {tensor!r} has no type to choose from; give at least one")
        for kind, option in options.items():
            if not math.isfinite(option.loss) or option.bytes < 0:
                raise InputError(f"{tensor!r} in {kind} has loss {option.loss} and {option.bytes} bytes; measure again")
    useful = [_undominated(options) for options in choices.values()]
    smallest = sum(options[0][1].bytes for options in useful)
    if budget < smallest:
        raise InputError(f"a budget of {budget} bytes is too small; the smallest choice takes {smallest} bytes")
    # Above the smallest choice, in units of what all steps share.
    above = [[option.bytes - options[0][1].bytes for _, option in options] for options in useful]
    unit = math.gcd(*(step for steps in above for step in steps)) or 1
    room = min((budget - smallest) // unit, sum(steps[-1] for steps in above) // unit)
    losses = [[option.loss for _, option in options] for options in useful]
    sizes = [[step // unit for step in steps] for steps in above]
    exact = len(useful) * (room + 1) <= most_cells
    picked = _by_table(sizes, losses, room) if exact else _by_slopes(sizes, losses, room)
    return {tensor: options[i][0] for tensor, options, i in zip(choices, useful, picked, strict=True)}


def _undominated(options: Mapping[str, Option]) -> list[tuple[str, Option]]:
    """Options by rising bytes and falling loss: those that no other beats in both."""
    kept: list[tuple[str, Option]] = []
    for kind, option in sorted(options.items(), key=lambda item: (item[1].bytes, item[1].loss, item[0])):
        if not kept or option.loss < kept[-1][1].loss:
            kept.append((kind, option))
    return kept


def _by_table(sizes: list[list[int]], losses: list[list[float]], room: int) -> list[int]:
    """Exact: ``best[b]`` is the least loss of the tensors so far with exactly ``b`` units above the smallest."""
    best = np.full(room + 1, np.inf)
    best[0] = 0.0
    chosen = np.zeros((len(sizes), room + 1), np.uint8)
    for row, (steps, costs) in enumerate(zip(sizes, losses, strict=True)):
        found = np.full(room + 1, np.inf)
        for i, (step, cost) in enumerate(zip(steps, costs, strict=True)):
            if step > room:
                break
            with_it = best[: room + 1 - step] + cost
            better = with_it < found[step:]
            found[step:][better] = with_it[better]
            chosen[row, step:][better] = i
        best = found
    at = int(best.argmin())
    picked = [0] * len(sizes)
    for row in reversed(range(len(sizes))):
        picked[row] = int(chosen[row, at])
        at -= sizes[row][picked[row]]
    return picked


def _by_slopes(sizes: list[list[int]], losses: list[list[float]], room: int) -> list[int]:
    """Climb each tensor's lower convex hull, the most loss saved per byte first, as far as the room reaches; then
    repair.
    """
    steps: list[tuple[float, int, int, int]] = []
    for row, (size, loss) in enumerate(zip(sizes, losses, strict=True)):
        hull = _hull(size, loss)
        for low, high in pairwise(hull):
            steps.append(((loss[high] - loss[low]) / (size[high] - size[low]), row, low, high))
    picked, left = [0] * len(sizes), room
    for _, row, low, high in sorted(steps):
        taken = sizes[row][high] - sizes[row][low]
        if picked[row] == low and taken <= left:
            picked[row], left = high, left - taken
    return _repaired(sizes, losses, picked, left)


def _hull(size: list[int], loss: list[float]) -> list[int]:
    """Indices of the lower convex hull of (size, loss), sizes rising."""
    hull: list[int] = []
    for i in range(len(size)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (loss[b] - loss[a]) * (size[i] - size[a]) < (loss[i] - loss[a]) * (size[b] - size[a]):
                break
            hull.pop()
        hull.append(i)
    return hull


def _repaired(sizes: list[list[int]], losses: list[list[float]], picked: list[int], left: int) -> list[int]:
    """Change one tensor, or two at once, while that lowers the loss within the room."""
    while True:
        moves = [
            (sizes[row][i] - sizes[row][now], losses[row][i] - losses[row][now], row, i)
            for row, now in enumerate(picked)
            for i in range(len(sizes[row]))
            if i != now
        ]
        best = _best_change(moves, left)
        if best is None:
            return picked
        for taken, _, row, i in best:
            picked[row] = i
            left -= taken


_Move = tuple[int, float, int, int]


def _best_change(moves: list[_Move], left: int) -> tuple[_Move, ...] | None:
    """The move, or pair of moves of two tensors, that saves most loss within ``left`` units; None where none saves."""
    taken = np.array([move[0] for move in moves])
    saved = np.array([move[1] for move in moves])
    rows = np.array([move[2] for move in moves])
    # Sums of losses carry rounding: a saving within it could be taken back and forth forever.
    least = -1e-12 * float(np.abs(saved).max(initial=0.0))
    best: tuple[_Move, ...] | None = None
    for i, move in enumerate(moves):
        if move[0] <= left and move[1] < least:
            least, best = move[1], (move,)
        if len(moves) > _MOST_PAIRED:
            continue
        fits = np.where((taken <= left - move[0]) & (rows != move[2]), saved, np.inf)
        j = int(fits.argmin())
        if fits[j] + move[1] < least:
            least, best = float(fits[j] + move[1]), (moves[i], moves[j])
    return best
