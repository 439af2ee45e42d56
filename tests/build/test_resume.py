"""A walk killed at any moment goes on where it was, and ends in the same bytes."""

import errno
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny_models import TEXTS, write_tiny

from quantwise.build import unfinished
from quantwise.build.unfinished import Unfinished
from quantwise.build.walk import build
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash

RECIPES = ["gptq:int4-g64", "gptq+propagate:int4-g64", "awq+rtn:int4-g64"]
BLOCKS = 5
# Tells each step, and waits a little, so that a kill meets every part of a block.
WALKER = """
import sys, time
from pathlib import Path
from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash
from tiny_models import TEXTS
def tell(what, done, total):
    print(what, done, flush=True)
build(Path(sys.argv[1]), [parse_recipe(r) for r in sys.argv[3:]], TEXTS, Path(sys.argv[2]), progress=tell)
"""


def walker(model: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WALKER, str(model), str(out), *RECIPES],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
    )  # fmt: skip


def kill_in_block(model: Path, out: Path, block: int, delay: float, nth: int = 1) -> None:
    """SIGKILL ``delay`` seconds after the ``nth`` pass has begun ``block``."""
    kill_at(model, out, f"quantize blocks {block}", delay, nth)


def kill_at(model: Path, out: Path, step: str, delay: float, nth: int = 1) -> None:
    """SIGKILL ``delay`` seconds after the walk has told a ``step`` for the ``nth`` time."""
    process = walker(model, out)
    assert process.stdout is not None
    for line in process.stdout:
        nth -= line.startswith(step)
        if not nth:
            break
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    model = tmp_path_factory.mktemp("model")
    write_tiny(model, "llama", num_hidden_layers=BLOCKS)
    made = build(model, [parse_recipe(r) for r in RECIPES], TEXTS, tmp_path_factory.mktemp("out"))
    return model, {str(a.recipe): a.hash for a in made}


