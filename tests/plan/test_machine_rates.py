from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from speed_decoders import llama, mixture, served_of

from quantwise.core.errors import EnvironmentFailure, InputError
from quantwise.plan import measure_machine as measuring
from quantwise.plan.ggml_products import Ggml, run_times
from quantwise.plan.machine_rates import (
    AttentionKernel,
    Kernel,
    MachineRates,
    decode_time,
    found_in_cache,
    rates_of,
    rates_path,
    read_by_type,
    read_rates,
    waiting_now,
)
from quantwise.plan.measure_machine import cores, keep_rates, measure_machine
from quantwise.plan.probe import matrix, memory, middle, undisturbed
from quantwise.plan.speed import speed

MACHINE = MachineRates(
    cpu="a processor",
    threads=2,
    measured="2026-11-21",
    bandwidth=20e9,
    rates={"fp32": 1e11, "int8": 2e12},
    kernels={"f16": Kernel(20e9, 10e9, 5e10), "q4_k": Kernel(16e9, 8e9, 9e10)},
    cached=((8e6, 1.0), (24e6, 0.5), (64e6, 0.0)),
    attention={"f16": AttentionKernel(4e-9, 1e-10, 2e-10), "q8_0": AttentionKernel(8e-9, 2e-10, 1e-10)},
    node_seconds=1e-6,
    library="xllamacpp 1",
)


def test_a_token_by_hand() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    told = decode_time(MACHINE, decoder, {"f16": 4e6, "q4_k": 2e6}, 10)
    assert told is not None
    assert told.matrices == pytest.approx(4e6 / 20e9 + 2e6 / 16e9)
    assert told.nodes == pytest.approx((2 * 19 + 5) * 1e-6)
    assert told.attention == pytest.approx(2 * 4 * 10 * (4e-9 + 128 * 1e-10))
    assert told.token == pytest.approx(0.2e-3 + 1000 * 2e-9)
    assert told.seconds == pytest.approx(told.matrices + told.nodes + told.attention + told.token)
    assert told.interval[0] < told.seconds < told.interval[1]
    assert "xllamacpp 1 measured on a processor" in told.source


def test_attention_over_a_cache_that_comes_from_memory() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    long = decode_time(MACHINE, decoder, {"f16": 100e6}, 1000)
    assert long is not None
    kept = 2 * 2 * 128 * 1000 * 2
    assert long.attention == pytest.approx(2 * 4 * 1000 * (4e-9 + 128 * 1e-10) + kept * 2e-10)
    mixed = decode_time(MACHINE, decoder, {"f16": 100e6}, 1000, "q8_0/f16")
    assert mixed is not None
    size = kept * (8.5 + 16) / 32
    assert mixed.attention == pytest.approx(2 * 4 * 1000 * (6e-9 + 128 * 1.5e-10) + size * 1.5e-10)
    assert decode_time(MACHINE, decoder, {"f16": 100e6}, 1000, "q4_0") is None


def test_what_exceeds_the_cache_streams() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    large = decode_time(MACHINE, decoder, {"f16": 100e6}, 0)
    assert large is not None
    assert large.matrices == pytest.approx(100e6 / 10e9)
    edge = decode_time(MACHINE, decoder, {"f16": 24e6}, 0)
    assert edge is not None
    assert edge.matrices == pytest.approx(24e6 * (0.5 / 20e9 + 0.5 / 10e9))
    # Where a model just fits, the interval is wider than elsewhere.
    assert edge.interval[1] / edge.interval[0] > large.interval[1] / large.interval[0]


@pytest.mark.parametrize(
    ("size", "share"), [(0, 1.0), (4e6, 1.0), (8e6, 1.0), (16e6, 0.75), (24e6, 0.5), (44e6, 0.25), (64e6, 0), (1e9, 0)]
)
def test_the_share_found_in_the_cache(size: float, share: float) -> None:
    assert found_in_cache(MACHINE, size) == pytest.approx(share)
    assert found_in_cache(replace(MACHINE, cached=()), size) == 0


def test_a_type_that_was_not_measured_is_as_fast_as_its_neighbour() -> None:
    decoder = llama(2, 256, 4, 2, 512, 1000)
    five, four = (decode_time(MACHINE, decoder, {kind: 1e6}, 0) for kind in ("q5_k", "q4_k"))
    assert five == four


def test_unknown_without_llama_cpp() -> None:
    bare = replace(MACHINE, kernels={}, node_seconds=None, cached=(), attention={})
    assert decode_time(bare, llama(2, 256, 4, 2, 512, 1000), {"f16": 1e6}, 0) is None


def test_what_a_token_reads_of_a_file() -> None:
    decoder = mixture(8, 2)
    listed = [(name, "q4_k" if len(shape) > 1 else "f32", 800) for name, shape in decoder.tensors.items()]
    read = read_by_type(decoder, listed)
    experts = 2 * 8 * 3
    dense = sum(len(shape) > 1 for shape in decoder.tensors.values()) - experts - 1
    assert read == {"q4_k": pytest.approx(800 * (dense + experts / 4))}


