from __future__ import annotations

import platform
from pathlib import Path

from quantwise.scenarios.cpu_name import cpu_name


def test_the_name_is_what_linux_says(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A Processor @ 2.0 GHz\nmodel name\t: another\n")
    assert cpu_name(info) == "A Processor @ 2.0 GHz"
    info.write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    assert cpu_name(info) == cpu_name(tmp_path / "none") == (platform.processor() or platform.machine())
