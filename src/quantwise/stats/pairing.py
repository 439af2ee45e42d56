"""From rows to pairs: the unit of every statistic is an item, or the cluster it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from quantwise.core.evidence import Measurement, Pair

ANSWERED = ("stop", "length")


def pairs(baseline: Iterable[Measurement], candidate: Iterable[Measurement]) -> tuple[list[Pair], int]:
    """Pair rows by item, take the mean over repeats, then over the items of a cluster.

    Also returns in how many pairs a request of either side failed. A failed request counts 0 for a candidate and, as
    the worst case for it, 1 for the baseline; where both sides failed they are equal. Items that only one side was
    asked are left out.
    """
    sides: dict[tuple[str, str], tuple[list[float], list[float], str]] = {}
    answered: dict[tuple[str, str], list[int]] = {}
    failed: set[str] = set()
    for side, rows in enumerate((baseline, candidate)):
        for row in rows:
            cluster = f"{row.task}/{row.cluster or row.item}"
            value = row.score if row.finish in ANSWERED else None
            answered.setdefault((row.task, row.item), [0, 0])[side] += value is not None
            if value is None:
                failed.add(cluster)
                value = (1.0, 0.0)[side]
            scores = sides.setdefault((row.task, row.item), ([], [], cluster))
            (scores[0] if side == 0 else scores[1]).append(value)
    clusters: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item, (base, other, cluster) in sides.items():
        if base and other:
            lost = not answered[item][0] and not answered[item][1]
            clusters[cluster].append((0.0, 0.0) if lost else (_mean(base), _mean(other)))
    found = [Pair(c, _mean([b for b, _ in v]), _mean([o for _, o in v])) for c, v in clusters.items()]
    return found, len(failed & set(clusters))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
