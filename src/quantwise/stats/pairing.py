"""From rows to pairs: the unit of every statistic is an item, or the cluster it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from quantwise.core.evidence import ANSWERED, Measurement, Pair


def pairs(
    baseline: Iterable[Measurement], candidate: Iterable[Measurement], *, kindly: bool = False
) -> tuple[list[Pair], int]:
    """Pair rows by item, take the mean over repeats, then over the items of a cluster.

    Also returns in how many pairs a request of either side failed. What was lost might have been anything: it counts as
    the worst case for the candidate (1 for the baseline, 0 for itself), or ``kindly`` as the best, so that what holds
    for both holds whatever it was. Where both sides refused an item they are equal. Items that only one side was asked
    are left out.
    """
    unknown = (0.0, 1.0) if kindly else (1.0, 0.0)
    sides: dict[tuple[str, str], tuple[list[float], list[float], str]] = {}
    refused: dict[tuple[str, str], bool] = {}
    failed: set[str] = set()
    for side, rows in enumerate((baseline, candidate)):
        for row in rows:
            cluster = f"{row.task}/{row.cluster or row.item}"
            value = row.score if row.finish in ANSWERED else None
            item = (row.task, row.item)
            refused[item] = refused.get(item, True) and row.finish == "refused"
            if value is None:
                failed.add(cluster)
                value = unknown[side]
            scores = sides.setdefault(item, ([], [], cluster))
            (scores[0] if side == 0 else scores[1]).append(value)
    clusters: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for item, (base, other, cluster) in sides.items():
        if base and other:
            clusters[cluster].append((0.0, 0.0) if refused[item] else (_mean(base), _mean(other)))
    found = [Pair(c, _mean([b for b, _ in v]), _mean([o for _, o in v])) for c, v in clusters.items()]
    return found, len(failed & set(clusters))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
