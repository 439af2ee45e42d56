"""A model that a GPU holds in part: what is left to the host, how fast that is, and how much may be on the GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantwise import planning
from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.plan.deployment import Deployment
from quantwise.plan.fit import size
from quantwise.plan.machine_rates import MachineRates, waiting_now
from quantwise.plan.measure_machine import keep_rates
from quantwise.plan.model import find_model
from quantwise.planning import PlanRequest, plan
from quantwise.scenarios.sites import sites

GIB = 1 << 30


@pytest.fixture(autouse=True)
def rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a measured machine would lie: nowhere, unless a test puts one there."""
    path = tmp_path / "rates.json"
    monkeypatch.setattr(planning, "rates_path", lambda: path)
    return path


def planned(model: str = "llama-3.1-70b", scheme: str = "q4_k_m", **asked: Any) -> dict[str, Any]:
    return plan(PlanRequest(models=(model,), schemes=(scheme,), **{"site": "rtx-4090", **asked}))


def test_without_a_host_the_speed_is_unknown_and_says_how_to_tell_it() -> None:
    found = planned(gpu_layers=40)
    assert found["decode_tokens_per_s"] is None
    assert found["prefill_tokens_per_s"] is None
    assert found["cost"]["decode_dollars_per_million_tokens"] is None
    assert "--host" in found["notes"][-1]
    assert found["host"]["name"] is None


def test_a_host_slows_by_what_it_reads() -> None:
    found = planned(gpu_layers=40, host="x86-avx512")
    # 41 of 80 layers of 42.5 GB lie with it; at most 0.9 of its bandwidth is reached.
    bandwidth = sites()["x86-avx512"].bandwidth
    assert bandwidth
    at_most = 0.9 * bandwidth / (41 / 80 * 0.97 * found["weights_effective_bytes"])
    assert 0.5 * at_most < found["decode_tokens_per_s"][1] < at_most
    assert found["decode_bound_by"] == "bytes on the host"
    assert found["host"]["layers"] == 41
    more = planned(gpu_layers=50, host="x86-avx512")
    assert more["decode_tokens_per_s"][1] > found["decode_tokens_per_s"][1]


def test_experts_with_the_host_cost_less_than_layers_do() -> None:
    asked: dict[str, Any] = {"model": "qwen3-30b-a3b", "scheme": "q8_0", "host": "x86-avx512"}
    experts, layers = planned(**asked, experts_on_cpu=24), planned(**asked, gpu_layers=25)
    assert (experts["host"]["layers"], experts["host"]["layers_of_experts"]) == (0, 24)
    assert (layers["host"]["layers"], layers["host"]["layers_of_experts"]) == (24, 0)
    assert experts["decode_tokens_per_s"][1] > layers["decode_tokens_per_s"][1]
    both = planned(**asked, gpu_layers=25, experts_on_cpu=30)
    assert (both["host"]["layers"], both["host"]["layers_of_experts"]) == (24, 6)
    assert both["decode_tokens_per_s"][1] < layers["decode_tokens_per_s"][1]


def test_everything_on_the_gpu_needs_no_host() -> None:
    whole = planned("llama-3.1-8b")
    assert planned("llama-3.1-8b", gpu_layers=33)["decode_tokens_per_s"] == whole["decode_tokens_per_s"]
    assert whole["host"] is None


def test_this_machine_is_the_host_where_it_was_measured(rates: Path) -> None:
    asked = {"fp32": 1e11, "int8": 2e11}
    machine = MachineRates(cpu="x", threads=2, measured="2026-11-21", bandwidth=2e10, rates=asked, kernels={})
    keep_rates(machine, rates)
    found = planned(gpu_layers=40)
    assert found["host"]["name"] == "this machine"
    assert found["decode_tokens_per_s"][1] < 2e10 / (0.4 * found["weights_effective_bytes"])
    # Nobody knows how its threads waited then; a host that is named is another machine.
    assert "measure again with --measure-machine" in found["notes"][-1]
    assert "measure again with --measure-machine" in planned("llama-3.1-8b", site=None)["notes"][-1]
    assert not any("measure again" in note for note in planned(gpu_layers=40, host="x86-avx512")["notes"])
    keep_rates(replace(machine, waiting=waiting_now()), rates)
    assert not any("measure again" in note for note in planned(gpu_layers=40)["notes"])


