"""Fixes: every refusal has one, the first makes the plan fit, and none cheaper was there to be had."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, product

import pytest

from quantwise.plan.fit import MARGINAL
from quantwise.plan.fix import CLASSES, Change, Need, Rest, ServedCase
from quantwise.plan.fixes import fixes
from quantwise.plan.served_changes import more_experts_away, usual_changes

GIB = 1 << 30
CACHES = {"f16": 2.0, "q8_0": 1.0625, "q4_0": 0.5625}
SCHEMES = {"16bit": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q4_k_m": 4.9, "q2_k": 3.2}
# Parameters, layers, numbers of keys and values that a token leaves in a layer, width, vocabulary.
MODELS = {
    "14b": (14.8e9, 40, 2048, 5120, 151_936),
    "8b": (8.2e9, 36, 2048, 4096, 151_936),
    "4b": (4.0e9, 36, 2048, 2560, 151_936),
    "0.6b": (0.6e9, 28, 2048, 1024, 151_936),
}
MIXTURES = ("14b", "0.6b")
SITES = {"laptop": 8 * GIB, "desktop": 24 * GIB, "server": 80 * GIB}


def need(case: ServedCase) -> Need | None:
    """What llama.cpp takes, roughly. The rest lies with a host of twice the memory, or one that nobody knows."""
    parameters, layers, cached, width, vocab = MODELS[case.model]
    if case.cache == "q4_0" and case.model == "0.6b":
        return None  # Stands for heads that do not split into blocks.
    devices = case.tensor_parallel * case.pipeline_parallel
    if devices > 1 and case.gpu_layers is not None:
        return None
    weights = parameters * SCHEMES[case.scheme] / 8 / devices
    cache = layers * cached * CACHES[case.cache] * case.context * case.concurrency / devices
    compute = 4 * case.ubatch * (vocab + 8 * width)
    limit = case.memory_bytes if case.memory_bytes is not None else SITES[case.site]
    share = 1.0 if case.gpu_layers is None else min(1.0, case.gpu_layers / layers)
    if case.model in MIXTURES:
        share -= 0.8 * share * min(case.experts_on_cpu, layers) / layers
    device, host = int((weights + cache) * share + compute + GIB / 2), int((weights + cache) * (1 - share))
    known = case.host_bytes if case.host_bytes is not None else None if case.model == "4b" else 2 * limit
    return Need(device, limit, Rest(host, known) if host else None)


def scenario(chance: random.Random) -> tuple[ServedCase, list[Change]]:
    case = ServedCase(
        model=chance.choice(list(MODELS)),
        scheme=chance.choice(list(SCHEMES)),
        cache=chance.choice(["f16", "f16", "q8_0"]),
        context=chance.choice([1024, 4096, 8192, 32768, 131072]),
        concurrency=chance.choice([1, 1, 2, 5, 16, 64]),
        ubatch=chance.choice([128, 512, 2048]),
        site=chance.choice(list(SITES)),
        gpu_layers=chance.choice([None, None, 10, 99]),
        memory_bytes=chance.choice([None, None, chance.randrange(1, 40 * GIB)]),
        experts_on_cpu=chance.choice([0, 0, 5]),
        host_bytes=chance.choice([None, None, None, 8 * GIB]),
    )
    kept: dict[str, list[str]] = {}
    for name, of in (("caches", CACHES), ("schemes", SCHEMES), ("models", MODELS), ("sites", SITES)):
        # Users know of some choices only, or of none.
        kept[name] = [key for key in of if chance.random() < 0.8]
    layers = chance.choice([0, MODELS[case.model][1]])
    devices = chance.choice([0, 0, 4, 8])
    changes = usual_changes(case, **kept, layers=layers, devices=devices)  # type: ignore[arg-type]
    return case, changes + more_experts_away(case, layers if case.model in MIXTURES else 0)


def obvious(
    case: ServedCase, changes: list[Change], need: Callable[[ServedCase], Need | None]
) -> tuple[int, int, int] | None:
    """Class, cost and count of the cheapest single change or pair that fits, by trying all of them."""
    best = None
    for count in (1, 2):
        for combination in combinations(changes, count):
            price = max(CLASSES.index(c.kind) for c in combination), sum(c.cost for c in combination), count
            if len({c.knob for c in combination}) < count or (best is not None and price >= best):
                continue
            for values in product(*map(values_of, combination)):
                changed = case
                for change in values:
                    changed = change.applied(changed)
                after = need(changed)
                if after is not None and after.fits(MARGINAL):
                    best = price
                    break
    return best


def values_of(change: Change) -> list[Change]:
    """A change by every number that costs the same."""
    if change.below is None or not isinstance(change.value, int):
        return [change]
    step = 1 if change.below > change.value else -1
    return [replace(change, value=value) for value in range(change.value, change.below, step)]


def test_every_refusal_has_a_fix_and_the_first_makes_it_fit() -> None:
    chance, refused, classes = random.Random(4), 0, set()
    for number in range(2500):
        case, changes = scenario(chance)
        before = need(case)
        found = fixes(case, changes, need)
        if before is None or before.fits(MARGINAL):
            assert found == []
            continue
        refused += 1
        assert found, f"{number}: {case} has no fix"
        for fix in found:
            after = need(fix.case)
            assert after == Need(fix.total_bytes, fix.limit_bytes, fix.beside)
            assert after.fits(MARGINAL), f"{number}: {fix} does not fit"
            # What lies with a host is room that is known, or that the fix asks for.
            assert after.beside is None or after.beside.limit_bytes is not None
            # No layer more than must goes to the CPU.
            for change in fix.changes:
                for milder in values_of(change)[1:2]:
                    more = need(milder.applied(fix.case))
                    assert more is None or not more.fits(MARGINAL), f"{number}: {fix}"
            assert fix.saves_bytes == before.total_bytes - after.total_bytes
        ranks = [CLASSES.index(fix.kind) for fix in found]
        assert ranks == sorted(ranks)
        assert max(ranks.count(rank) for rank in ranks) <= 2
        classes.add(found[0].kind)
        if number % 10 == 0 and (best := obvious(case, changes, need)) is not None:
            first = [change for change in found[0].changes if change.knob != "host_bytes"]
            assert (ranks[0], sum(c.cost for c in first), len(first)) == best, f"{number}: {case}"
    assert refused > 900
    assert classes == set(CLASSES)


CASE = ServedCase("8b", "q4_k_m", "f16", 16384, 1, 512, site="laptop")


def usual(case: ServedCase = CASE) -> list[Change]:
    return usual_changes(
        case, caches=list(CACHES), schemes=list(SCHEMES), models=list(MODELS), sites=list(SITES), layers=36
    )


def test_a_laptop_that_is_a_little_too_small() -> None:
    found = fixes(CASE, usual(), need)
    # Weights 8.2e9 * 4.9 bits; cache 36 * 2048 numbers of 2 bytes for 16384 tokens, which is 2.25 GiB; of that 15 / 32
    # is saved by q8_0; buffers 0.36 GiB, and half a GiB.
    assert [str(fix) for fix in found] == [
        "kv q8_0: saves 1.05 GiB, then 6.73 GiB of 8.00 GiB",
        "context 8192: saves 1.12 GiB, then 6.65 GiB of 8.00 GiB",
        "scheme q2_k: saves 1.62 GiB, then 6.16 GiB of 8.00 GiB",
        "model 4b: saves 2.42 GiB, then 5.36 GiB of 8.00 GiB",
        "site desktop: then 7.78 GiB of 24.0 GiB",
    ]
    assert found[0].saves_bytes == 36 * 2048 * 16384 * 2 * 15 // 32


def test_two_settings_where_one_is_not_enough() -> None:
    case = replace(CASE, memory_bytes=int(6.7 * GIB))
    assert [str(fix) for fix in fixes(case, usual(case), need)][:3] == [
        "kv q8_0 and layers on the GPU 31: saves 1.87 GiB, then 5.91 GiB of 6.70 GiB, 835 MiB of 13.4 GiB on the host",
        "ubatch 256 and layers on the GPU 27: saves 1.91 GiB, then 5.87 GiB of 6.70 GiB, "
        "1.73 GiB of 13.4 GiB on the host",
        "kv q8_0 and scheme q2_k: saves 2.68 GiB, then 5.10 GiB of 6.70 GiB",
    ]


def test_only_more_memory_is_left() -> None:
    (fix,) = fixes(CASE, [], need)
    assert fix.kind == "site"
    assert str(fix) == "a machine with 8.65 GiB free: then 7.78 GiB of 8.65 GiB"


def test_memory_is_raised_until_terms_that_grow_with_it_have_room() -> None:
    (fix,) = fixes(CASE, [], lambda case: Need(GIB + (case.memory_bytes or 0) // 2, case.memory_bytes or GIB))
    assert fix.total_bytes <= MARGINAL * fix.limit_bytes


def test_what_never_fits_or_is_not_known_has_no_fix() -> None:
    assert fixes(CASE, usual(), lambda case: None) == []
    assert fixes(CASE, usual(), lambda case: Need(10, 10**9)) == []
    # A term that takes all there is: no memory is enough, and nothing is promised.
    assert fixes(CASE, [], lambda case: Need(case.memory_bytes or GIB, case.memory_bytes or GIB)) == []


def test_a_site_has_its_own_memory() -> None:
    changed = Change("site", "server", "site", 1, "").applied(replace(CASE, memory_bytes=5))
    assert changed.memory_bytes is None
    assert changed.site == "server"


def test_need_is_asked_once_for_each_case() -> None:
    asked: list[ServedCase] = []

    def told(case: ServedCase) -> Need | None:
        asked.append(case)
        return need(case)

    fixes(replace(CASE, memory_bytes=GIB), usual(), told)
    assert len(asked) == len(set(asked)) < 400


@pytest.mark.parametrize(
    ("case", "knob", "values"),
    [
        (CASE, "cache", ["q8_0", "q4_0"]),
        (replace(CASE, cache="q8_0"), "cache", ["q4_0"]),
        (CASE, "context", [8192, 4096]),
        (replace(CASE, context=2048), "context", []),
        (replace(CASE, concurrency=6), "concurrency", [3, 1]),
        (CASE, "concurrency", []),
        (CASE, "ubatch", [256, 128]),
        (CASE, "gpu_layers", [27, 18, 9, 1, 0]),
        (replace(CASE, gpu_layers=4), "gpu_layers", [3, 2, 1, 0]),
        (CASE, "scheme", ["q2_k"]),
        (CASE, "model", ["4b", "0.6b"]),
        (CASE, "site", ["desktop", "server"]),
    ],
)
def test_usual_changes_only_go_down(case: ServedCase, knob: str, values: list[object]) -> None:
    found = [change for change in usual(case) if change.knob == knob]
    assert [change.value for change in found] == values
    assert [change.cost for change in found] == sorted(change.cost for change in found)
