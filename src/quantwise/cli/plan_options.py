"""Which options of ``quantwise plan`` go together: one that would change nothing is refused, in a line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from quantwise.core.errors import InputError

_TRAINING = ("sequence", "batch", "rank", "targets", "precision", "optimizer", "checkpointing")
_SERVING = ("context", "concurrency", "runtime", "scheme", "cache", "ubatch", "gpu_layers", "experts_on_cpu", "open")
_LLAMACPP = ("gpu_layers", "experts_on_cpu", "ubatch")
_RANKED = {"rank": ("lora", "qlora", "dora", "adapter"), "targets": ("lora", "qlora", "dora")}


def refuse_idle(arguments: argparse.Namespace) -> None:
    """Raise InputError for the first option that this plan would not read."""
    for name in ("gpu_layers", "experts_on_cpu"):
        if (getattr(arguments, name) or 0) < 0:
            raise InputError(f"{_flag(name)} must be 0 or more, not {getattr(arguments, name)}")
    if arguments.train is None:
        for name in _given(arguments, _TRAINING):
            raise InputError(f"{_flag(name)} is of training; give --train METHOD with it, or leave it away")
    else:
        _check_training(arguments)
    runtime = arguments.runtime or "llamacpp"
    if runtime != "llamacpp":
        for name in _given(arguments, _LLAMACPP):
            raise InputError(f"{_flag(name)} is of llama.cpp, not of {runtime}; leave it away, or take "
                             "--runtime llamacpp")  # fmt: skip
    if arguments.refit is not None and len(arguments.models) > 1:
        raise InputError(f"a start-up log is of one model, not of {len(arguments.models)}; name one beside --refit")


def _check_training(arguments: argparse.Namespace) -> None:
    if arguments.refit is not None:
        raise InputError("--refit reads the log of a server, which does not train; leave it or --train away")
    if len(arguments.models) > 1:
        raise InputError(f"training is planned for one model, not {len(arguments.models)}; name one beside --train")
    for name in _given(arguments, _SERVING):
        raise InputError(f"{_flag(name)} is of serving; leave it or --train away (training has --sequence, --batch, "
                         "--precision)")  # fmt: skip
    for name in _given(arguments, _RANKED):
        if arguments.train not in _RANKED[name]:
            raise InputError(f"{_flag(name)} is of {', '.join(_RANKED[name])}, not of {arguments.train}; "
                             "leave it away")  # fmt: skip


def _given(arguments: argparse.Namespace, names: Iterable[str]) -> list[str]:
    return [name for name in names if getattr(arguments, name) not in (None, False, [])]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
