"""How long a server takes for a decoding step and for a prompt, as a simulation counts it."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.plan.request_trace import SECOND


@dataclass(frozen=True, slots=True)
class ServerPace:
    """How fast the server is. A prompt takes ``prefill_s`` seconds a token, a decoding step ``step_s`` seconds and
    ``request_s`` more for each running request.
    """

    step_s: float
    request_s: float = 0.0
    prefill_s: float = 0.0

    def step(self, running: int) -> int:
        """Nanoseconds of one decoding step, at least 1."""
        return max(1, round((self.step_s + running * self.request_s) * SECOND))

    def prefill(self, tokens: int) -> int:
        """Nanoseconds of a prompt's ``tokens``."""
        return round(tokens * self.prefill_s * SECOND)

    def duration(self, prompt: float, output: float, running: int) -> float:
        """Seconds that a request takes where ``running`` are answered at a time, itself included.

        While it decodes each of the others is replaced once, and every new prompt stops all.
        """
        return running * prompt * self.prefill_s + output * (self.step_s + running * self.request_s)
