"""A build killed at any moment leaves nothing that reads as complete, and the next one goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from quantwise.build.artifact_folder import Ingredients, draft, find, stands
from quantwise.core.artifact import Degradation
from quantwise.core.errors import EnvironmentFailure
from quantwise.core.recipe import parse_recipe
from quantwise.formats.content_hash import content_hash

MADE_OF = Ingredients(parse_recipe("gptq:int4-g64"), "model", "texts")

# Writes artifacts in small pieces, one recipe after another, for ever.
WRITER = """
import sys
from pathlib import Path
from quantwise.build.artifact_folder import Ingredients, draft
from quantwise.core.recipe import parse_recipe
print("ready", flush=True)
for i in range(10**6):
    with draft(Path(sys.argv[1]), Ingredients(parse_recipe("rtn:int4-g64"), f"{sys.argv[2]}-{i}", None)) as made:
        for name in "abc":
            with open(made.folder / name, "wb") as stream:
                for piece in range(40):
                    stream.write(bytes([piece]) * 5000)
                    stream.flush()
        made.finish(4.25, 0.1, ())
"""


def write(folder: Path, content: bytes = b"weights") -> None:
    (folder / "model.safetensors").write_bytes(content)


def test_sigkill_at_any_moment_leaves_only_whole_artifacts(tmp_path: Path) -> None:
    chance = random.Random(0)
    for kill in range(8):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(kill)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.01, 0.12))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    whole = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert whole
    for folder in whole:
        assert sorted(p.name for p in folder.iterdir()) == ["a", "b", "c", "quantwise.json"]
        assert all((folder / name).stat().st_size == 200_000 for name in "abc")
        assert content_hash(folder) in (folder / "quantwise.json").read_text()
    # The next build sweeps what the dead left.
    with draft(tmp_path, MADE_OF) as made:
        write(made.folder)
        made.finish(4.25, 1.0, [])
    assert not list(tmp_path.glob(".draft-*"))


def test_what_is_finished_is_found_with_everything_recorded(tmp_path: Path) -> None:
    retreat = Degradation("layer", "damped")
    with draft(tmp_path, MADE_OF) as made:
        write(made.folder)
        artifact = made.finish(4.25, 1.5, [retreat])
    assert find(tmp_path, MADE_OF) == artifact
    assert artifact.recipe == "gptq:int4-g64"
    assert (artifact.bytes, artifact.bits_per_weight, artifact.degradations) == (7, 4.25, (retreat,))
    assert find(tmp_path, Ingredients(MADE_OF.recipe, "model", "other texts")) is None


def test_a_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def halfway() -> None:
        with draft(tmp_path, MADE_OF) as made:
            write(made.folder)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        halfway()
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_lost_bytes_is_built_again(tmp_path: Path) -> None:
    with draft(tmp_path, MADE_OF) as made:
        write(made.folder)
        artifact = made.finish(4.25, 1.0, [])
    assert stands(artifact)
    assert not stands(replace(artifact, hash="another"))
    write(Path(artifact.location), b"wei")
    assert not stands(artifact)
    assert find(tmp_path, MADE_OF) is None
    assert not Path(artifact.location).exists()


def test_two_builds_of_one_artifact_end_as_one(tmp_path: Path) -> None:
    with draft(tmp_path, MADE_OF) as first:
        write(first.folder)
        made = first.finish(4.25, 1.0, [])
        assert made is not None
        with draft(tmp_path, MADE_OF) as second:
            write(second.folder)
            assert second.finish(4.25, 2.0, []) == made


# Builds, looks for and damages the same few artifacts for ever, beside others that do so too.
NEIGHBOUR = """
import random, sys
from pathlib import Path
from quantwise.build.artifact_folder import Ingredients, draft, find
from quantwise.core.recipe import parse_recipe
out, chance = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    wanted = Ingredients(parse_recipe("rtn:int4-g64,layout=gptq"), f"model {chance.randrange(3)}", None)
    found = find(out, wanted)
    if found is None:
        with draft(out, wanted) as made:
            for name in "abc":
                (made.folder / name).write_bytes(bytes(20_000))
            found = made.finish(4.25, 0.1, ())
    assert found.bytes == 60_000, found
    if chance.random() < 0.3:
        Path(found.location, "a").unlink(missing_ok=True)
    print("built", flush=True)
"""


def test_neighbours_in_one_folder_do_not_lose_what_the_other_writes(tmp_path: Path) -> None:
    """Three build the same names at once, a third of what is finished loses a file, and one is killed and replaced."""

    def start(seed: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", NEIGHBOUR, str(tmp_path), str(seed)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    working = [start(seed) for seed in range(3)]
    said = []
    for process in working:
        assert process.stdout is not None
        process.stdout.readline()
    for seed in range(3, 6):
        time.sleep(0.4)
        working[0].kill()
        said.append(working.pop(0).communicate())
        working.append(start(seed))
    for process in working:
        process.kill()
        said.append(process.communicate())
    assert not [errors for _, errors in said if errors]
    assert sum(out.count("built") for out, _ in said) > 20
    with draft(tmp_path, MADE_OF) as made:
        write(made.folder)
        made.finish(4.25, 1.0, [])
    assert not list(tmp_path.glob(".draft-*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full (Linux)")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    def fill() -> None:
        with draft(tmp_path, MADE_OF) as made:
            os.symlink("/dev/full", made.folder / "model.safetensors")
            write(made.folder)

    with pytest.raises(EnvironmentFailure, match="free some space") as caught:
        fill()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
