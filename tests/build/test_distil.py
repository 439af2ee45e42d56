"""Trained scales: codes stay, the watched divergence falls or nothing changes, and a kill costs one pass at most."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_auto import write_wide
from tiny_models import TEXTS

from quantwise.build import walk
from quantwise.build.calibration import Calibration, calibrate
from quantwise.build.distil import Coded, Distilled, Training, distil
from quantwise.build.held_out import divergences, held_out
from quantwise.build.skeleton import Skeleton
from quantwise.build.walk import build
from quantwise.build.watch import Watch, set_aside, trained_batches, watch, watched_batches, whole
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids import ggml_library
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.grids.integer import IntegerGrid

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
MATRICES = ("self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
GRIDS = {"q2_k": GgmlGrid("q2_k"), "q3_k": GgmlGrid("q3_k"), "int2-g64": IntegerGrid(2, "group", 64, False)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_wide(folder)
    return folder


def trained(model: Path, grid: GgmlGrid | IntegerGrid, training: Training) -> tuple[dict[str, Coded], Distilled, Watch]:
    data, skeleton = calibrate(model, TEXTS, 128, 0), Skeleton(ModelFolder(model))
    with whole(skeleton) as live:
        coded = {}
        for name in (f"model.layers.0.{part}.weight" for part in MATRICES):
            codes, steps = grid.quantize(live.get_parameter(name).detach())
            coded[name] = Coded(grid, codes, steps)
        watched = watch(live, watched_batches(data, 300))
        found = distil(live, coded, trained_batches(data, 300, 128), watched, training)
        again = watched.divergence({name: matrix.values() for name, matrix in found.coded.items()})
        assert again == pytest.approx(found.after, rel=1e-6)
    return coded, found, watched


@pytest.mark.parametrize("name", GRIDS)
def test_the_divergence_falls_and_what_is_stored_is_what_was_learned(model: Path, name: str) -> None:
    given, found, _ = trained(model, GRIDS[name], Training(least_steps=16))
    assert found.after < found.before == found.watched[0]
    for tensor, matrix in found.coded.items():
        assert torch.equal(matrix.codes, given[tensor].codes)
        grid, steps, before = matrix.grid, matrix.steps, given[tensor].steps
        if isinstance(grid, GgmlGrid):
            assert torch.equal(steps.scales, before.scales)
            assert not torch.equal(steps.d, before.d)
            codes, packed = grid.unpack(grid.pack(matrix.codes, steps))
            assert torch.equal(grid.decode(codes, packed), matrix.values())
        else:
            assert torch.equal(steps.zero, before.zero)
            assert torch.equal(steps.scale, steps.scale.to(torch.bfloat16).float())


def test_where_nothing_is_better_all_stays_as_it_was(model: Path) -> None:
    given, found, _ = trained(model, GRIDS["q2_k"], Training(rate=30.0, least_steps=16, patience=2))
    assert found.after == found.before
    # It stops after its patience, not at the end.
    assert len(found.watched) == 3
    assert all(found.coded[name] is matrix for name, matrix in given.items())


def test_equal_arguments_give_equal_scales(model: Path) -> None:
    one, two = (trained(model, GRIDS["q3_k"], Training(least_steps=8))[1] for _ in range(2))
    assert one.watched == two.watched
    assert all(torch.equal(one.coded[n].steps.d, two.coded[n].steps.d) for n in one.coded)


def test_without_texts_it_is_refused(model: Path) -> None:
    skeleton = Skeleton(ModelFolder(model))
    with whole(skeleton) as live:
        watched = watch(live, watched_batches(Calibration(((5, 6, 7, 8),), ""), 300))
        with pytest.raises(InputError, match="texts beside the watched ones"):
            distil(live, {}, [], watched)


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "Training", lambda: Training(least_steps=20))


@pytest.mark.usefixtures("briefly")
@pytest.mark.parametrize("recipe", ["distil+gptq:q2_k", "distil+awq+rtn:int3-g64-asym"])
def test_a_build_ends_in_trained_scales(model: Path, tmp_path: Path, recipe: str) -> None:
    plain = recipe.removeprefix("distil+")
    given, made = build(model, [parse_recipe(plain), parse_recipe(recipe)], TEXTS, tmp_path / "out")
    told = made.notes["watched_divergence"]
    assert told["after"] < told["before"]
    assert made.bytes == given.bytes
    assert made.hash != given.hash
    assert made.notes["distil_seconds"] > 0
    data = calibrate(model, TEXTS, 128, 0)
    aside = {sequence for sequence, watched in set_aside(data.sequences) if watched}
    held = held_out(model, TEXTS)
    kept = [i for i, ids in enumerate(held.ids) if tuple(ids[0].tolist()) in aside]
    for artifact, said in ((given, told["before"]), (made, told["after"])):
        found = divergences(held, artifact)[kept].sum() / held.positions[kept].sum()
        # Transformers unpacks integers to bfloat16.
        assert found == pytest.approx(said, rel=1e-3 if artifact.format == "gguf" else 0.05)


@pytest.mark.usefixtures("briefly")
def test_an_equal_key_is_an_equal_artifact_in_whatever_order_the_texts_come(model: Path, tmp_path: Path) -> None:
    one, other = (
        build(model, [parse_recipe("distil+rtn:q2_k")], TEXTS, tmp_path / str(seed), seed=seed)[0] for seed in (0, 1)
    )
    assert Path(one.location).parent.name == Path(other.location).parent.name
    assert one.hash == other.hash
    assert one.notes["watched_divergence"] == other.notes["watched_divergence"]
    assert "had a part in making this artifact" in one.notes["watched_texts"]


@pytest.mark.usefixtures("briefly")
def test_killed_while_it_trains_it_does_not_walk_again(model: Path, tmp_path: Path) -> None:
    recipe = parse_recipe("distil+gptq:q3_k_s")

    def stop(what: str, done: int, total: int) -> None:
        if what.startswith("distil") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(model, [recipe], TEXTS, tmp_path / "killed", progress=stop)
    blocks = next((tmp_path / "killed").glob(".walk-*/distil*/block-00000.safetensors"))
    before = blocks.stat().st_mtime_ns
    touched = []
    again = build(
        model, [recipe], TEXTS, tmp_path / "killed", progress=lambda *_: touched.append(blocks.stat().st_mtime_ns)
        if blocks.exists() else None,
    )  # fmt: skip
    assert set(touched) == {before}
    assert again[0].hash == build(model, [recipe], TEXTS, tmp_path / "whole")[0].hash
