"""Rounded inputs against explicit integer arithmetic, on layers and on folders that Transformers loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from quantwise.core.errors import RuntimeFailure
from quantwise.core.scheme import FIXED_SCHEMES, Scheme
from quantwise.formats.compressed_tensors import IntegerLayer, write_compressed
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.float8 import Float8Grid, to_bytes
from quantwise.grids.float8 import input_scale as float8_scale
from quantwise.grids.int8_inputs import fixed_scale, round_fixed, round_tokens
from quantwise.grids.integer import IntegerGrid, Steps
from quantwise.runtimes.rounded_inputs import RoundedLinear, round_inputs

SCHEMES = ["w8a8", "w8a8-static", "w4a8", "fp8", "fp8-static"]


def slow_codes(token: list[float], scale: float | None) -> tuple[list[int], float]:
    """One token's codes, one at a time in float32, and the scale."""
    f = torch.float32
    if scale is None:
        found = torch.tensor(max(abs(v) for v in token), dtype=f) / 127
        values = [torch.tensor(v, dtype=f) * (1 / found) for v in token]
        scale = float(found)
    else:
        values = [torch.tensor(v, dtype=f) / torch.tensor(scale, dtype=f) for v in token]
    # Python's round goes to even, as the kernels do.
    return [max(-128, min(127, round(float(v)))) for v in values], scale