def test_the_record_goes_to_disk_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "machine.json"
    assert read_rates(path) is None
    keep_rates(MACHINE, path)
    assert read_rates(path) == MACHINE


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("", None, None), ("", " ", None), ("PASSIVE", "passive", None),
        ("PASSIVE", None, "measured with OMP_WAIT_POLICY PASSIVE, and it is unset now; measure again with --measure-m"),
        ("", "PASSIVE", "measured with OMP_WAIT_POLICY unset, and it is PASSIVE now; measure again with --measure-m"),
        (None, None, "(OMP_WAIT_POLICY) when this machine was measured is not known; measure again with --measure-m"),
    ],
)  # fmt: skip
def test_several_threads_that_wait_in_another_way_are_measured_again(
    then: str | None, now: str | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if now is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", now)
    told = rates_of(json.loads(json.dumps(replace(MACHINE, waiting=then).to_json()))).outdated()
    assert told == said if said is None else told is not None and said in told
    # One thread waits for nobody.
    assert replace(MACHINE, waiting=then, threads=1).outdated() is None


def test_a_record_from_before_waiting_was_kept_does_not_know_it() -> None:
    old = {name: value for name, value in MACHINE.to_json().items() if name != "waiting"}
    assert rates_of(json.loads(json.dumps(old))).waiting is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kernels": 3}', "\x00"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(InputError, match="--measure-machine"):
        read_rates(path)


@pytest.mark.parametrize("change", [{"bandwidth": -1}, {"bandwidth": "x"}, {"rates": {"fp32": 0}}, {"speed": 1}])
def test_a_record_of_impossible_figures_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="measure again"):
        rates_of(json.loads(json.dumps(MACHINE.to_json() | change)))


def test_a_measured_machine_is_a_site() -> None:
    site = MACHINE.site(8 << 30)
    assert (site.bandwidth, site.memory_bytes, site.kind) == (20e9, 8 << 30, "cpu")
    assert site.source_of("bandwidth") == "measured here, 2026-11-21"
    told = speed(site, served_of(llama(2, 256, 4, 2, 512, 1000), 10**6, "int8", 10))
    assert told.prefill is not None


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert rates_path() == tmp_path / "quantwise" / "machine.json"
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFailure, match="not kept"):
        keep_rates(MACHINE, tmp_path / "file" / "machine.json")


def test_most_tries_may_be_disturbed() -> None:
    times = np.array([1.0] * 10 + [50.0] * 90)
    assert undisturbed(times) == 1.0


class Slow:
    """Stands for ggml: each graph is the number of seconds that it takes, by a clock of its own."""

    def __init__(self) -> None:
        self.now, self.backend = 0.0, None

    def clock(self) -> float:
        return self.now

    def __call__(self, name: str, backend: None, graph: float) -> None:
        self.now += graph


def test_a_turn_is_as_long_as_all_its_products() -> None:
    """Nine quick products and a slow one: a token takes the sum of them, however rare the slow one is."""
    tries = run_times(cast(Ggml, Slow()), [0.001] * 9 + [0.011], 0.0)
    assert len(tries) == 3
    assert tries == pytest.approx([0.002] * 3)
    # What is over at once is done again until the clock's ticks are in a try.
    slow = Slow()
    assert run_times(cast(Ggml, slow), [0.0005], 0.0) == pytest.approx([0.0005] * 3)
    assert slow.now >= 3 * 0.012


def test_no_lucky_turn_counts() -> None:
    assert middle(np.array([1.0, 5.0, 5.0, 6.0, 9.0])) == 5.0


def test_memory_and_matrices_are_measured() -> None:
    assert 1e8 < memory(0.05, 2)["bandwidth"] < 1e13
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "from quantwise.plan.probe import matrix; print(sorted(matrix(0.05, 1)['rates']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fp32']"
    assert matrix.__doc__


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs llama.cpp")
def test_kernels_of_the_installed_llama_cpp() -> None:
    code = "from quantwise.plan.ggml_products import placed\n" + (
        "for kind in ('f16', 'q4_k', 'q8_0'):\n"
        "    with placed(1, kind, (256, 512), 4) as p:\n"
        "        times = p.times(p.graphs(4, 2), 0.01)\n"
        "        print(kind, p.bytes, len(p.graphs(4, 2)), (times > 0).all())\n"
        "from quantwise.plan.ggml_attention import attention_times\n"
        "for kind in ('f16', 'q8_0'):\n    print(kind, (attention_times(1, kind, 64, 2, 0.01) > 0).all())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-5:] == [
        "f16 262144 2 True", "q4_k 73728 2 True", "q8_0 139264 2 True", "f16 True", "q8_0 True",
    ]  # fmt: skip


def test_a_part_that_crashes_costs_that_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = measuring._probe

    def probe(part: str, seconds: float, threads: int) -> dict[str, object]:
        if part == "memory":
            return {"bandwidth": 1e10}
        return {"why": "the process that measures it failed"}

    told: list[str] = []
    monkeypatch.setattr(measuring, "_probe", probe)
    found = measure_machine(0.1, tell=told.append)
    assert (found.bandwidth, found.rates, found.kernels, found.library) == (1e10, {}, {}, None)
    assert [line.split()[0] for line in told] == ["matrix", "kernels", "attention"]
    assert (found.threads, found.waiting) == (cores(), waiting_now())
    monkeypatch.setattr(measuring, "_probe", lambda *_: {"why": "it took too long"})
    with pytest.raises(EnvironmentFailure, match="it took too long"):
        measure_machine(0.1)
    monkeypatch.setattr(measuring, "_probe", real)
    assert "why" in measuring._probe("nothing", 0.1, 1)


@pytest.mark.long
def test_the_whole_measurement() -> None:
    found = measure_machine(2.0)
    assert rates_of(json.loads(json.dumps(found.to_json()))) == found
    assert found.rates["fp32"] > 1e9
    if found.kernels:
        assert found.node_seconds is not None
        assert all(kernel.cached > 0.5 * kernel.streamed for kernel in found.kernels.values())
        assert set(found.attention) == {"f16", "q8_0", "q4_0"}
        shares = [share for _, share in found.cached]
        assert shares == sorted(shares, reverse=True)
