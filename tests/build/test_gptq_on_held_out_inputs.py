"""GPTQ beats rounding where it counts: output error of each projection on inputs that it has not seen."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import quantwise
from quantwise.build.calibration import calibrate
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.core.scheme import parse_scheme
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.integer import integer_grid
from quantwise.quantize import QUANTIZERS

REFERENCE = Path(quantwise.__file__).parent / "models" / "reference"
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def statistics(folder: Path, texts: list[str]) -> dict[str, Mapping[str, torch.Tensor]]:
    batches = list(calibrate(folder, texts, 256, 0).batches())
    blocks = walk_blocks(Skeleton(ModelFolder(folder)), batches, frozenset({"hessian", "mean_square"}))
    return {name: seen.values for block in blocks for name, seen in block.items()}


def output_energy(matrix: torch.Tensor, hessian: torch.Tensor) -> float:
    """Sum of squares of matrix @ x over the inputs of a Hessian."""
    return float(((matrix @ hessian) * matrix).sum())


def held_out_errors(folder: Path, scheme: str, text: str) -> dict[str, dict[str, float]]:
    """Projection to quantizer to the share of the output's energy that is lost, summed over the layers."""
    source, grid = ModelFolder(folder), integer_grid(parse_scheme(scheme))
    pieces = [text[i : i + 600] for i in range(0, 48_000, 600)]
    seen, held_out = statistics(folder, pieces[:60]), statistics(folder, pieces[60:])
    errors: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for name, values in seen.items():
        weight = source[f"{name}.weight"].float()
        if not parse_scheme(scheme).divides(weight.shape[1]):
            continue
        energy = output_energy(weight.double(), held_out[name]["hessian"])
        for quantizer, make in QUANTIZERS.items():
            change = (make()(weight, grid, values).dequantized - weight).double()
            errors[name.rsplit(".", 1)[-1]][quantizer] += output_energy(change, held_out[name]["hessian"]) / energy
    return errors


def check(folder: Path, scheme: str, text: str) -> None:
    errors = held_out_errors(folder, scheme, text)
    assert errors.keys() == PROJECTIONS
    for projection, error in errors.items():
        assert error["gptq"] < 0.75 * error["rtn"], (projection, dict(error))


@pytest.mark.skipif(not (REFERENCE / "config.json").is_file(), reason="the reference model is not trained yet")
@pytest.mark.parametrize("scheme", ["int4-g64", pytest.param("int4-channel", marks=pytest.mark.long)])
def test_on_every_projection_of_the_reference_model(shared_data: Path, scheme: str) -> None:
    check(REFERENCE, scheme, (shared_data / "text" / "tinystories-sample.txt").read_text(encoding="utf-8"))


def test_on_every_projection_of_a_model_that_is_not_ours(shared_data: Path) -> None:
    text = (shared_data / "text" / "tinystories-sample.txt").read_text(encoding="utf-8")
    check(shared_data / "models" / "babyllama-tok105", "int4-g32", text)