@pytest.mark.parametrize("fixed", [None, 0.02])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_codes_equal_the_obvious_version(fixed: float | None, dtype: torch.dtype) -> None:
    x = (torch.randn(7, 33, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    codes, scale = (
        round_tokens(x) if fixed is None else (round_fixed(x, torch.tensor([fixed])), torch.full((7, 1), fixed))
    )
    for token, got, step in zip(x, codes, scale, strict=True):
        wanted, found = slow_codes(token.float().tolist(), fixed)
        assert got.tolist() == wanted
        assert float(step) == pytest.approx(found, rel=1e-7)
    assert codes.dtype == torch.int8
    assert fixed is None or int((codes == -128).sum() + (codes == 127).sum()) > 0


def test_tokens_of_zeros_and_ties() -> None:
    codes, _ = round_tokens(torch.tensor([[0.0, 0.0], [127.0, 2.5], [-127.0, 3.5]]))
    assert codes.tolist() == [[0, 0], [127, 2], [-127, 4]]
    assert fixed_scale(torch.tensor([1.0, 254.0])).tolist() == [2.0]
    assert fixed_scale(torch.zeros(3)).tolist() == [1.0]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("fixed", [None, torch.tensor([0.03])])
def test_outputs_equal_explicit_integer_arithmetic_to_the_bit(groups: int, fixed: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-128, 128, (5, 64), generator=generator, dtype=torch.int8)
    scale = torch.rand(5, groups, generator=generator) / 50
    bias = torch.randn(5, generator=generator).bfloat16()
    x = torch.randn(2, 3, 64, generator=generator).bfloat16()
    got = RoundedLinear(weight, scale, bias, fixed)(x)
    assert got.dtype == torch.bfloat16
    codes, step = round_tokens(x) if fixed is None else (round_fixed(x, fixed), fixed.expand(2, 3, 1))
    width = 64 // groups
    for b in range(2):
        for t in range(3):
            for o in range(5):
                total = torch.zeros(())
                for g in range(groups):
                    part = range(g * width, (g + 1) * width)
                    whole = sum(int(codes[b, t, i]) * int(weight[o, i]) for i in part)
                    total = total + torch.tensor(float(whole)) * scale[o, g]
                assert got[b, t, o] == (total * step[b, t, 0] + bias[o].float()).bfloat16()


def test_float8_outputs_are_close_to_exact_arithmetic_on_the_same_codes() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, x = torch.randn(5, 64, generator=generator), torch.randn(4, 64, generator=generator)
    grid = Float8Grid()
    codes, steps = grid.quantize(weight)
    got = RoundedLinear(to_bytes(codes), steps.scale, None, None)(x)
    for t in range(4):
        step = float(x[t].abs().max()) / 448
        rounded = [float(torch.tensor(float(v) / step).to(torch.float8_e4m3fn)) * step for v in x[t]]
        wanted = grid.decode(codes, steps).double() @ torch.tensor(rounded, dtype=torch.float64)
        assert torch.allclose(got[t].double(), wanted, rtol=1e-4, atol=1e-4)


def test_float8_codes_are_those_of_vllm_also_where_a_quotient_lies_between_two() -> None:
    """Numbers of 16 bit often do; dividing by the scale and multiplying by its reciprocal then give different codes."""
    found = []
    for top in torch.arange(1.0, 2.0, 1 / 128).bfloat16():
        for value in torch.arange(0.5, 1.0, 1 / 256).bfloat16():
            step = top.float() / 448
            divided, times = (v.to(torch.float8_e4m3fn) for v in (value.float() / step, value.float() * (1 / step)))
            if divided != times:
                found.append((top, value, times))
    assert found
    identity = torch.eye(2).to(torch.float8_e4m3fn)
    for top, value, times in found:
        (out,) = RoundedLinear(identity, torch.ones(2), None, None)(torch.stack([top, value])[None].float())
        assert out[1] == times.float() * (top.float() / 448)


def small_model(folder: Path) -> ModelFolder:
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, initializer_range=0.05, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.to(torch.bfloat16).save_pretrained(folder)
    return ModelFolder(folder)


def layer(weight: torch.Tensor, scheme: Scheme) -> tuple[IntegerLayer, torch.Tensor]:
    """The stored layer, and the float32 matrix that it stands for."""
    largest = torch.full((weight.shape[1],), 6.0)
    if scheme.kind == "float8":
        float8 = Float8Grid("tensor" if scheme.granularity == "tensor" else "channel")
        codes, steps = float8.quantize(weight)
        fixed = float8_scale(largest) if scheme.activations == "fp8-tensor" else None
        return IntegerLayer(to_bytes(codes), steps.scale, None, fixed), float8.decode(codes, steps)
    grid = IntegerGrid(scheme.bits, scheme.granularity, scheme.group)
    steps = grid.fit(weight)
    codes = grid.encode(weight, steps)
    fixed = fixed_scale(largest) if scheme.activations == "int8-tensor" else None
    return IntegerLayer(codes, steps.scale, None, fixed), grid.decode(codes, Steps(steps.scale, None, weight.shape[1]))


@pytest.mark.parametrize("name", SCHEMES)
def test_a_folder_loads_and_its_layers_compute_with_rounded_inputs(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    (tmp_path / "model").mkdir()
    (tmp_path / "out").mkdir()
    source, scheme = small_model(tmp_path / "model"), FIXED_SCHEMES[name]
    linear = [n.removesuffix(".weight") for n in source if n.endswith("_proj.weight")]
    made = {n: layer(source[f"{n}.weight"].float(), scheme) for n in linear}
    write_compressed(tmp_path / "out", source, {n: made[n][0] for n in linear}, scheme, ["lm_head"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
    assert round_inputs(model) == 14
    assert round_inputs(model) == 0
    caught: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for n in linear:
        model.get_submodule(n).register_forward_hook(lambda _, args, out, n=n: caught.update({n: (args[0], out)}))
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").eval()(ids).logits
    assert caught.keys() == set(linear)
    for n, (x, out) in caught.items():
        assert x.dtype == out.dtype == torch.bfloat16
        fixed = made[n][0].input_scale
        if scheme.kind == "integer":
            codes, step = round_tokens(x) if fixed is None else (round_fixed(x, fixed.bfloat16()), fixed.bfloat16())
            rounded = codes.double() * step.double()
        else:
            step = x.float().abs().amax(-1, keepdim=True) / 448 if fixed is None else fixed.bfloat16().float()
            rounded = (x.float() * (1 / step)).clamp(-448, 448).to(torch.float8_e4m3fn).double() * step.double()
        wanted = rounded @ made[n][1].double().T
        if f"{n}.bias" in source:
            wanted = wanted + source[f"{n}.bias"].double()
        # One rounding, to bfloat16, lies between the two.
        assert torch.allclose(out.double(), wanted, rtol=2**-8, atol=1e-4), n
    spread = float(plain.float().std())
    assert 0 < float((logits - plain).float().std()) < 0.5 * spread


class Strange(nn.Linear):
    """What a brought folder may hold."""

    def __init__(self) -> None:
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        super().__init__(4, 4)
        four = QuantizationArgs(num_bits=4, strategy="token", dynamic=True)
        weights = QuantizationArgs(num_bits=4, strategy="channel")
        self.quantization_scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=four)


def test_a_way_of_rounding_that_is_not_known_is_refused_and_plain_models_stay() -> None:
    with pytest.raises(RuntimeFailure, match=r"layer 0 rounds its inputs in a way that is not known here \(4 bit"):
        round_inputs(nn.Sequential(Strange()))
    assert round_inputs(nn.Sequential(nn.Linear(4, 4))) == 0
