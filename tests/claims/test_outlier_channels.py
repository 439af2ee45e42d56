"""AWQ, SmoothQuant and LLM.int8() rescue a model with outlier channels, and do little for one without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from measuring import measure

from quantwise.models import reference
from quantwise.testing.outlier_model import write_outlier_model

WEIGHTS = ("rtn:int4-g64", "awq+rtn:int4-g64", "gptq:int4-g64", "awq+gptq:int4-g64")
INPUTS = ("rtn:w8a8", "smoothquant+rtn:w8a8", "rtn:w8a8-static", "smoothquant+rtn:w8a8-static", "llm-int8", "fp8")


def logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    live = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, 2048, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return live(tokens).logits  # type: ignore[no-any-return]


def test_outliers_leave_every_logit_as_it_was(outlier_model: Path, tmp_path: Path) -> None:
    before, after = logits(reference.path()), logits(outlier_model)
    assert torch.allclose(before, after, rtol=0, atol=1e-5 * float(before.abs().max()))
    with pytest.raises(ValueError, match="no power of two"):
        write_outlier_model(tmp_path / "other", factor=60)


@pytest.fixture(scope="module")
def grown(outlier_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Mean KL of the recipes on the model with outliers, built in one pass."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    found = measure(outlier_model, tmp_path_factory.mktemp("out"), *WEIGHTS, *INPUTS)
    return {name: float(values.mean()) for name, values in found.items()}


def test_awq_rescues_weights_whose_columns_shrank(grown: dict[str, float]) -> None:
    assert grown["awq+rtn:int4-g64"] < 0.6 * grown["rtn:int4-g64"]
    # GPTQ lets other columns absorb what the small ones lose, and that is not enough here.
    assert grown["awq+gptq:int4-g64"] < 0.8 * grown["gptq:int4-g64"]


def test_smoothquant_rescues_inputs_and_so_do_outliers_kept_in_16_bit(grown: dict[str, float]) -> None:
    assert grown["smoothquant+rtn:w8a8"] < 0.05 * grown["rtn:w8a8"]
    assert grown["smoothquant+rtn:w8a8-static"] < 0.1 * grown["rtn:w8a8-static"]
    # LLM.int8() multiplies the columns of outliers in 16 bit; its weights are rounded in rows all the same.
    assert grown["llm-int8"] < 0.2 * grown["rtn:w8a8"]


def test_eight_bit_floats_hardly_mind_outliers(grown: dict[str, float]) -> None:
    """Their steps are relative, so one scale serves large and small channels alike."""
    assert grown["fp8"] < 0.2 * grown["rtn:w8a8"]


@pytest.mark.long
def test_without_outliers_the_same_methods_change_little(grown: dict[str, float], tmp_path: Path) -> None:
    plain = {k: float(v.mean()) for k, v in measure(reference.path(), tmp_path, *WEIGHTS, *INPUTS).items()}
    assert grown["rtn:int4-g64"] > 1.8 * plain["rtn:int4-g64"]
    assert grown["rtn:w8a8"] > 20 * plain["rtn:w8a8"]
    assert grown["awq+rtn:int4-g64"] < 1.3 * plain["awq+rtn:int4-g64"]
    assert grown["smoothquant+rtn:w8a8"] < 1.5 * plain["rtn:w8a8"]
    assert 0.8 < plain["awq+rtn:int4-g64"] / plain["rtn:int4-g64"] < 1.25
    assert 0.6 < plain["smoothquant+rtn:w8a8"] / plain["rtn:w8a8"] < 1.25
