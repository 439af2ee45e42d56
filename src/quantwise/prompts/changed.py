"""Whether a server reads what it read when a run began, and where that cannot be told any more, why."""

from __future__ import annotations

from quantwise.core.prompt_tokens import PromptTokens
from quantwise.prompts.difference import compare
from quantwise.prompts.probes import Told

_ADVICE = "start it as it was then and run the same command again, or decide again into a new --run"


def changed(before: Told, now: Told) -> str | None:
    """One line where a server reads other prompts than ``before``, or tells less of them; None where neither is so.

    Who tells more than before is believed where that agrees with the little that was known.
    """
    differs = compare(before, now).differs
    if differs is not None:
        return f"it reads other prompts than when this run began ('the other' in this line): {differs}; {_ADVICE}"
    for name, prompt in before.items():
        if name in now and _knows(now[name]) < _knows(prompt):
            then, today = _tells(prompt), _tells(now[name])
            return (
                f"it told {then} when this run began and tells {today} now, so whether it still reads the same prompts "
                f"cannot be seen; {_ADVICE}"
            )
    return None


def _knows(prompt: PromptTokens) -> int:
    return 2 if prompt.ids is not None or prompt.refused is not None else int(prompt.count is not None)


def _tells(prompt: PromptTokens) -> str:
    words = ("neither the token ids of its prompts nor their number", "only the number of prompt tokens", "token ids")
    return words[_knows(prompt)] + (f" ({prompt.source})" if prompt.source else "")