def test_requests_have_room_by_what_they_keep_on_the_gpu() -> None:
    half = planned(gpu_layers=40, host="x86-avx512")
    scratch = half["compute_bytes"][1] + half["overhead_bytes"]
    room = half["limit_bytes"] - half["weights_bytes"] - scratch
    assert half["concurrency"]["theoretical"] == room // half["kv_cache_bytes"]


@pytest.mark.parametrize(("model", "scheme"), [("llama-3.1-70b", "q4_k_m"), ("qwen3-30b-a3b", "q8_0")])
def test_the_most_that_fits_fits_and_one_more_does_not(model: str, scheme: str) -> None:
    found = planned(model, scheme, host="lab-server")
    assert found["fits"] == "no"
    most = found["most_on_gpu"]
    assert most == planned(model, scheme)["most_on_gpu"]
    assert planned(model, scheme, gpu_layers=most["gpu_layers"], host="lab-server")["fits"] == "yes"
    assert planned(model, scheme, gpu_layers=most["gpu_layers"] + 1, host="lab-server")["fits"] != "yes"
    if (least := most["experts_on_cpu"]) is not None:
        assert planned(model, scheme, experts_on_cpu=least, host="lab-server")["fits"] == "yes"
        assert planned(model, scheme, experts_on_cpu=least - 1, host="lab-server")["fits"] != "yes"
    assert (most["experts_on_cpu"] is None) == (model == "llama-3.1-70b")


