"""How many requests a runtime takes at a time, whatever memory has room for: a limit of its own, or a default."""

from __future__ import annotations

from quantwise.plan.capacity import Capacity
from quantwise.plan.deployment import Constants, Deployment
from quantwise.plan.llamacpp.settings import MOST_SLOTS


def most_requests(asked: Deployment) -> int | None:
    """Requests that one server can be started for; None where any number goes."""
    return MOST_SLOTS if asked.runtime == "llamacpp" else None


def limit_notes(asked: Deployment, capacity: Capacity | None, constants: Constants) -> tuple[str, ...]:
    """Where that binds before memory does, or needs another setting than the default, a line that says so."""
    if asked.runtime == "vllm":
        most = constants.vllm_on(asked).sequences
        promised = 0 if capacity is None else capacity.promised
        told = max(asked.concurrency, promised)
        if told > most:
            return (f"vLLM computes {most:,} requests at once here by default; for {told:,} start it with "
                    f"--max-num-seqs {told}",)  # fmt: skip
    own = most_requests(asked)
    if own is not None and capacity is not None and capacity.theoretical > own:
        return (f"llama.cpp serves at most {own} requests at a time (LLAMA_MAX_SEQ); memory has room for more, which a "
                "second server could take",)  # fmt: skip
    return ()
