"""FP8 folders, read by the compressed-tensors library and by Transformers."""

from pathlib import Path

import pytest
import torch

from quantwise.core.scheme import parse_scheme
from quantwise.formats.compressed_tensors import IntegerLayer, pack, quantization_config, write_compressed
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.float8 import Float8Grid, input_scale, to_bytes

NAMES = ["fp8-weights", "fp8", "fp8-static"]


def layer_of(weight: torch.Tensor, name: str) -> tuple[IntegerLayer, torch.Tensor]:
    scheme = parse_scheme(name)
    grid = Float8Grid("tensor" if scheme.granularity == "tensor" else "channel")
    codes, steps = grid.quantize(weight)
    fixed = input_scale(torch.full((weight.shape[1],), 5.0)) if name == "fp8-static" else None
    return IntegerLayer(to_bytes(codes), steps.scale, input_scale=fixed), grid.decode(codes, steps)


@pytest.mark.parametrize("name", NAMES)
def test_the_library_reads_back_what_was_meant(name: str) -> None:
    from compressed_tensors.compressors import FloatQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    layer, values = layer_of(torch.randn(24, 96, generator=torch.Generator().manual_seed(0)), name)
    stored = pack(layer, parse_scheme(name), torch.bfloat16)
    assert stored["weight"].dtype == torch.float8_e4m3fn
    weights = quantization_config(parse_scheme(name), [])["config_groups"]["group_0"]["weights"]
    theirs = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    read = FloatQuantizationCompressor.decompress(stored, theirs)["weight"]
    assert torch.equal(read.bfloat16(), values.bfloat16())


@pytest.mark.parametrize("name", NAMES)
def test_transformers_runs_the_folder(tmp_path: Path, name: str) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    model, target = tmp_path / "model", tmp_path / "target"
    target.mkdir()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, tie_word_embeddings=False, max_position_embeddings=64,
    )  # fmt: skip
    plain = LlamaForCausalLM(config).to(torch.bfloat16)
    plain.save_pretrained(model)
    source = ModelFolder(model)
    made = {n.removesuffix(".weight"): layer_of(source[n], name) for n in source if "_proj" in n}
    write_compressed(target, source, {n: layer for n, (layer, _) in made.items()}, parse_scheme(name), ["lm_head"])
    loaded = AutoModelForCausalLM.from_pretrained(target, dtype="auto")
    tokens = torch.arange(16).unsqueeze(0)
    with torch.no_grad():
        logits = loaded(tokens).logits.float()
    plain.load_state_dict({**dict(source), **{f"{n}.weight": v.bfloat16() for n, (_, v) in made.items()}})
    with torch.no_grad():
        expected = plain(tokens).logits.float()
    for module, (_, values) in made.items():
        assert torch.equal(loaded.get_submodule(module).weight, values.bfloat16())
    share = float((logits - expected).norm() / expected.norm())
    # Inputs that are rounded too keep four significant bits; else only the order of sums differs.
    assert share < (0.01 if name == "fp8-weights" else 0.2)
    assert (share > 0.01) == (name != "fp8-weights")
