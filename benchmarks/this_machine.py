"""One line for the end of every table: the machine and the versions that its figures come from."""

from __future__ import annotations

from quantwise.machine import facts


def line() -> str:
    """Processor, cores, system, and the versions that matter to figures."""
    found = facts()
    machine, versions = found["machine"], found["versions"]
    shown = ("quantwise", "torch", "transformers", "compressed-tensors", "python")
    of = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; {of}"
