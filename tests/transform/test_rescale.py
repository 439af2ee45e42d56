"""A rescaled model is the same function: a tiny Llama with biases and shared value heads, in float64."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quantwise.core.scheme import parse_scheme
from quantwise.grids.integer import integer_grid
from quantwise.transform import TRANSFORMS
from quantwise.transform.rescale import clipped, divided_norm, divided_rows, rescaled, scaled_sink

HEADS, SHARED, WIDTH = 4, 2, 8


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=SHARED, head_dim=WIDTH, attention_bias=True, mlp_bias=True, max_position_embeddings=32,
        initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def value_rows() -> torch.Tensor:
    """The row of v_proj behind each input channel of o_proj: query heads 0 and 1 read value head 0, and so on."""
    heads = torch.arange(HEADS) // (HEADS // SHARED)
    return (heads.unsqueeze(1) * WIDTH + torch.arange(WIDTH)).flatten()


def inputs_of(model: LlamaForCausalLM, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of each linear layer, (tokens, in)."""
    found: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, name=name: found.update({name: args[0].detach().flatten(0, 1)})
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return found


def statistics(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"hessian": x.T @ x, "mean_square": x.square().mean(0), "absmax": x.abs().amax(0)}


@torch.no_grad()
def apply(model: LlamaForCausalLM, transform: str, ids: torch.Tensor) -> list[torch.Tensor]:
    """Rescale the four places of every block where a producer is known; the scales."""
    seen, scales, grid = inputs_of(model, ids), [], integer_grid(parse_scheme("int4-g32"))
    for index, block in enumerate(model.model.layers):
        attention, mlp, at = block.self_attn, block.mlp, f"model.layers.{index}."
        places = [
            (block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj], "self_attn.q_proj", None),
            (attention.v_proj, [attention.o_proj], "self_attn.o_proj", value_rows()),
            (block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], "mlp.gate_proj", None),
            (mlp.up_proj, [mlp.down_proj], "mlp.down_proj", None),
        ]
        for producer, sinks, read_by, rows in places:
            weights = [sink.weight.data for sink in sinks]
            scale = TRANSFORMS[transform]()(weights, [grid] * len(weights), statistics(seen[at + read_by]), rows).scale
            for sink in sinks:
                sink.weight.copy_(scaled_sink(sink.weight, scale))
            if isinstance(producer, torch.nn.Linear):
                weight, bias = divided_rows(producer.weight, producer.bias, scale, rows)
                producer.bias.copy_(bias)
            else:
                weight, _, scale = divided_norm(producer.weight, None, scale)
            producer.weight.copy_(weight)
            scales.append(scale)
    return scales


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_rescaled_model_gives_the_same_logits(name: str) -> None:
    model, ids = tiny(), torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(ids).logits
        inputs = inputs_of(model, ids)
        scales = apply(model, name, ids)
        after = model(ids).logits
    assert sum(bool((scale != 1).any()) for scale in scales) >= 6
    assert torch.allclose(before, after, rtol=0, atol=1e-9 * float(before.abs().max()))
    changed = inputs_of(model, ids)["model.layers.1.self_attn.o_proj"]
    expected = inputs["model.layers.1.self_attn.o_proj"] / scales[5]
    assert torch.allclose(changed, expected, rtol=1e-6)


def test_statistics_are_those_of_the_divided_tensor() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scale = torch.tensor([0.1, 1.0, 2.0, 3.5, 8.0, 0.7])
    found, expected = rescaled(statistics(x), scale), statistics(x / scale)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-12) for name in found)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_stored_in_16_bit_stays_exact_because_its_scale_follows(offset: float) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(64, generator=generator).bfloat16()
    bias, scale = torch.randn(64, generator=generator), torch.rand(64, generator=generator) * 5 + 0.2
    weight[7] = -offset
    # Divided by its scale, this gain of 2^-7 lies a quarter of a step from -1 and would round to no gain at all.
    weight[8], scale[8] = 2**-7 - offset, 8.0
    stored, shrunk, exact = divided_norm(weight, bias, scale, torch.bfloat16, offset)
    assert stored.dtype == torch.bfloat16
    assert torch.allclose((stored.double() + offset) * exact, weight.double() + offset, rtol=1e-6, atol=1e-12)
    assert shrunk is not None
    assert torch.allclose(shrunk * exact, bias, rtol=1e-5)
    assert torch.allclose(exact, scale, rtol=0.02 if offset == 0 else 1.0)
    assert exact[7] == scale[7]
    assert exact[8] == (8.0 if offset == 0 else 1.0)


def test_bounds_reach_their_own_group_only() -> None:
    weight = torch.tensor([[5.0, -5.0, 5.0, -5.0], [1.0, 2.0, 3.0, 4.0]])
    got = clipped(weight, torch.tensor([[1.0, 4.0], [1.5, 9.0]]))
    assert got.tolist() == [[1.0, -1.0, 4.0, -4.0], [1.0, 1.5, 3.0, 4.0]]


def test_a_gain_that_its_type_cannot_hold_stays() -> None:
    stored, _, exact = divided_norm(torch.tensor([400.0, 2.0]), None, torch.tensor([0.001, 0.5]), torch.float16)
    assert stored.tolist() == [400.0, 4.0]
    assert exact.tolist() == [1.0, 0.5]
