from __future__ import annotations

import pytest

from quantwise.advise.failures import NUMBERS, Case, failure_of, failures, matching, numbers, told
from quantwise.core.errors import InputError

GIB = 1 << 30
CASE = Case(
    weights=16 * GIB, cache=8 * GIB, rest=2 * GIB, limit=24 * GIB, context=32768, concurrency=4,
    weights_count=8 * GIB, active=4 * GIB, bandwidth=1e12, bus=32e9, link=50e9, link_bytes=1 << 20, bound="bytes",
    flips_at=153, prompt_seconds=0.25, method="lora",
    states=3 * GIB, step=GIB, host=20 * GIB, host_limit=16 * GIB,
)  # fmt: skip
BY_NAME = {failure.name: failure for failure in failures()}


def test_the_field_is_covered() -> None:
    asked = {
        "does-not-fit", "oom-at-long-context", "fragmentation", "unstable-fp16", "crushed-channels",
        "fewer-bits-not-faster",
    }  # fmt: skip
    assert asked <= set(BY_NAME)
    assert len(BY_NAME) >= 18
    for failure in failures():
        assert failure.fixes, failure.name
        assert failure.source, failure.name
        assert failure.plain, failure.name


def test_a_case_fills_in_its_own_numbers() -> None:
    found = told(BY_NAME["does-not-fit"], CASE)
    assert found.case == (
        "26.0 GiB are needed, 24.0 GiB are there: 2.00 GiB too many; "
        "weights 16.0 GiB, cache 8.00 GiB, the rest 2.00 GiB"
    )
    assert found.fixes[0] == "an 8-bit cache saves 3.75 GiB"
    assert found.fixes[2] == "weights of at most 14.0 GiB fit: about 14.0 bits per weight"


def test_threads_that_sleep_are_the_last_thing_to_try() -> None:
    """On cores of one's own they cost a factor of 3 to 9."""
    fixes = BY_NAME["threads-spin"].fixes
    assert fixes[0] == "fewer threads than cores"
    assert fixes[-1] == "OMP_WAIT_POLICY=PASSIVE, only where others use the cores"


def test_the_numbers_by_hand() -> None:
    got = numbers(CASE)
    assert got["token_bytes"] == "64.0 KiB"  # 8 GiB of 4 x 32768 tokens
    assert got["context_that_fits"] == f"{6 * 32768 // 8:,}"  # 6 GiB are left of 24
    assert got["requests_that_fit"] == "3"
    assert got["context_with_q8"] == f"{int(32768 * 64 / 34):,}"
    assert got["read_seconds"] == "17.2 ms"
    assert got["bus_seconds"] == "537 ms"
    assert got["prompt_seconds"] == "250 ms"
    assert set(got) == set(NUMBERS)


def test_all_that_is_known_leaves_no_hole() -> None:
    for failure in failures():
        found = told(failure, CASE)
        for text in (found.cause, found.case, *found.fixes):
            assert "{" not in text
            assert "..." not in text, failure.name


def test_what_is_unknown_is_not_invented() -> None:
    for failure in failures():
        found = told(failure, Case())
        assert found.case == failure.plain
        for text in (found.cause, found.case, *found.fixes):
            assert "{" not in text
            assert "None" not in text
    half = told(BY_NAME["does-not-fit"], Case(weights=16 * GIB, limit=8 * GIB))
    assert half.case == BY_NAME["does-not-fit"].plain
    assert "an 8-bit cache saves ..." in half.fixes


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "does-not-fit"),
        (
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (9.97 GiB)",
            "oom-at-long-context",
        ),
        (
            "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be "
            "stored in KV cache (7344). Try increasing `gpu_memory_utilization`",
            "oom-at-long-context",
        ),
        ("ValueError: No available memory for the cache blocks.", "does-not-fit"),
        ("engine args: {'gpu_memory_utilization': 0.95}", "server-takes-all-memory"),
        ("... reserved but unallocated memory is large try setting", "fragmentation"),
        ("llama_init_from_model: V cache quantization requires flash_attn", "cache-of-few-bits-refused"),
        ("RuntimeError: probability tensor contains either `inf`, `nan` or element < 0", "unstable-fp16"),
        ("ggml_metal_init: recommendedMaxWorkingSetSize = 21845.34 MB", "apple-limit"),
    ],
)
def test_a_log_names_its_failure(line: str, name: str) -> None:
    assert name in {failure.name for failure in matching(line)}


def test_advice_to_give_more_is_no_complaint_of_too_much() -> None:
    told = "larger than the available KV cache memory (9.97 GiB). Try increasing `gpu_memory_utilization` or decreasing"
    assert [failure.name for failure in matching(told)] == ["oom-at-long-context"]


def test_an_innocent_log_names_none() -> None:
    assert matching("server is listening on http://127.0.0.1:8080\nall slots are idle") == []


def test_broken_failures_are_refused() -> None:
    good = {"symptom": "s", "cause": "c", "plain": "p", "source": "x", "fixes": ["f"]}
    assert failure_of("x", good).fixes == ("f",)
    with pytest.raises(InputError, match="unknown field 'fix'"):
        failure_of("x", good | {"fix": "y"})
    with pytest.raises(InputError, match="nothing fills in 'price'"):
        failure_of("x", good | {"case": "it costs {price}"})
