"""Divergence of artifacts from their model: nothing for 16 bit, little for 8, and that of a slow obvious version."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_gguf_architectures import FIXED
from tiny_models import TEXTS, write_tiny

from quantwise.build.held_out import divergences, held_out
from quantwise.build.walk import build
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.architectures import ARCHITECTURES
from quantwise.models import reference
from quantwise.tasks.prose import held_out_text


def test_what_is_stored_decides(tmp_path: Path) -> None:
    data = held_out(reference.path(), held_out_text("screen", 3))
    recipes = ["16bit", "f16", "q8_0", "rtn:int8-channel", "rtn:int4-g64"]
    made = build(reference.path(), [parse_recipe(text) for text in recipes], [], tmp_path)
    kl = {name: divergences(data, artifact) / data.positions for name, artifact in zip(recipes, made, strict=True)}
    assert all(values.shape == (3,) for values in kl.values())
    assert np.abs(kl["16bit"]).max() < 1e-6
    assert np.abs(kl["f16"]).max() < 1e-5
    assert kl["q8_0"].max() < kl["rtn:int4-g64"].min()
    assert kl["rtn:int8-channel"].max() < kl["rtn:int4-g64"].min()


def test_against_the_definition_position_by_position(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    data = held_out(reference.path(), ["The old farmer walked to the river."])
    made = build(reference.path(), [parse_recipe("rtn:int4-g64")], [], tmp_path)[0]
    live = AutoModelForCausalLM.from_pretrained(made.location, dtype=torch.float32).eval()
    with torch.no_grad():
        q = live(input_ids=data.ids[0]).logits[0].double().log_softmax(-1).tolist()
    p = next(data.reference()).double().tolist()
    slow = sum(
        math.exp(a) * (a - b) for ours, theirs in zip(p, q, strict=True) for a, b in zip(ours, theirs, strict=True)
    )
    assert data.positions.tolist() == [data.ids[0].shape[1]] == [len(p)]
    assert divergences(data, made).tolist() == pytest.approx([slow], rel=1e-4)


# A wrong order of rows, norm offset or missing bias gives 0.01 nats and more on these models; f16 leaves 1e-5.
KINDS = ("llama", "gemma2", "gpt_neox", "mixtral", "granite")


@pytest.mark.parametrize("kind", [k if k in KINDS else pytest.param(k, marks=pytest.mark.long) for k in ARCHITECTURES])
def test_a_file_of_every_architecture_is_read_back_as_it_was_meant(kind: str, tmp_path: Path) -> None:
    """Gemma's norms less one, heads in the folder's order, experts one by one, biases too; a tied output follows."""
    model = tmp_path / "model"
    model.mkdir()
    write_tiny(model, kind, **FIXED.get(kind, {}))
    data = held_out(model, TEXTS[:2])
    made = build(model, [parse_recipe(r) for r in ("f16", "q8_0", "awq+rtn:q8_0")], TEXTS, tmp_path / "out")
    plain, rounded, scaled = (float((divergences(data, a) / data.positions).max()) for a in made)
    assert plain < 1e-6
    assert plain < min(rounded, scaled) <= max(rounded, scaled) < 2e-3


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    data = held_out(reference.path(), ["The old farmer walked to the river."])
    write_tiny(tmp_path, "llama")
    made = build(tmp_path, [parse_recipe("f16")], [], tmp_path / "out")[0]
    with pytest.raises(InputError, match=r"model\.gguf has no token_embd\.weight of shape .* another model"):
        divergences(data, made)


def test_distributions_too_large_to_keep_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = held_out_text("screen", 2)
    made = build(reference.path(), [parse_recipe("rtn:int4-g64")], [], tmp_path)[0]
    kept = held_out(reference.path(), texts)
    assert kept.kept is not None
    numbers = sum(p.numel() for p in kept.kept)
    monkeypatch.setattr("quantwise.build.held_out.MOST_KEPT", numbers - 1)
    again = held_out(reference.path(), texts)
    assert again.kept is None
    assert divergences(again, made).tolist() == divergences(kept, made).tolist()


def test_no_text_is_refused() -> None:
    with pytest.raises(InputError, match="no held-out text"):
        held_out(reference.path(), [""])


def by_hand(recipe: str, folder: Path) -> tuple[float, float]:
    """Measured divergence of ``recipe``; and that of the reference model with the stored weights, put in by hand, and
    inputs rounded token by token where the recipe says so.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    data = held_out(reference.path(), ["The old farmer walked to the river."])
    made = build(reference.path(), [parse_recipe(recipe)], [], folder)[0]
    live = AutoModelForCausalLM.from_pretrained(reference.path(), dtype=torch.float32).eval()
    stored = load_file(Path(made.location) / "model.safetensors")
    for name, module in live.named_modules():
        if recipe == "nf4" and f"{name}.weight.absmax" in stored:
            packed = stored[f"{name}.weight"].flatten()
            codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
            values = (
                stored[f"{name}.weight.quant_map"][codes].reshape(-1, 64) * stored[f"{name}.weight.absmax"][:, None]
            )
            module.weight.data = values.reshape(module.weight.shape)
        elif f"{name}.weight_scale" in stored:
            module.weight.data = stored[f"{name}.weight"].float() * stored[f"{name}.weight_scale"].float()
            module.register_forward_pre_hook(lambda _, args: (rounded(args[0]),))
    with torch.no_grad():
        q = live(input_ids=data.ids[0]).logits[0].log_softmax(-1)
    p = next(data.reference())
    return float(divergences(data, made).sum()), float((p.exp() * (p - q)).sum())


def rounded(inputs: Any) -> Any:
    step = inputs.abs().amax(-1, keepdim=True) / 127
    return (inputs / step).round() * step


@pytest.mark.parametrize("recipe", ["w8a8", "nf4"])
def test_inputs_are_rounded_and_nothing_else_in_16_bit(recipe: str, tmp_path: Path) -> None:
    """Left to itself, Transformers rounds inputs by other scales, and computes bitsandbytes layers in bfloat16."""
    if recipe == "nf4":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    got, wanted = by_hand(recipe, tmp_path)
    assert got == pytest.approx(wanted, rel=0.01)


def test_layouts_of_one_matrix_measure_alike(tmp_path: Path) -> None:
    data = held_out(reference.path(), ["The old farmer walked to the river."])
    names = ["rtn:int4-g64-asym", "rtn:int4-g64-asym,layout=gptq", "rtn:int4-g64-asym,layout=awq"]
    made = build(reference.path(), [parse_recipe(name) for name in names], [], tmp_path)
    packed, gptq, awq = (float(divergences(data, artifact).sum()) for artifact in made)
    assert gptq == pytest.approx(awq, rel=1e-4)
    # Transformers expands packed zero points to bfloat16 while it loads.
    assert packed == pytest.approx(gptq, rel=0.03)