def test_a_host_that_is_too_small_is_told(tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text('name = "small"\nkind = "cpu"\nmemory_bytes = 16000000000\nbandwidth = 4e10\n')
    found = planned(gpu_layers=40, host=str(small))
    assert any("host's part does not fit" in note for note in found["notes"])
    assert found["fits"] == "no"
    (last,) = (fix for fix in found["fixes"] if fix["kind"] == "site")
    room = {change["knob"]: change["value"] for change in last["changes"]}["host"]
    assert planned(gpu_layers=40, host=room)["fits"] == "yes"
    # Its low end within the limit, its high end not.
    tight = planned(gpu_layers=40, host=f"{int(found['host']['bytes'][1] / 0.95)}B")
    assert tight["fits"] == "marginal"
    assert any("host's part may not fit" in note for note in tight["notes"])


def test_an_unknown_host_makes_the_answer_unknown() -> None:
    found = planned(gpu_layers=40)
    assert (found["fits"], found["fixes"]) == ("unknown", [])
    assert any("unknown: name the machine with --host" in note for note in found["notes"])
    assert planned(gpu_layers=70)["fits"] == "no"


@pytest.mark.parametrize("host", ["lab-server", "laptop", None])
def test_what_cannot_lie_with_the_host_is_not_proposed(host: str | None) -> None:
    found = planned("deepseek-r1", "16bit", host=host)
    assert found["fits"] == "no"
    if host is not None:
        assert found["most_on_gpu"] is None
        # Of fewer bits the experts may have room there.
        each = [{change["knob"] for change in fix["changes"]} for fix in found["fixes"]]
        assert not any(knobs & {"gpu_layers", "experts_on_cpu"} for knobs in each if "scheme" not in knobs)
    assert planned("deepseek-r1", "16bit", host=host, gpu_layers=1)["fits"] == ("unknown" if host is None else "no")


def test_experts_go_to_the_host_before_layers_do() -> None:
    found = planned("deepseek-r1", "q2_k", host="lab-server")
    first = found["fixes"][0]
    assert first["changes"][0]["knob"] == "experts_on_cpu"
    assert first["changes"][0]["value"] == found["most_on_gpu"]["experts_on_cpu"]
    assert first["host_bytes"] <= 0.9 * first["host_limit_bytes"]
    after = planned("deepseek-r1", "q2_k", host="lab-server", experts_on_cpu=first["changes"][0]["value"])
    assert (after["fits"], after["host"]["bytes"][1]) == ("yes", first["host_bytes"])
    layers = planned(host="lab-server")
    assert layers["fixes"][0]["changes"][0]["value"] == layers["most_on_gpu"]["gpu_layers"]


def test_what_stays_beside_a_gpu_is_not_copied() -> None:
    found = planned(gpu_layers=42, host="lab-server")
    left = sum(term["bytes"][0] for term in found["terms"] if term["device"] == "cpu" and term["name"] == "weights")
    assert left < found["host"]["bytes"][0] < found["host"]["bytes"][1] < 1.1 * left


@pytest.mark.parametrize(("site", "host"), [("rtx-4090", "rtx-3090"), ("m4-max", "x86-avx512"), ("nas", "x86-avx512")])
def test_a_host_is_the_machine_around_a_gpu(site: str, host: str) -> None:
    with pytest.raises(InputError, match="a host is the machine around a GPU"):
        planned(site=site, host=host)


def test_nothing_on_the_gpu_is_the_host_alone() -> None:
    alone, beside = planned(site="x86-avx512"), planned(gpu_layers=0, host="x86-avx512")
    for key in ("decode_tokens_per_s", "prefill_tokens_per_s", "limit_bytes", "total_bytes", "fits"):
        assert beside[key] == alone[key]
    nowhere = planned(gpu_layers=0)
    assert (nowhere["fits"], nowhere["decode_tokens_per_s"], nowhere["fixes"]) == ("unknown", None, [])
    assert all((c["knob"], c["value"]) != ("gpu_layers", 0) for fix in planned()["fixes"] for c in fix["changes"])


def test_what_is_left_behind() -> None:
    model, site = find_model("llama-3.1-8b"), sites()["rtx-4090"]
    behind = [Deployment(model, site, "q8_0", gpu_layers=n).layers_behind for n in (None, 99, 33, 32, 1, 0)]
    assert behind == [0, 0, 0, 1, 32, 32]
    # Without experts nothing of them stays behind.
    assert not Deployment(model, site, "q8_0", experts_on_cpu=8).is_partial


def test_the_screen_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-70b", "--site", "rtx-4090", "--scheme", "q4_k_m"]
    assert main(words) == 0
    assert "q4_k_m 41 of 81 layers fit on the GPU" in capsys.readouterr().out
    assert main([*words, "-ngl", "42", "--host", "x86-avx512"]) == 0
    assert "39 layers with x86-avx512" in " ".join(capsys.readouterr().out.split())


def test_the_headline_says_which_memory_has_no_room(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-70b", "--site", "rtx-4090", "--scheme", "q4_k_m"]

    def headline(*more: str) -> str:
        assert main([*words, *more]) == 0
        return capsys.readouterr().out.splitlines()[1]

    # Fewer layers on the GPU would do, so not nothing fits.
    assert headline().startswith("nothing fits as it was asked for: q4_k_m@llamacpp, the smallest, takes 40.1 GiB of")
    assert headline("-ngl", "30", "--host", "laptop").endswith("takes 25.4 GiB of 16.0 GiB on the host")
    assert headline("-ngl", "30").endswith("whether the host has 25.4 GiB is unknown")
    assert headline("-ngl", "0").endswith("the host's memory is unknown: name it with --host")


def test_a_machine_with_more_is_told_as_more() -> None:
    for scheme in ("q6_k", "q5_k_m", "q4_k_m"):
        for memory in range(5_000_000_000, 5_200_000_000, 20_000_000):
            found = planned("llama-3.1-8b", scheme, memory_bytes=memory)
            told = [fix["what"] for fix in found["fixes"] if fix["what"].startswith("a machine with")]
            assert not any(f"with {size(memory)} free" in what for what in told)


def test_a_family_counts_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    asked = PlanRequest(
        ("llama-3.1-8b", "qwen3-8b"), memory_bytes=12 * 10**9, gpu_layers=5, schemes=("16bit", "q4_k_m")
    )
    unknown = plan(asked)["frontier"]
    assert {row["fits"] for row in unknown} == {"unknown"}
    assert all("--host" in row["why"] and row["longest_context"] is None for row in unknown)
    small, large = (plan(replace(asked, host=host))["frontier"] for host in ("11GiB", "lab-server"))
    assert {row["fits"] for row in large} == {"yes"}
    assert {(row["scheme"], row["fits"]) for row in small} == {("16bit", "no"), ("q4_k_m", "yes")}
    for row in small:
        if row["fits"] == "yes":
            alone = replace(asked, models=(row["model"],), host="11GiB", schemes=(row["scheme"],), cache=row["cache"])
            found = plan(replace(alone, context=row["longest_context"]))
            assert (found["fits"], found["host"]["bytes"][1]) == ("yes", row["host_bytes"])
            longer = plan(replace(alone, context=row["longest_context"] + 256))
            assert longer["fits"] != "yes" or row["longest_context"] in (40960, 131072)
    assert main(["plan", "llama-3.1-8b", "qwen3-8b", "--memory", "12GB", "-ngl", "5"]) == 0
    assert "name the machine with --host" in " ".join(capsys.readouterr().out.split())


def test_requests_have_room_by_what_they_keep_with_the_host_too() -> None:
    # One layer's cache on the GPU, those of 79 with the host.
    found = planned(gpu_layers=2, host="50GiB", context=8192)
    cache = next(t["bytes"][1] for t in found["terms"] if (t["name"], t["device"]) == ("cache", "cpu"))
    room = found["host"]["limit_bytes"] - found["host"]["bytes"][1] + cache
    assert found["concurrency"]["theoretical"] == room // cache
    assert found["concurrency"]["theoretical"] < planned(gpu_layers=2, context=8192)["concurrency"]["theoretical"]


def test_the_small_part_beside_a_full_gpu_needs_room_too() -> None:
    whole = planned("llama-3.1-8b")
    beside = sum(term["bytes"][0] for term in whole["terms"] if term["device"] == "cpu")
    assert (whole["fits"], whole["host"]) == ("yes", None)
    there = planned("llama-3.1-8b", host="lab-server")
    assert (there["fits"], there["total_bytes"]) == ("yes", whole["total_bytes"])
    assert (there["host"]["layers"], there["host"]["bytes"][0]) == (0, beside)
    short = planned("llama-3.1-8b", host=f"{beside - 1}B")
    assert (short["fits"], short["failure"]["name"]) == ("no", "host-memory-short")
    assert any("host's part does not fit" in note for note in short["notes"])
    room = {change["knob"]: change["value"] for fix in short["fixes"] for change in fix["changes"]}["host"]
    assert planned("llama-3.1-8b", host=room)["fits"] == "yes"
    asked = PlanRequest(("llama-3.1-8b",), site="rtx-4090", schemes=("q4_k_m",))
    for host, fits in (("lab-server", "yes"), (f"{beside - 1}B", "no")):
        family = plan(replace(asked, models=("llama-3.1-8b", "qwen3-8b"), host=host))["frontier"]
        assert {row["fits"] for row in family if row["model"] == "llama-3.1-8b" and row["cache"] == "f16"} == {fits}


def test_the_screen_says_what_lies_beside_a_full_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "--site", "rtx-4090", "--scheme", "q4_k_m", "--host"]
    assert main([*words, "lab-server"]) == 0
    assert "no layer with lab-server" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "100MB"]) == 0
    assert "on the host" in capsys.readouterr().out.splitlines()[1]


