"""``auto``: a file within its budget, of types that were measured, and the same after a kill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import TEXTS, write_tiny

from quantwise.build.held_out import divergences, held_out
from quantwise.build.unfinished import Unfinished
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.grids import ggml_library

pytestmark = pytest.mark.skipif(ggml_library.library() is None, reason="needs ggml's library (xllamacpp)")
BYTES, BITS = "auto:190000b", "rtn+auto:5.2bpw"


def write_wide(folder: Path, tied: bool = True) -> None:
    """Rows of 256, so that every k type fits."""
    write_tiny(
        folder, "llama", hidden_size=256, intermediate_size=256, num_key_value_heads=4,
        tie_word_embeddings=tied, num_hidden_layers=1,
        attention_bias=False,  # Transformers loses the biases of a Llama in GGUF
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_wide(folder)
    return folder


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    recipes = [BYTES, "auto:230000b", BITS, "gptq+propagate+auto:4.5bpw", "gptq:q4_k_m"]
    found = build(model, [parse_recipe(r) for r in recipes], TEXTS, tmp_path_factory.mktemp("out"))
    return dict(zip(recipes, found, strict=True))


def test_a_file_holds_to_its_budget_and_uses_it(made: dict[str, Artifact]) -> None:
    for recipe, most in ((BYTES, 190_000), ("auto:230000b", 230_000)):
        held = Path(made[recipe].location).stat().st_size
        # The smallest matrix, 256 x 256, grows by at least 7168 bytes from one type to the next larger.
        assert most - 8_000 < held <= most
    assert 4.9 < read_gguf_header(Path(made[BITS].location)).bits_per_weight <= 5.2
    assert made[BITS].bits_per_weight == read_gguf_header(Path(made[BITS].location)).bits_per_weight


def test_the_record_tells_what_was_chosen_and_measured(made: dict[str, Artifact]) -> None:
    notes = made[BYTES].notes
    assert notes["measured_divergence"] > 0
    assert notes["expected_divergence"] > 0
    assert notes["mixes_measured"][notes["mix"]] == min(notes["mixes_measured"].values())
    assert len(notes["types"]) == 8
    stored = sorted(t.type for t in read_gguf_header(Path(made[BYTES].location)).tensors if t.type != "f32")
    assert stored == sorted(notes["types"].values())


def test_more_bytes_are_measured_to_be_closer(made: dict[str, Artifact], model: Path) -> None:
    small, large = made[BYTES], made["auto:230000b"]
    assert large.notes["measured_divergence"] < small.notes["measured_divergence"]
    data = held_out(model, [text.upper() for text in TEXTS])
    assert divergences(data, large).sum() < divergences(data, small).sum()


def test_the_measured_divergence_is_that_of_the_file(made: dict[str, Artifact], model: Path) -> None:
    """The file, read by Transformers, on the texts that were watched."""
    from quantwise.build.calibration import calibrate
    from quantwise.build.watch import set_aside

    data = calibrate(model, TEXTS, 128, 0)
    aside = [s for s, watched in set_aside(data.sequences) if watched]
    watched = [t for t in TEXTS if any(len(s) and _starts(model, t, s) for s in aside)]
    held = held_out(model, watched)
    total = divergences(held, made[BYTES]).sum() / held.positions.sum()
    assert made[BYTES].notes["watched_tokens"] == int(held.positions.sum())
    assert np.isclose(total, made[BYTES].notes["measured_divergence"], rtol=1e-3)


def _starts(model: Path, text: str, sequence: tuple[int, ...]) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    return tuple(ids[: len(sequence)]) == sequence


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("auto:1bpw", r"auto:1bpw is too small a budget; the smallest mix of this model takes 2\.6\d\d bits"),
        ("auto:90kB", r"auto:90kb is too small a budget; the smallest mix of this model takes \d+ bytes"),
    ],
)
def test_what_cannot_be_is_refused_before_the_walk(model: Path, tmp_path: Path, recipe: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(model, [parse_recipe(recipe)], TEXTS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_smallest_budget_that_is_named_is_enough(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        build(model, [parse_recipe("auto:1kb")], TEXTS, tmp_path)
    least = int(str(refusal.value).split()[-2])
    made = build(model, [parse_recipe(f"rtn+auto:{least}b")], TEXTS, tmp_path)[0]
    assert Path(made.location).stat().st_size == least
    assert set(made.notes["types"].values()) == {"q2_k"}


def test_killed_while_it_measures_it_goes_on(made: dict[str, Artifact], model: Path, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if what == f"measure mixes of {BYTES}":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(model, [parse_recipe(BYTES)], TEXTS, tmp_path, progress=stop)
    steps: list[str] = []
    again = build(model, [parse_recipe(BYTES)], TEXTS, tmp_path, progress=lambda what, *_: steps.append(what))
    assert again[0].hash == made[BYTES].hash
    assert "measure sensitivities" not in steps
    assert not list(tmp_path.glob(".walk-*"))
    assert Unfinished.take(tmp_path, "x").note("none", "mix") is None


def test_an_output_matrix_of_its_own_has_a_type_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_wide(tmp_path / "model", tied=False)
    made = build(tmp_path / "model", [parse_recipe("rtn+auto:4bpw")], TEXTS, tmp_path / "out")[0]
    assert {"lm_head.weight", "model.embed_tokens.weight"} < set(made.notes["types"])
    assert {t.name for t in read_gguf_header(Path(made.location)).tensors} > {"output.weight", "token_embd.weight"}
