"""NF4 folders: what lies in the file, and what bitsandbytes and Transformers make of it, bit for bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from quantwise.formats.bitsandbytes import NestedScales, Nf4Layer, pack_nf4, write_nf4
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.nf4 import Nf4Grid, dynamic_numbers, normal_quantiles


def layer_of(weight: torch.Tensor, double: bool) -> tuple[Nf4Layer, torch.Tensor]:
    grid = Nf4Grid(double)
    codes, steps = grid.quantize(weight)
    r = steps.rounded
    nested = None if r is None else NestedScales(r.codes, dynamic_numbers(), r.largest, r.mean)
    return Nf4Layer(codes, normal_quantiles(), steps.scale, nested), grid.decode(codes, steps)


@pytest.mark.parametrize("double", [False, True])
def test_every_entry_stands_where_the_layout_says(double: bool) -> None:
    layer, values = layer_of(torch.randn(40, 512, generator=torch.Generator().manual_seed(1)), double)
    stored = pack_nf4(layer, torch.bfloat16)
    state = json.loads(bytes(stored["weight.quant_state.bitsandbytes__nf4"].tolist()))
    assert (state["shape"], state["blocksize"], state["dtype"]) == ([40, 512], 64, "bfloat16")
    assert stored["weight"].shape == (40 * 256, 1)
    for at in (0, 1, 62, 63, 64, 999, 40 * 512 - 1):
        byte = int(stored["weight"][at // 2, 0])
        code = byte & 15 if at % 2 else byte >> 4
        scale = stored["weight.absmax"][at // 64]
        if double:
            nested = stored["weight.nested_quant_map"][int(scale)] * stored["weight.nested_absmax"][at // 64 // 256]
            scale = nested + torch.tensor(state["nested_offset"])
        assert stored["weight.quant_map"][code] * scale == values.reshape(-1)[at]


@pytest.mark.parametrize("double", [False, True])
def test_bitsandbytes_reads_the_same_values(double: bool) -> None:
    library = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    layer, values = layer_of(torch.randn(40, 512, generator=torch.Generator().manual_seed(2)), double)
    stored = pack_nf4(layer, torch.bfloat16)
    weight = stored.pop("weight")
    state = library.QuantState.from_dict(stored, device=torch.device("cpu"))
    assert torch.equal(library.dequantize_4bit(weight, state), values.bfloat16())


@pytest.mark.parametrize("double", [False, True])
def test_transformers_loads_the_folder_with_our_weights(tmp_path: Path, double: bool) -> None:
    library = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    model, target = tmp_path / "model", tmp_path / "target"
    target.mkdir()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(model)
    source = ModelFolder(model)
    kept = ["model.layers.0.self_attn.o_proj", "lm_head"]
    names = [n.removesuffix(".weight") for n in source if "_proj" in n]
    made = {n: layer_of(source[f"{n}.weight"], double) for n in names if n not in kept}
    write_nf4(target, source, {n: layer for n, (layer, _) in made.items()}, kept)
    assert (
        sum(name.endswith("bitsandbytes__nf4") for name in load_file(target / "model.safetensors")) == len(made) == 13
    )
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    for name, (_, values) in made.items():
        module = loaded.get_submodule(name)
        assert type(module).__name__ == "Linear4bit"
        assert torch.equal(library.dequantize_4bit(module.weight, module.weight.quant_state), values.bfloat16())
    for name in kept:
        assert torch.equal(loaded.get_submodule(name).weight, source[f"{name}.weight"])
    logits = loaded(torch.arange(8).unsqueeze(0)).logits
    plain = LlamaForCausalLM(config).to(torch.bfloat16)
    plain.load_state_dict(
        {**{n: source[n] for n in source}, **{f"{n}.weight": v.bfloat16() for n, (_, v) in made.items()}}
    )
    expected = plain(torch.arange(8).unsqueeze(0)).logits
    assert torch.allclose(logits.float(), expected.float(), atol=0.02)
