"""The machine and the versions that a run was made with, for the record. They are shown, not hashed."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import psutil

from quantwise.scenarios.cpu_name import cpu_name

PACKAGES = ("quantwise", "torch", "transformers", "tokenizers", "compressed-tensors", "gguf", "xllamacpp", "numpy")


def facts() -> dict[str, Any]:
    """``machine`` (cpu, cores, memory in bytes, os) and ``versions`` of what is installed."""
    return {
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "os": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | {p: v for p in PACKAGES if (v := _version(p))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
