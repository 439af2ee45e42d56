"""How long work tells where it is. The report room draws it; everybody else only calls it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One bar at a time: ``stage`` starts it, ``advance`` moves it."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """Begin a stage of ``total`` steps (None: unknown), of which ``done`` were done by an earlier process."""
        ...

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        """``n`` more steps are done; ``note`` says what is being done now; after ``at_most_s`` seconds the stage
        begins nothing more."""
        ...


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int | None, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, n: int = 1, note: str = "", at_most_s: float | None = None) -> None:
        """Say nothing."""
