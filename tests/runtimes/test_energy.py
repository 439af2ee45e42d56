"""Energy from counters and power as Linux and nvidia-smi tell them, stood in for by files and a program."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from quantwise.runtimes import energy
from quantwise.runtimes.energy import meter, meter_of


def zone(root: Path, name: str, microjoules: int, called: str = "package-0") -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{called}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text("9999999\n")
    return folder


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def smi(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)


def test_packages_are_added_up_and_a_wrapped_counter_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", 9_000_000)
    zone(tmp_path, "intel-rapl:0:0", 500)  # a part of package 0
    with meter(tmp_path) as used:
        zone(tmp_path, "intel-rapl:0", 4_000_000)
        zone(tmp_path, "intel-rapl:1", 1_000_000)
        zone(tmp_path, "intel-rapl:0:0", 900_000)
    assert used.cpu == pytest.approx(3 + 2)
    assert used.gpu is None


def test_the_zone_of_the_whole_board_is_no_package(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", 1_000_000, "package-0-die-0")
    zone(tmp_path, "intel-rapl:1", 1_000_000, "psys")
    with meter(tmp_path) as used:
        zone(tmp_path, "intel-rapl:0", 4_000_000, "package-0-die-0")
        zone(tmp_path, "intel-rapl:1", 9_000_000, "psys")
    assert used.cpu == pytest.approx(3)


@pytest.mark.parametrize(
    ("url", "joules"),
    [
        ("http://localhost:8080", 2.0),
        ("http://127.0.0.1:8080#model", 2.0),
        ("http://[::1]:8080/v1", 2.0),
        ("http://10.0.0.7:8080", None),
        ("https://localhost.example.org", None),
    ],
)
def test_a_server_is_metered_where_it_is_on_this_machine(
    url: str, joules: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    with meter_of(url) as used:
        zone(tmp_path, "intel-rapl:0", 3_000_000)
    assert (used.cpu, used.gpu) == (joules, None)


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    with meter(tmp_path / "nothing") as used:
        pass
    assert (used.cpu, used.gpu) == (None, None)
    zone(tmp_path, "intel-rapl:0", 1)
    (zone(tmp_path, "intel-rapl:1", 1) / "energy_uj").write_text("?")
    with meter(tmp_path) as used:
        pass
    assert used.cpu is None


def test_the_power_of_gpus_is_summed_over_time(tmp_path: Path, no_gpu: Path) -> None:
    smi(no_gpu, "while :; do echo '0, 100.00'; echo '1, 50.00'; echo '2, [N/A]'; /bin/sleep 0.05; done")
    start = time.monotonic()
    with meter(tmp_path / "nothing") as used:
        time.sleep(0.6)
    most = 150 * (time.monotonic() - start)
    assert used.gpu is not None
    assert 0.5 * 150 * 0.6 < used.gpu <= most


def test_power_before_the_first_reading_and_after_the_last_is_counted(tmp_path: Path, no_gpu: Path) -> None:
    smi(no_gpu, "/bin/sleep 0.4; echo '0, 100.00'; exec /bin/sleep 60")
    with meter(tmp_path / "nothing") as used:
        start = time.monotonic()
        time.sleep(1.2)
        least = 100 * (time.monotonic() - start)
    assert used.gpu is not None
    assert least <= used.gpu < least + 100 * (time.monotonic() - start)


def test_without_a_reading_for_long_the_energy_is_unknown(
    tmp_path: Path, no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_LONGEST_GAP_S", 0.3)
    smi(no_gpu, "echo '0, 100.00'; exec /bin/sleep 60")
    with meter(tmp_path / "nothing") as used:
        time.sleep(1.0)
    assert used.gpu is None


def test_a_program_that_does_not_end_holds_nothing_up(
    tmp_path: Path, no_gpu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "_END_S", 0.3)
    smi(no_gpu, f"echo $$ > {tmp_path}/id; trap '' TERM; while :; do echo '0, 100.00'; /bin/sleep 0.05; done")
    with meter(tmp_path / "nothing") as used:
        time.sleep(0.5)
        ended = time.monotonic()
    assert time.monotonic() - ended < 30
    assert used.gpu is not None
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "id").read_text()), 0)
