from __future__ import annotations

import pytest
from decoders import LLAMA_70B, sliding, uniform

from quantwise.core.errors import InputError
from quantwise.plan.what_if import Demand, cache_of, what_if


def changes(runtime: str, demand: Demand) -> dict[str, float]:
    return {found.change: found.times for found in what_if(runtime, LLAMA_70B, demand)}


@pytest.mark.parametrize("runtime", ["llamacpp", "transformers", "vllm"])
def test_what_doubles_and_what_halves(runtime: str) -> None:
    found = changes(runtime, Demand(8192, 2))
    assert found["the context doubles"] == 2
    assert found["the requests at a time double"] == 2
    assert found["half as many key-value heads"] == 0.5
    assert found["a single key-value head"] == 1 / 8
    assert cache_of(runtime, LLAMA_70B, Demand(8192)) == 2_684_354_560


def test_cache_types() -> None:
    found = changes("llamacpp", Demand(8192))
    assert (found["the cache is q8_0"], found["the cache is q4_0"]) == (8.5 / 16, 4.5 / 16)
    assert "the cache is f16" not in found
    assert changes("llamacpp", Demand(8192, cache="q8_0"))["the cache is f16"] == 16 / 8.5
    assert changes("vllm", Demand(8192))["the cache is fp8"] == 0.5


def test_a_type_that_does_not_suit_is_left_out() -> None:
    found = what_if("llamacpp", uniform(2, 2, 1, 80), Demand(256))
    assert [one.change for one in found] == ["the context doubles", "the requests at a time double"]


def test_a_window_does_not_grow_with_the_context() -> None:
    found = what_if("llamacpp", sliding(1, 9, 1024, 1, 64), Demand(65536))
    assert found[0].times < 2


def test_a_runtime_that_is_not_planned() -> None:
    with pytest.raises(InputError, match=r"the cache of 'ollama' is not planned here; known: llamacpp"):
        cache_of("ollama", LLAMA_70B, Demand(1))