def test_a_family_shows_what_lies_with_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "llama-3.1-8b", "qwen3-8b", "--memory", "12GB", "--scheme", "16bit", "-ngl", "5"]
    assert main([*words, "--host", "lab-server"]) == 0
    shown = capsys.readouterr().out
    asked = PlanRequest(("llama-3.1-8b", "qwen3-8b"), memory_bytes=12 * 10**9, gpu_layers=5, schemes=("16bit",))
    rows = plan(replace(asked, host="lab-server"))["frontier"]
    assert "with the host" in shown
    for row in rows:
        if row["on_frontier"]:
            assert row["host_bytes"] > row["total_bytes"]
            assert size(row["host_bytes"]) in shown
    assert main(["plan", "qwen3-4b", "qwen3-8b", "--memory", "12GB"]) == 0
    assert "with the host" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"site": "laptop", "gpu_layers": 10}, "laptop has no GPU"),
        ({"model": "gpt-oss-20b", "scheme": "mxfp4_moe", "site": "laptop", "experts_on_cpu": 3}, "laptop has no GPU"),
        ({"model": "gpt-oss-20b", "scheme": "mxfp4_moe", "experts_on_cpu": 9999}, "24 layers"),
    ],
)
def test_what_would_change_nothing_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        planned(**given)


def test_a_site_of_the_same_size_is_no_fix() -> None:
    found = planned("deepseek-r1", "q4_k_m")
    (fix,) = (fix for fix in found["fixes"] if fix["kind"] == "site")
    named = [change["value"] for change in fix["changes"] if change["knob"] == "site"]
    assert all((sites()[name].limit_bytes or 0) > 1.1 * found["limit_bytes"] for name in named)


@pytest.mark.parametrize("host", [None, "lab-server"])
def test_the_most_that_fits_names_the_flags_that_are_missing(
    host: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "deepseek-r1", "--site", "rtx-4090", "--scheme", "q2_k"]
    assert main(words if host is None else [*words, "--host", host]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    line = shown[shown.index("most -ngl") : shown.index("cache if")]
    assert "--experts-on-cpu" in line
    assert "None" not in line
    assert ("--host S" in line) == (host is None)