@pytest.mark.parametrize(("block", "nth"), [pytest.param(3, 1, marks=pytest.mark.long), (2, 2)])
def test_a_killed_walk_goes_on_and_gives_the_same_bytes(
    whole: tuple[Path, dict[str, str]], tmp_path: Path, block: int, nth: int
) -> None:
    model, hashes = whole
    kill_in_block(model, tmp_path, block, random.Random(block).uniform(0, 0.1), nth)
    left = list(tmp_path.glob(".walk-*"))
    assert len(left) == 1
    assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    steps: list[tuple[str, int]] = []
    made = build(
        model, [parse_recipe(r) for r in RECIPES], TEXTS, tmp_path,
        progress=lambda what, done, _: steps.append((what, done)),
    )  # fmt: skip
    begun = [done for what, done in steps if what == "quantize blocks"]
    passes = [begun[: begun.index(BLOCKS) + 1], begun[begun.index(BLOCKS) + 1 :]]
    # What was begun when the kill came may have been finished; no earlier block is done again.
    assert passes[nth - 1][0] >= block
    assert {str(a.recipe): a.hash for a in made} == hashes
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
@pytest.mark.parametrize(("number", "delay"), [(0, 0.0), (1, 0.005), (2, 0.02)])
def test_killed_while_it_writes_it_quantizes_nothing_again(
    whole: tuple[Path, dict[str, str]], tmp_path: Path, number: int, delay: float
) -> None:
    model, hashes = whole
    kill_at(model, tmp_path, f"write {RECIPES[number]}", delay)
    finished = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert len(finished) >= number
    times = {p: (p / "quantwise.json").stat().st_mtime_ns for p in finished}
    steps: list[tuple[str, int]] = []
    made = build(
        model, [parse_recipe(r) for r in RECIPES], TEXTS, tmp_path,
        progress=lambda what, done, _: steps.append((what, done)),
    )  # fmt: skip
    assert {str(a.recipe): a.hash for a in made} == hashes
    assert {done for what, done in steps if what == "quantize blocks"} <= {BLOCKS}
    assert {p: (p / "quantwise.json").stat().st_mtime_ns for p in finished} == times
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
def test_killed_again_and_again(whole: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    model, hashes = whole
    chance = random.Random(1)
    for block in range(BLOCKS):
        for nth in (1, 2):
            kill_in_block(model, tmp_path, block, chance.uniform(0, 0.2), nth)
    made = build(model, [parse_recipe(r) for r in RECIPES], TEXTS, tmp_path)
    assert {str(a.recipe): a.hash for a in made} == hashes


@pytest.mark.long
def test_other_recipes_find_the_blocks_they_share(whole: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    model, hashes = whole
    kill_in_block(model, tmp_path, 3, 0.0)
    made = build(model, [parse_recipe(r) for r in ("gptq:int4-channel", RECIPES[0])], TEXTS, tmp_path)
    assert made[1].hash == hashes[RECIPES[0]]
    alone = build(model, [parse_recipe("gptq:int4-channel")], TEXTS, tmp_path / "alone")
    assert made[0].hash == alone[0].hash


def test_a_refusal_leaves_nothing_and_two_walks_do_not_meet(tmp_path: Path) -> None:
    one = Unfinished.take(tmp_path, "model")
    other = Unfinished.take(tmp_path, "model")
    assert one.folder != other.folder
    one.leave()
    assert Unfinished.take(tmp_path, "model").folder == one.folder
    other.forget()
    assert not other.folder.exists()
    write_tiny(tmp_path, "llama")
    with pytest.raises(InputError, match="calibration"):
        build(tmp_path, [parse_recipe("gptq:int4-g64")], [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_walks_that_begin_while_others_clear_away_never_share_a_folder(tmp_path: Path) -> None:
    end = time.monotonic() + 1.0
    held: set[Path] = set()

    def work(number: int) -> int:
        walks = 0
        while time.monotonic() < end:
            kept = Unfinished.take(tmp_path, "model", "texts")
            assert kept.folder not in held
            held.add(kept.folder)
            kept.keep_block(f"recipe {number}", 0, {"a": torch.zeros(2)}, {"n": number})
            assert kept.facts(f"recipe {number}", 0) == {"n": number}
            held.remove(kept.folder)
            kept.forget()
            walks += 1
        return walks

    with ThreadPoolExecutor(4) as pool:
        assert all(walks for walks in pool.map(work, range(4)))
    assert not list(tmp_path.iterdir())


def test_a_finished_walk_is_gone_before_its_lock_is(
    whole: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, leave = [], Unfinished.leave
    monkeypatch.setattr(Unfinished, "leave", lambda kept: (left.append(kept.folder.exists()), leave(kept)))
    build(whole[0], [parse_recipe("rtn:int8-channel")], [], tmp_path)
    assert left
    assert not any(left)


def test_a_disk_without_locks_takes_one_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(unfinished.fcntl, "flock", refuse)
    kept = Unfinished.take(tmp_path, "model")
    assert [p.name for p in tmp_path.iterdir()] == [kept.folder.name]
    kept.forget()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 20, -1])
def test_damaged_hidden_states_are_made_again(tmp_path: Path, size: int) -> None:
    kept = Unfinished.take(tmp_path, "model")
    hidden = [torch.arange(24.0).reshape(2, 3, 4), torch.ones(1, 2, 4)]
    kept.keep_hidden("shared", 3, hidden)
    found = kept.hidden("shared")
    assert found is not None
    assert found[0] == 3
    assert all(torch.equal(a, b) for a, b in zip(found[1], hidden, strict=True))
    file = next(kept.folder.glob("hidden-*"))
    file.write_bytes(file.read_bytes()[:size])
    assert kept.hidden("shared") is None
    assert not file.exists()


@pytest.mark.parametrize("finished", [True, False])
def test_what_was_left_after_the_last_artifact_goes_with_the_next_build(
    whole: tuple[Path, dict[str, str]], tmp_path: Path, finished: bool
) -> None:
    recipe = parse_recipe("rtn:int8-channel")
    made = build(whole[0], [recipe], [], tmp_path)
    kept = Unfinished.take(tmp_path, content_hash(whole[0]), "")
    for name in (Path(made[0].location).name, *(() if finished else ("another-recipe",))):
        kept.keep_block(name, 0, {"a": torch.zeros(2)}, {})
    kept.leave()
    build(whole[0], [recipe], [], tmp_path)
    assert kept.folder.exists() == (not finished)
