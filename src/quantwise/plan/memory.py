"""How much memory this machine can still give: what the system has free, or what a container's limit leaves of it."""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/")
# The kernel writes an absent version-1 limit as a number near 2^63.
_NO_LIMIT = 1 << 60


def available_bytes(root: Path = _ROOT) -> int:
    """Bytes that a new process may take: the least of free memory and of every control group's limit less its use.

    Page cache that the kernel can drop does not count as used. ``root`` is where /proc and /sys lie.
    """
    # Loading it takes longer than a plan of a named site.
    import psutil

    return max(0, min(int(psutil.virtual_memory().available), *_left_in_groups(root)))


def _left_in_groups(root: Path) -> list[int]:
    """Bytes left below each limit, of versions 1 and 2, of this process's control groups and those around them."""
    left = [_NO_LIMIT]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            mount, limit, use = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, use = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):
            most, used = _number(mount / group / limit), _number(mount / group / use)
            if most is not None and used is not None and most < _NO_LIMIT:
                left.append(most - max(0, used - _droppable(mount / group / "memory.stat")))
    return left


def _droppable(stat: Path) -> int:
    for line in _text(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
