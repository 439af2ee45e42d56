"""The runtimes, written out. Looking one up imports only that one."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from quantwise.core.errors import InputError
from quantwise.core.runtime import Runtime

_WHERE = {
    "transformers": ("quantwise.runtimes.transformers", "Transformers"),
    "llamacpp": ("quantwise.runtimes.llamacpp", "LlamaCpp"),
    "vllm": ("quantwise.runtimes.vllm", "Vllm"),
    "openai": ("quantwise.runtimes.openai", "OpenAI"),
}


def runtimes() -> tuple[str, ...]:
    """The names that may stand after ``@`` in a candidate."""
    return tuple(_WHERE)


def runtime_named(name: str) -> Runtime:
    """The runtime of that name. Raises InputError listing the choices."""
    if name not in _WHERE:
        raise InputError(f"unknown runtime {name!r}; choose from {', '.join(_WHERE)}")
    module, cls = _WHERE[name]
    return cast(Runtime, getattr(import_module(module), cls)())
