"""Service levels: what a request keeps to be a good one, by the words of ``load --slo``, in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping

from quantwise.core.errors import InputError

_WORDS = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "e2el": "e2e"}
_MOST_MS = 1e9


def service_levels_of(given: object) -> dict[str, float]:
    """Milliseconds by ``ttft``, ``tpot`` and ``e2e``, for which vLLM says ``e2el``.

    Raises InputError for anything else, for unknown words and for a level that is given twice.
    """
    if not isinstance(given, Mapping):
        raise InputError("service_levels must be a table of ttft, tpot, e2e in milliseconds, such as ttft = 500")
    found: dict[str, float] = {}
    for word, level in given.items():
        name = _WORDS.get(word)
        if name is None:
            raise InputError(f"unknown service level {word!r:.40}; levels: {', '.join(_WORDS)}")
        if name in found:
            raise InputError("service_levels gives e2e twice, once as e2el; keep one of the two")
        if not isinstance(level, int | float) or isinstance(level, bool) or not 0 < level < _MOST_MS:
            raise InputError(f"service level {word} must be milliseconds above 0, such as 500, not {level!r:.40}")
        found[name] = float(level)
    return found
