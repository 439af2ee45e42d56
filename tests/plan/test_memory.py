from __future__ import annotations

from pathlib import Path

import psutil

from quantwise.plan.memory import available_bytes

MIB = 1 << 20


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine_has_some_memory_and_no_more_than_is_built_in() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total


def test_without_control_groups_the_system_decides(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) > 64 * MIB


def test_version_2_limit(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": f"{60 * MIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{50 * MIB}\n",
            "sys/fs/cgroup/a/memory.stat": f"anon 1\ninactive_file {20 * MIB}\n",
        },
    )
    assert available_bytes(root) == 30 * MIB


def test_version_1_limit_and_the_nearest_group_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/a\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{40 * MIB}\n",
            "sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{30 * MIB}\n",
        },
    )
    assert available_bytes(root) == 10 * MIB


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/123\n",
            "sys/fs/cgroup/memory.max": f"{40 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{50 * MIB}\n",
        },
    )
    assert available_bytes(root) == 0


def test_odd_lines_are_passed_over(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/self/cgroup": "nonsense\n\n0::/\n", "sys/fs/cgroup/memory.max": "many\n"})
    assert available_bytes(root) > 64 * MIB
