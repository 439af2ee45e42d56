"""LLM.int8() against the bitsandbytes library, and its product of outliers and integers against the obvious version."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantwise.core.errors import InputError
from quantwise.formats.bitsandbytes_int8 import OUTLIER, Int8Layer, pack_int8, write_int8
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.llm_int8 import LlmInt8Grid

GRID = LlmInt8Grid()


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * torch.logspace(-3, 1, rows).unsqueeze(1)
    weight[0, 0] = 0
    return weight.bfloat16().float()


def slow_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Outputs (tokens, out) in float64: columns with an outlier as they are, the others in whole numbers."""
    codes, steps = GRID.quantize(weight)
    x = x.half()
    outlier = [j for j in range(x.shape[1]) if any(abs(float(v)) >= OUTLIER for v in x[:, j])]
    rest = [j for j in range(x.shape[1]) if j not in outlier]
    out = torch.zeros(len(x), len(weight), dtype=torch.float64)
    for t in range(len(x)):
        # The library also counts what an outlier column holds below the threshold; the paper would not.
        largest = max(abs(float(v)) for v in x[t] if abs(float(v)) < OUTLIER)
        whole = {j: round(float(torch.tensor(float(x[t, j])) * (127.0 / torch.tensor(largest)))) for j in rest}
        for o in range(len(weight)):
            step = float(steps.scale[o])
            integers = sum(whole[j] * int(codes[o, j]) for j in rest) * step * largest / 127
            sixteen_bit = sum(float(x[t, j]) * int(codes[o, j]) * step for j in outlier)
            out[t, o] = integers + sixteen_bit + float(bias[o])
    return out


def test_codes_and_scales_are_what_rows_need() -> None:
    weight = matrix(9, 32)
    codes, steps = GRID.quantize(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().amax(1).tolist() == [127] * 9
    assert torch.allclose(steps.scale, weight.half().float().abs().amax(1, keepdim=True) / 127)
    assert float((GRID.decode(codes, steps) - weight).abs().div(steps.scale).max()) <= 0.51
    nothing, ones = GRID.quantize(torch.zeros(2, 4))
    assert nothing.tolist() == [[0] * 4] * 2
    assert ones.scale.tolist() == [[1.0], [1.0]]
    with pytest.raises(InputError, match="does not fit"):
        GRID.quantize(torch.full((1, 2), 1e6))


def test_stored_tensors_are_the_librarys_own_byte_for_byte() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    weight = matrix(64, 768, 1)
    codes, largest, _ = bnb.functional.int8_vectorwise_quant(weight.half())
    made, steps = GRID.quantize(weight)
    stored = pack_int8(Int8Layer(made, steps.scale))
    assert torch.equal(stored["weight"], codes)
    assert torch.allclose(stored["SCB"], largest, rtol=2e-7, atol=0)
    layer = bnb.nn.Linear8bitLt(768, 64, bias=False, has_fp16_weights=False, threshold=OUTLIER)
    layer.weight.data = weight
    kept = layer.to("cpu").state_dict()
    assert stored.keys() == kept.keys()
    assert all((stored[name].dtype, stored[name].shape) == (kept[name].dtype, kept[name].shape) for name in kept)


def test_transformers_and_the_library_compute_what_the_paper_says(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        attention_bias=True, initializer_range=0.1,
    )  # fmt: skip
    model, folders = LlamaForCausalLM(config).half(), [tmp_path / "model", tmp_path / "out"]
    # Two channels of every normed input are outliers.
    model.model.layers[0].input_layernorm.weight.data[[3, 17]] = 20.0
    torch.nn.init.normal_(model.model.layers[0].self_attn.q_proj.bias.data)
    model.save_pretrained(folders[0])
    folders[1].mkdir()
    source = ModelFolder(folders[0])
    names = [name.removesuffix(".weight") for name in source if name.endswith("_proj.weight")]
    layers = {
        name: Int8Layer(made[0], made[1].scale)
        for name in names
        if (made := GRID.quantize(source[f"{name}.weight"].float()))
    }
    write_int8(folders[1], source, layers, ["lm_head"])
    loaded = AutoModelForCausalLM.from_pretrained(folders[1], dtype="auto").eval()
    caught: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in names:
        loaded.get_submodule(name).register_forward_hook(
            lambda _, args, out, name=name: caught.update({name: (args[0], out)})
        )
    with torch.no_grad():
        loaded(torch.randint(0, 64, (1, 6), generator=torch.Generator().manual_seed(1)))
    assert caught.keys() == set(names)
    for name, (x, out) in caught.items():
        bias = source[f"{name}.bias"] if f"{name}.bias" in source else torch.zeros(out.shape[-1])
        wanted = slow_product(x[0], source[f"{name}.weight"].float(), bias)
        assert torch.allclose(out[0].double(), wanted, rtol=2e-3, atol=2e-3 * float(wanted.abs().max())), name
    outliers = caught["model.layers.0.self_attn.q_proj"][0].abs().amax((0, 1)) >= OUTLIER
    assert outliers.nonzero().flatten().tolist() == [3, 17]
