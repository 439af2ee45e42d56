"""What a runtime does not load is refused in one line, and neither listed nor proposed: the table is ``core.loads``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.core.errors import InputError
from quantwise.core.loads import kernel_lacks, refused
from quantwise.core.scheme import parse_scheme
from quantwise.planning import PlanRequest, plan
from quantwise.testing.blank_gguf import BlankModel, write_blank


@pytest.mark.parametrize("scheme", ["q4_k_m", "iq1_s", "tq2_0", "uniform-q4_k", "imatrix:q2_k", "auto:5bpw"])
@pytest.mark.parametrize("runtime", ["vllm", "transformers"])
def test_a_gguf_type_is_for_llamacpp(runtime: str, scheme: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(PlanRequest(("llama-3.1-8b",), runtime=runtime, site="h100", schemes=(scheme,)))
    assert str(caught.value).startswith(f"{refused(runtime, 'gguf')}; what can be planned: --runtime llamacpp (")


def test_vllm_loads_nothing_of_bitsandbytes() -> None:
    for scheme in ("nf4", "nf4-dq", "llm-int8"):
        with pytest.raises(InputError, match="which runs in transformers"):
            plan(PlanRequest(("llama-3.1-8b",), runtime="vllm", site="h100", schemes=(scheme,)))


@pytest.mark.parametrize("runtime", ["vllm", "transformers"])
def test_a_gguf_file_is_for_llamacpp(runtime: str, tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    write_blank(file, BlankModel())
    with pytest.raises(InputError, match="not gguf, which runs in llamacpp"):
        plan(PlanRequest((str(file),), runtime=runtime, site="h100"))


@pytest.mark.parametrize("site", ["laptop", "m4-max"])
def test_without_a_kernel_a_processor_is_promised_nothing(site: str) -> None:
    found = plan(PlanRequest(("llama-3.1-8b",), runtime="vllm", site=site))
    assert [row["scheme"] for row in found["candidates"]] == ["16bit", "fp8", "int4-g128"]
    with pytest.raises(InputError) as caught:
        plan(PlanRequest(("llama-3.1-8b",), runtime="vllm", site=site, schemes=("int8-channel",)))
    why = kernel_lacks("vllm-cpu", parse_scheme("int8-channel"))
    assert str(caught.value).startswith(f"{why}; what can be planned: --runtime transformers (")


def test_a_gpu_has_the_kernels() -> None:
    found = plan(PlanRequest(("llama-3.1-8b",), runtime="vllm", site="h100"))
    assert [row["scheme"] for row in found["candidates"]] == ["16bit", "fp8", "int8-channel", "int4-g128"]


def test_of_several_names_those_that_load_are_planned() -> None:
    found = plan(PlanRequest(("llama-3.1-8b",), runtime="vllm", site="h100", schemes=("q4_k_m", "int4-g128")))
    assert [row["scheme"] for row in found["candidates"]] == ["int4-g128"]
    assert found["refused"] == {"q4_k_m@vllm": refused("vllm", "gguf")}
    fixes = found["refused_fixes"]["q4_k_m@vllm"]
    turned = [{change["knob"]: change["value"] for change in fix["changes"]} for fix in fixes]
    assert turned == [{"runtime": "llamacpp"}, {"scheme": "int4-g128"}]
    assert set(fixes[0]) == set(plan(PlanRequest(("llama-3.1-70b",), site="rtx-4090"))["fixes"][0])


# int8-channel may be planned in two other runtimes, GGUF types in one; what is nearest in bits is the scheme.
REFUSED = [
    (PlanRequest(("llama-3.1-8b",), runtime="vllm", site="h100", schemes=("nf4",)), ["transformers", "int4-g128"]),
    (
        PlanRequest(("llama-3.1-8b",), site="h100", schemes=("int8-channel",)),
        ["transformers", "vllm", "q8_0"],
    ),
    (
        PlanRequest(("llama-3.1-8b",), runtime="transformers", site="h100", schemes=("q4_k_m",)),
        ["llamacpp", "int4-g128"],
    ),
    (PlanRequest(("opt-6.7b",), site="h100", schemes=("q4_k_m",)), ["transformers", "16bit", "vllm", "16bit"]),
    (PlanRequest(("opt-6.7b",), runtime="transformers", site="h100", schemes=("16bit",), context=4096), ["2048"]),
]


@pytest.mark.parametrize(("asked", "values"), REFUSED)
def test_a_refusal_names_what_can_be_planned_and_that_can(asked: PlanRequest, values: list[str]) -> None:
    with pytest.raises(InputError, match="; what can be planned: ") as caught:
        plan(asked)
    ways = str(caught.value).split("; what can be planned: ")[1].split(" or ")
    flags = [dict(re.findall(r"--(\w+) (\S+)", way)) for way in ways]
    assert [value for way in flags for value in way.values()] == values
    for way in flags:
        given = {"runtime": way.get("runtime", asked.runtime), "context": int(way.get("context", 0)) or asked.context}
        found = plan(replace(asked, schemes=(way.get("scheme", *asked.schemes),), **given))
        assert found["fits"] == "yes"
        assert not found["refused"]


def test_what_does_not_fit_is_not_proposed() -> None:
    with pytest.raises(InputError) as caught:
        plan(PlanRequest(("llama-3.1-70b",), runtime="vllm", site="rtx-4090", schemes=("q8_0",)))
    assert str(caught.value) == refused("vllm", "gguf")


def test_no_fix_and_no_row_of_a_family_takes_what_is_refused() -> None:
    asked = PlanRequest(("llama-3.1-70b",), runtime="vllm", site="rtx-4090", schemes=("int8-channel", "q4_k_m", "nf4"))
    proposed = {change["value"] for fix in plan(asked)["fixes"] for change in fix["changes"]}
    assert not proposed & {"q4_k_m", "nf4"}
    models = ("llama-3.1-8b", "llama-3.1-70b")
    rows = plan(PlanRequest(models, runtime="vllm", site="laptop", schemes=("int8-channel", "int4-g128")))["frontier"]
    assert {row["scheme"] for row in rows} == {"int4-g128"}


def test_a_mixture_is_not_proposed_where_its_experts_are_not_read_back() -> None:
    found = plan(PlanRequest(("qwen3-30b-a3b",), runtime="transformers", site="h100"))
    assert "nf4-dq" not in {row["scheme"] for row in found["candidates"]}
    with pytest.raises(InputError, match="read no experts"):
        plan(PlanRequest(("qwen3-30b-a3b",), runtime="transformers", site="h100", schemes=("nf4",)))


@pytest.mark.parametrize("schemes", [(), ("q4_k_m",)])
def test_llamacpp_computes_no_opt(schemes: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"llama\.cpp does not compute opt"):
        plan(PlanRequest(("opt-6.7b",), site="mi300x", schemes=schemes))


def test_beyond_learned_positions_nothing_is_planned() -> None:
    asked = PlanRequest(("opt-6.7b",), site="rtx-4090", runtime="transformers", context=8192)
    with pytest.raises(InputError, match="learned positions for 2,048 tokens and none beyond, not 8,192"):
        plan(asked)
    assert plan(PlanRequest(("opt-6.7b",), site="rtx-4090", runtime="transformers", context=2048))["fits"] == "yes"
