"""The cheap look: it drops and orders, never passes, and shares no item with certification."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fake_arms import BASE, Killed, KilledAt, Watched, arms, fake, items, question, task
from quantwise.core.artifact import Candidate
from quantwise.core.errors import RuntimeFailure
from quantwise.core.item import Item, fingerprint
from quantwise.core.progress import Silent
from quantwise.core.question import Question
from quantwise.measure import Bench
from quantwise.screen import noise, noise_floor, screen, screened
from quantwise.store import Store
from quantwise.tasks import SUITES
from quantwise.tasks.built_in import built_in_task
from quantwise.tasks.task import Task
from quantwise.testing.fake_runtime import FakeSession

TEXTS = ["the cat sat on the mat", "a dog ran to the sea and back"]


def screen_in(
    folder: Path, asked: Question, runtime: Any, limit: int | None = None, progress: Any = None
) -> dict[str, str]:
    with Store(folder, create=True) as store, Bench(limit) as bench:
        return screen(store, asked, arms(asked, runtime), items, TEXTS, bench, progress or Silent())


def test_what_cannot_be_opened_is_ruled_out_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    asked = question("small", "refused")
    assert screen_in(tmp_path, asked, fake()) == {"refused@fake": "cannot be run: this artifact is for being refused"}
    with Store(tmp_path, create=True) as store:
        assert [line["n"] for line in screened(store, asked)] == [32, 32, 0]
        assert screened(store, asked)[2]["accuracy"] is None


def test_what_dies_and_does_not_come_back_is_ruled_out_too(tmp_path: Path) -> None:
    gone = Watched(fake(dies_after=8), opens={"small": 1})
    found = screen_in(tmp_path, question("small", "other", tasks=[task(screen=8), task("more", screen=8)]), gone)
    assert found == {"small@fake": "cannot be run: small is gone"}


def test_a_baseline_that_cannot_be_opened_stops_the_run_with_one_line(tmp_path: Path) -> None:
    asked = question(candidates=(Candidate("refused", "fake", baseline=True), Candidate("small", "fake")))
    with pytest.raises(RuntimeFailure, match=r"^this artifact is for being refused$"):
        screen_in(tmp_path, asked, fake())


def test_only_a_drop_far_beyond_every_margin_drops_and_never_the_control(tmp_path: Path) -> None:
    control = Candidate("control", "fake", control=True)
    names = [Candidate(name, "fake") for name in ("small", "half", "wreck")]
    asked = question(tasks=[task(screen=96), task("more", screen=96)], candidates=(BASE, *names, control))
    found = screen_in(tmp_path, asked, fake(errors={"half": 0.15, "wreck": 1.0, "control": 1.0}))
    assert list(found) == ["wreck@fake"]
    assert "far below the baseline on every screening task" in found["wreck@fake"]


def test_a_wreck_on_one_task_of_two_goes_on(tmp_path: Path) -> None:
    asked = question(tasks=[task(screen=96), task("more", screen=0)])
    assert screen_in(tmp_path, asked, fake(errors={"small": 1.0})) == {}


def test_a_baseline_that_fails_drops_nobody(tmp_path: Path) -> None:
    """Its failures are scored as right, which alone must not look like a candidate that is always wrong."""
    asked = question(tasks=[task(screen=96)])
    assert screen_in(tmp_path, asked, fake(crashes={"base": 1.0}, errors={"small": 1.0})) == {}


def test_distributions_equal_to_the_last_digit_are_a_quantization_that_did_nothing(tmp_path: Path) -> None:
    asked = question("small", "noisy")
    runtime = fake(errors={"noisy": 0.05})
    rounded = {
        name: replace(arm, artifact=replace(arm.artifact, bits_per_weight=4.5))
        for name, arm in arms(asked, runtime).items()
    }
    with Store(tmp_path, create=True) as store, Bench() as bench:
        found = screen(store, asked, rounded, items, TEXTS, bench, Silent())
        lines = {line["candidate"]: line for line in screened(store, asked)}
    assert list(found) == ["small@fake"]
    assert "the runtime ignored them" in found["small@fake"]
    assert lines["small@fake"]["kl_mean"] == 0.0
    assert lines["noisy@fake"]["kl_mean"] > 0.0


def test_divergence_is_measured_although_only_one_arm_fits_at_a_time(tmp_path: Path) -> None:
    """A closed session that is asked again would fail in the watched runtime."""
    asked, runtime = question("small", "other"), fake(errors={"small": 0.05, "other": 0.2})
    assert screen_in(tmp_path / "tight", asked, Watched(runtime), limit=1000) == {}
    screen_in(tmp_path / "wide", asked, runtime)
    found = []
    for name in ("tight", "wide"):
        with Store(tmp_path / name, create=True) as store:
            found.append(screened(store, asked))
    assert found[0] == found[1]
    assert 0.0 < found[0][1]["kl_mean"] < found[0][2]["kl_mean"]


def test_a_server_that_leaves_a_token_out_leaves_its_divergence_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, tell = question("small", "other"), FakeSession.next_token_logprobs

    def shorter(session: Any, text: str, top: int) -> Any:
        return tell(session, text, top)[int(session._location == "small") :]

    monkeypatch.setattr(FakeSession, "next_token_logprobs", shorter)
    assert screen_in(tmp_path, asked, fake(errors={"small": 0.05, "other": 0.2})) == {}
    with Store(tmp_path, create=True) as store:
        told = {line["candidate"]: line["kl_mean"] for line in screened(store, asked)}
    assert told["small@fake"] is None
    assert told["other@fake"] > 0.0


def test_screening_goes_on_where_it_was(tmp_path: Path) -> None:
    asked, runtime = question("small", "refused"), fake(errors={"small": 0.1})
    whole = screen_in(tmp_path / "whole", asked, runtime)
    for words in (1, 2, 3, 4):
        with pytest.raises(Killed):
            screen_in(tmp_path / "killed", asked, runtime, progress=KilledAt(words))
    assert screen_in(tmp_path / "killed", asked, runtime) == whole
    lines = []
    for name in ("whole", "killed"):
        with Store(tmp_path / name, create=True) as store:
            lines.append((screened(store, asked), store.rows("screen")))
    assert lines[0] == lines[1]


def test_an_arm_that_has_answered_everything_is_not_loaded_again(tmp_path: Path) -> None:
    asked = question("small", "refused")
    screen_in(tmp_path, asked, fake())
    watched = Watched(fake())
    screen_in(tmp_path, asked, watched)
    assert watched.log == []  # the one that was refused was tried again


# -- the noise floor --------------------------------------------------------------------------------------------------


def measured_again(folder: Path, asked: Question, again: Any, beside: Bench | None = None) -> list[dict[str, Any]]:
    screen_in(folder, asked, fake())
    with Store(folder, create=True) as store:
        for _ in range(2):  # the second time it is there already
            second = [arm for arm in arms(asked, again).values() if arm.candidate.baseline]
            noise_floor(store, asked, second, items, beside or Bench(), Silent())
        return noise(store, asked)


def test_the_noise_floor_counts_flips_of_the_baseline_against_itself(tmp_path: Path) -> None:
    assert measured_again(tmp_path / "1", question(), fake()) == [
        {"runtime": "fake", "task": "copy", "n": 32, "flips": 0}
    ]
    (noisy,) = measured_again(tmp_path / "2", question(), fake(errors={"base": 0.2}))
    assert (noisy["n"], noisy["flips"] > 0) == (32, True)


def test_a_second_baseline_that_cannot_be_opened_leaves_the_noise_unknown_and_says_so(tmp_path: Path) -> None:
    (line,) = measured_again(tmp_path, question(), Watched(fake(), opens={"base": 0}))
    assert line["n"] == 0
    with Store(tmp_path, create=True) as store:
        assert "A/A check: base is gone" in store.get("note", BASE.name)
    (line,) = measured_again(tmp_path, question(), fake())
    assert line["n"] == 32
    with Store(tmp_path, create=True) as store:
        assert store.get("note", BASE.name) is None


def test_the_second_baseline_finds_room(tmp_path: Path) -> None:
    watched = Watched(fake())
    with Bench(1500) as bench:
        bench.session(arms(question(), watched)["base@fake"])
        measured_again(tmp_path, question(), fake(), bench)
        assert watched.log == [("open", "base"), ("close", "base")]


# -- the two parts of a task ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [suite.name for suite in SUITES])
def test_no_certification_item_of_a_suite_is_ever_screened(name: str) -> None:
    found = built_in_task(name)
    assert found is not None
    screening = {fingerprint(i.text) for seed in (0, 1) for i in found.supply("screen", 96, seed)}
    certifying = {fingerprint(i.text) for seed in (0, 1) for i in found.supply("certify", 256, seed)}
    assert len(screening) > 96 // 2
    assert not screening & certifying


def test_no_certification_item_of_a_file_is_screened_even_where_it_repeats_a_prompt() -> None:
    from quantwise.tasks.task import cluster_repeats

    prompts = [f"say w{i // 2}" if i < 100 else f"say v{i}" for i in range(400)]
    lines = tuple(Item(str(i), "mine", "w", "exact", prompt=text) for i, text in enumerate(prompts))
    mine = Task("mine", "other", "exact", "mine.jsonl", "0", cluster_repeats(lines))
    for seed in range(5):
        screening, certifying = (
            {fingerprint(i.text) for i in mine.supply(part, 400, seed)} for part in ("screen", "certify")
        )
        assert screening
        assert not screening & certifying
