"""pack-quantized layers, unpacked by the compressed-tensors library's own decompressor."""

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor, PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

from quantwise.core.scheme import parse_scheme
from quantwise.formats.compressed_tensors import (
    IntegerLayer,
    is_static,
    pack,
    packed_parts,
    quantization_config,
    storage,
    unpack,
)
from quantwise.grids.float8 import Float8Grid, to_bytes
from quantwise.grids.integer import integer_grid


@pytest.mark.parametrize("columns", [128, 384])
@pytest.mark.parametrize(
    "name",
    [
        "int4-g64",
        "int4-g128",
        "int8-channel",
        "int4-tensor",
        "int3-g32",
        "int2-channel",
        "int4-g64-asym",
        "int8-g32-asym",
    ],
)
def test_the_library_reads_back_what_was_meant(name: str, columns: int) -> None:
    scheme = parse_scheme(name)
    grid = integer_grid(scheme)
    weight = torch.randn(40, columns, generator=torch.Generator().manual_seed(3))
    steps = grid.fit(weight)
    layer = IntegerLayer(grid.encode(weight, steps), steps.scale, steps.zero)
    stored = pack(layer, scheme, torch.bfloat16)
    weights = quantization_config(scheme, [])["config_groups"]["group_0"]["weights"]
    theirs = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**weights))
    read = PackedQuantizationCompressor.decompress(stored, theirs)["weight"]
    assert read.dtype == torch.bfloat16
    assert torch.equal(read, grid.decode(layer.codes, steps).bfloat16())
    packed_bits = stored["weight_packed"].numel() * 32
    assert packed_bits == weight.numel() * scheme.bits


@pytest.mark.parametrize("name", ["w8a8", "w8a8-static", "w4a8", "fp8", "fp8-static", "fp8-weights"])
def test_schemes_that_round_inputs_too_are_read_back(name: str) -> None:
    """The library's own configuration class takes the group, and its decompressor of that layout the tensors."""
    scheme = parse_scheme(name)
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(4))
    if scheme.kind == "float8":
        float8 = Float8Grid("tensor" if scheme.granularity == "tensor" else "channel")
        ranks, steps = float8.quantize(weight)
        codes, meant = to_bytes(ranks), float8.decode(ranks, steps)
    else:
        grid = integer_grid(scheme)
        codes, steps = grid.quantize(weight)
        meant = grid.decode(codes, steps)
    fixed = torch.tensor([0.25]) if is_static(scheme) else None
    stored = pack(IntegerLayer(codes, steps.scale, None, fixed), scheme, torch.bfloat16)
    config = quantization_config(scheme, ["lm_head"])
    theirs = QuantizationConfig.model_validate(config).config_groups["group_0"]
    read = BaseCompressor.get_value_from_registry(storage(scheme)).decompress(stored, theirs)
    assert torch.equal(read["weight"], meant.bfloat16())
    assert (theirs.input_activations is None) == (scheme.activations is None)
    assert ("input_scale" in stored) == name.endswith("-static")
    assert config["format"] == theirs.format == storage(scheme)
    if theirs.input_activations is not None:
        kind = ("float" if scheme.kind == "float8" else "int", name.endswith("-static"))
        assert (theirs.input_activations.type, not theirs.input_activations.dynamic) == kind
    other = IntegerLayer(codes, steps.scale, None, None if fixed is not None else torch.ones(1))
    with pytest.raises(ValueError, match="fixed scale of inputs"):
        pack(other, scheme, torch.bfloat16)


@pytest.mark.parametrize("name", ["int2-g32", "int3-g64-asym", "int4-channel-asym", "int4-tensor", "int8-g128"])
def test_what_is_packed_is_read_again_exactly(name: str) -> None:
    scheme = parse_scheme(name)
    grid = integer_grid(scheme)
    codes, steps = grid.quantize(torch.randn(24, 256, generator=torch.Generator().manual_seed(0)))
    layer = IntegerLayer(codes, steps.scale, steps.zero)
    stored = pack(layer, scheme, torch.bfloat16)
    assert set(packed_parts(scheme)) == set(stored)
    again = unpack(stored, scheme)
    assert torch.equal(again.codes, codes)
    assert torch.equal(again.scale, steps.scale)
    assert (again.zero is None) if steps.zero is None else torch.equal(again.zero, steps.zero)
    assert all(torch.equal(stored[part], tensor) for part, tensor in pack(again, scheme, torch.bfloat16).items())
