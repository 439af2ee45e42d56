"""Every scheme that has a name, in every layout and by every quantizer that may fill it: what is stored is what was
meant, read back by the library whose format it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from quantwise.build.storage import storage_for
from quantwise.core.recipe import QUANTIZERS as FILLABLE
from quantwise.core.recipe import Recipe
from quantwise.core.scheme import FIXED_SCHEMES, GROUP_SIZES, INTEGER_BITS, Scheme, parse_scheme, with_layout
from quantwise.formats.compressed_tensors import quantization_config, storage
from quantwise.formats.gptq_layout import unpack_gptq
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids import ggml_library
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.integer import integer_grid
from quantwise.models import reference
from quantwise.quantize import QUANTIZERS

NAME, ROWS, COLUMNS = "model.layers.0.self_attn.q_proj", 32, 256


def integer_names() -> Iterator[str]:
    for bits in INTEGER_BITS:
        yield f"int{bits}-tensor"
        for shape in ("channel", *(f"g{size}" for size in GROUP_SIZES)):
            yield from (f"int{bits}-{shape}", f"int{bits}-{shape}-asym")


def recipes() -> Iterator[Recipe]:
    schemes = [scheme for scheme in FIXED_SCHEMES.values() if scheme.kind != "float"]
    integers = [parse_scheme(name) for name in integer_names()]
    grouped = [scheme for scheme in integers if scheme.granularity != "tensor"]
    schemes += [*integers, *(with_layout(s, "gptq") for s in grouped)]
    schemes += [with_layout(s, "awq") for s in grouped if s.bits == 4]
    for scheme in schemes:
        for quantizer, kinds in FILLABLE.items():
            # All of a format's codes come of one place, so each integer scheme is filled once by each of two.
            if scheme.kind in kinds and (scheme.kind != "integer" or quantizer != "imatrix"):
                yield Recipe(scheme, quantizer)


@cache
def source() -> ModelFolder:
    return ModelFolder(reference.path())


@cache
def weight() -> Tensor:
    """Rows of every kind: smooth, zeros, one outlier, tiny, of one sign, with a zero group."""
    made = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) / 20
    made[1] = 0
    made[2, 40] = 9
    made[3] *= 1e-5
    made[4] = made[4].abs()
    made[5] = -made[5].abs()
    made[6, :128] = 0
    return made.bfloat16().float()


@cache
def seen() -> Mapping[str, Tensor]:
    x = torch.randn(600, COLUMNS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, 100] = 0
    return {"hessian": x.T @ x, "mean_square": x.square().mean(0), "absmax": x.abs().amax(0).float()}


def read_compressed(stored: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    config = QuantizationConfig.model_validate(quantization_config(scheme, [])).config_groups["group_0"]
    compressor = BaseCompressor.get_value_from_registry(storage(scheme))
    found: Tensor = compressor.decompress(dict(stored), config)["weight"]
    return found


def read_gptq(stored: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    layer = unpack_gptq(stored, scheme)
    wide = layer.scale.repeat_interleave(COLUMNS // layer.scale.shape[1], 1)
    zero = 0 if layer.zero is None else layer.zero.repeat_interleave(COLUMNS // layer.scale.shape[1], 1)
    return (layer.codes - zero) * wide


def read_awq(stored: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    """Through the converter of compressed-tensors, which knows the layout from AutoAWQ."""
    from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter

    named = {f"a.{part}": tensor for part, tensor in stored.items()}
    made = AutoAWQConverter(group_size=scheme.group or COLUMNS).process(named)
    # To the converter, a row is a group and a symmetric code has a zero point.
    as_group = Scheme("a", "integer", 4, "group", "compressed-tensors", scheme.group or COLUMNS, symmetric=False)
    return read_compressed({name.removeprefix("a."): tensor for name, tensor in made.items()}, as_group)


def read_bitsandbytes(stored: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    library = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
    if scheme.kind == "llm-int8":
        return stored["weight"] * stored["SCB"].unsqueeze(1) / 127
    parts = {f"weight.{name.removeprefix('weight.')}": t for name, t in stored.items() if name != "weight"}
    state = library.QuantState.from_dict(parts, device=torch.device("cpu"))
    state.dtype = torch.float32
    found: Tensor = library.dequantize_4bit(stored["weight"], state)
    return found


def read_gguf(stored: Mapping[str, Tensor], scheme: Scheme) -> Tensor:
    kind = next(k for k in KINDS if GgmlBlocks(k).bits_per_weight * COLUMNS == stored["weight"].shape[1] * 8)
    return torch.from_numpy(GgmlBlocks(kind).decode(np.asarray(stored["weight"])))


# Of types of one size, the first is what a mix gives this matrix here.
KINDS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0", "q4_1", "q5_1")
READERS: dict[str, Callable[[Mapping[str, Tensor], Scheme], Tensor]] = {
    "compressed-tensors": read_compressed,
    "gptq": read_gptq,
    "awq": read_awq,
    "bitsandbytes": read_bitsandbytes,
    "gguf": read_gguf,
}


@pytest.mark.parametrize("recipe", list(recipes()), ids=lambda recipe: recipe.name)
def test_what_is_stored_is_what_was_meant(recipe: Recipe) -> None:
    scheme = recipe.scheme
    if scheme.kind == "ggml" and ggml_library.library() is None:
        pytest.skip("needs ggml's library (xllamacpp)")
    place = storage_for(recipe, source())
    grid = place.grid(NAME, torch.Size((ROWS, COLUMNS)))
    assert grid is not None
    assert not isinstance(grid, str)
    quantizer, before = QUANTIZERS[recipe.quantizer or ""](), weight().clone()
    made = quantizer(weight(), grid, {k: seen()[k] for k in quantizer.needs})
    assert torch.equal(weight(), before)
    assert int(made.codes.min()) >= grid.lowest
    assert int(made.codes.max()) <= grid.highest
    assert torch.equal(made.dequantized, grid.decode(made.codes, made.steps))
    assert bool((made.dequantized[1] == 0).all())
    stored = {name.removeprefix(f"{NAME}."): t for name, t in place.pack(NAME, made, seen()).items()}
    if scheme.name in ("q4_0", "q5_0"):
        read = torch.from_numpy(GgmlBlocks(scheme.name).decode(np.asarray(stored["weight"])))
    else:
        read = READERS[scheme.format](stored, scheme)
    exact = scheme.format not in ("compressed-tensors", "awq", "bitsandbytes")
    meant = made.dequantized if exact or scheme.kind == "nf4" else made.dequantized.bfloat16()
    if scheme.kind == "llm-int8":
        assert torch.allclose(read, made.dequantized, rtol=1e-6, atol=0)
    else:
        assert torch.equal(read.to(meant.dtype), meant)


@pytest.mark.parametrize("name", list(integer_names()))
def test_error_falls_with_bits_and_never_exceeds_the_energy(name: str) -> None:
    """A sign or a zero point that is off by one would show here in every row."""
    grid = integer_grid(parse_scheme(name))
    codes, steps = grid.quantize(weight())
    values, wide = grid.decode(codes, steps), steps.spread()[0].expand_as(weight())
    # Half a step inside the range, a step at its ends, where zero points and scales were rounded.
    assert bool(((values - weight()).abs() <= 1.02 * wide).all())
    assert bool((values[:, 100][weight()[:, 100] == 0] == 0).all())
    assert bool((values[4] >= 0).all())
    assert bool((values[5] <= 0).all())
