"""pack-quantized layers, unpacked by the compressed-tensors library's own decompressor."""

import pytest
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from quantwise.core.scheme import parse_scheme
from quantwise.formats.compressed_tensors import IntegerLayer, pack, quantization_config
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
