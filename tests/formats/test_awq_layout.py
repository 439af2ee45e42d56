"""The AWQ checkpoint layout, read entry by entry as its description says, and back by our own reader."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import parse_scheme
from quantwise.formats.awq_layout import awq_config, pack_awq, unpack_awq, write_awq
from quantwise.formats.compressed_tensors import IntegerLayer
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.integer import integer_grid

NAMES = ["int4-g64", "int4-g32-asym", "int4-channel", "int4-channel-asym"]
# Where in a word the code of each of eight neighbouring outputs lies, in units of 4 bits.
NIBBLE = {0: 0, 2: 1, 4: 2, 6: 3, 1: 4, 3: 5, 5: 6, 7: 7}


def layer_of(name: str) -> tuple[IntegerLayer, torch.Tensor]:
    grid = integer_grid(parse_scheme(name))
    codes, steps = grid.quantize(torch.randn(24, 128, generator=torch.Generator().manual_seed(9)))
    return IntegerLayer(codes, steps.scale, steps.zero), grid.decode(codes, steps)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_stands_where_the_layout_says(name: str) -> None:
    scheme = parse_scheme(name)
    layer, values = layer_of(name)
    stored = pack_awq(layer, scheme, torch.bfloat16)
    assert stored["qweight"].shape == (128, 3)
    for row in range(24):
        for column in (0, 31, 32, 127):
            group = column // (scheme.group or 128)
            shift = 4 * NIBBLE[row % 8]
            code = int(stored["qweight"][column, row // 8]) >> shift & 15
            zero = int(stored["qzeros"][group, row // 8]) >> shift & 15
            value = float(stored["scales"][group, row]) * (code - zero)
            assert value == pytest.approx(float(values[row, column]), abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_back_to_the_bit(name: str) -> None:
    scheme = parse_scheme(name)
    layer, _ = layer_of(name)
    read = unpack_awq(pack_awq(layer, scheme, torch.bfloat16), scheme)
    assert torch.equal(read.codes, layer.codes)
    assert torch.equal(read.scale, layer.scale)
    assert (read.zero is None) == (layer.zero is None)
    if read.zero is not None and layer.zero is not None:
        assert torch.equal(read.zero, layer.zero)


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(ValueError, match="hold 4 bits"):
        pack_awq(IntegerLayer(torch.zeros(8, 8), torch.ones(8, 1)), parse_scheme("int8-channel"), torch.bfloat16)


def test_a_folder_holds_the_layers_the_rest_and_the_config(tmp_path: Path) -> None:
    scheme = parse_recipe("awq+rtn:int4-g64-asym,layout=awq").scheme
    assert scheme.format == "awq"
    model, target = tmp_path / "model", tmp_path / "target"
    model.mkdir()
    target.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a.b.weight": torch.zeros(24, 128)}, model / "model.safetensors")
    write_awq(target, ModelFolder(model), {"a.b": layer_of("int4-g64-asym")[0]}, scheme, ["lm_head"])
    assert set(load_file(target / "model.safetensors")) == {"a.b.qweight", "a.b.qzeros", "a.b.scales"}
    config = json.loads((target / "config.json").read_text())["quantization_config"]
    assert config == awq_config(scheme, ["lm_head"])
    assert (config["version"], config["zero_point"], config["group_size"]) == ("gemm", True, 64)
