"""The GPTQ checkpoint layout, read entry by entry as its description says, and back by our own reader."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantwise.core.recipe import parse_recipe
from quantwise.core.scheme import Scheme, parse_scheme, with_layout
from quantwise.formats.compressed_tensors import IntegerLayer
from quantwise.formats.gptq_layout import (
    gptq_config,
    pack_gptq,
    unpack_gptq,
    write_gptq,
)
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.integer import integer_grid

NAMES = ["int2-g32", "int3-g64", "int3-channel-asym", "int4-g64", "int4-g64-asym", "int4-channel", "int8-g32-asym"]

# Printed by GPTQModel 7.6.0: blake2b (8 bytes) of qweight and qzeros that TorchLinear(bits=..., group_size=32,
# sym=False, desc_act=False, in_features=128, out_features=64, format="gptq_v2").pack_original makes of patterned().
OF_GPTQMODEL = {
    2: ("1d9df9074c8509a0", "bb2718353b691c3a"),
    3: ("36804aedc545077f", "a3f0c485e373c464"),
    4: ("c0d1a9fdfd4c8f10", "6a48e7a2fe736b13"),
    8: ("f48ae5842a67c836", "aa6abce3a2167220"),
}


def patterned(bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unsigned codes (64, 128), zero points and scales (64, 4), the same everywhere."""
    row, column, group = torch.arange(64)[:, None], torch.arange(128), torch.arange(4)
    codes = (row * 7 + column * 3 + row * column) % (1 << bits)
    return codes, (row * 5 + group) % (1 << bits), 2.0 ** -(row % 5 + group).float()


@pytest.mark.parametrize("bits", OF_GPTQMODEL)
def test_words_equal_those_of_gptqmodel(bits: int) -> None:
    codes, zero, scale = patterned(bits)
    half = 1 << (bits - 1)
    layer = IntegerLayer((codes - half).to(torch.int8), scale, (zero - half).float())
    stored = pack_gptq(layer, parse_scheme(f"int{bits}-g32-asym"), torch.float16)
    got = [hashlib.blake2b(stored[part].numpy().tobytes(), digest_size=8).hexdigest() for part in ("qweight", "qzeros")]
    assert tuple(got) == OF_GPTQMODEL[bits]


def layer_of(scheme: Scheme, rows: int = 32, columns: int = 128) -> tuple[IntegerLayer, torch.Tensor]:
    """A random matrix on the scheme's grid, and its values."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))
    grid = integer_grid(scheme)
    codes, steps = grid.quantize(weight)
    return IntegerLayer(codes, steps.scale, steps.zero), grid.decode(codes, steps)


def bits_at(words: list[int], bits: int, index: int) -> int:
    """Code ``index`` of a stream of 32-bit words."""
    return sum((word & 0xFFFFFFFF) << (32 * k) for k, word in enumerate(words)) >> (bits * index) & ((1 << bits) - 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_stands_where_the_layout_says(name: str) -> None:
    scheme = with_layout(parse_scheme(name), "gptq")
    layer, values = layer_of(scheme)
    stored = pack_gptq(layer, scheme, torch.bfloat16)
    rows, columns = values.shape
    assert stored["qweight"].shape == (columns * scheme.bits // 32, rows)
    assert stored["qzeros"].shape == (layer.scale.shape[1], rows * scheme.bits // 32)
    assert stored["scales"].dtype == torch.bfloat16
    assert all(tensor.is_contiguous() for tensor in stored.values())
    for row, column in [(0, 0), (1, 31), (7, 10), (31, 127), (16, 64), (30, 21)]:
        group = int(stored["g_idx"][column])
        assert group == column // (scheme.group or columns)
        code = bits_at(stored["qweight"][:, row].tolist(), scheme.bits, column)
        zero = bits_at(stored["qzeros"][group].tolist(), scheme.bits, row) + int(scheme.symmetric)
        assert float(stored["scales"][group, row]) * (code - zero) == pytest.approx(
            float(values[row, column]), abs=1e-7
        )


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_back_to_the_bit(name: str) -> None:
    scheme = parse_scheme(name)
    layer, _ = layer_of(scheme)
    read = unpack_gptq(pack_gptq(layer, scheme, torch.bfloat16), scheme)
    assert torch.equal(read.codes, layer.codes)
    assert torch.equal(read.scale, layer.scale)
    if read.zero is None:
        assert layer.zero is None
    else:
        assert layer.zero is not None
        assert torch.equal(read.zero, layer.zero)


def test_a_zero_point_that_would_wrap_is_stored_as_it_is() -> None:
    scheme = parse_scheme("int4-g32-asym")
    grid = integer_grid(scheme)
    codes, steps = grid.quantize(torch.rand(8, 64) + 0.1)
    stored = pack_gptq(IntegerLayer(codes, steps.scale, steps.zero), scheme, torch.bfloat16)
    assert int(stored["qzeros"].abs().max()) == 0
    assert gptq_config(scheme, [])["checkpoint_format"] == "gptq_v2"
    assert gptq_config(parse_scheme("int4-g32"), [])["checkpoint_format"] == "gptq"
    read = unpack_gptq(stored, scheme)
    assert torch.equal(grid.value(read.codes.float(), *steps.spread()), grid.decode(codes, steps))


def test_a_folder_holds_the_layers_the_rest_and_both_configs(tmp_path: Path) -> None:
    scheme = parse_recipe("gptq:int4-g64,layout=gptq").scheme
    assert scheme.format == "gptq"
    layer, _ = layer_of(scheme)
    model, target = tmp_path / "model", tmp_path / "target"
    model.mkdir()
    target.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    other = torch.randn(4, 8)
    save_file({"a.b.weight": torch.zeros(32, 128), "c.weight": other}, model / "model.safetensors")
    write_gptq(target, ModelFolder(model), {"a.b": layer}, scheme, ["lm_head", "m.0.o"])
    tensors = load_file(target / "model.safetensors")
    assert set(tensors) == {"a.b.qweight", "a.b.qzeros", "a.b.scales", "a.b.g_idx", "c.weight"}
    assert torch.equal(tensors["c.weight"], other.bfloat16())
    config = json.loads((target / "config.json").read_text())["quantization_config"]
    assert config == json.loads((target / "quantize_config.json").read_text())
    assert (config["bits"], config["group_size"], config["sym"], config["desc_act"]) == (4, 64, True, False)
    assert config["dynamic"] == {r"-:^m\.0\.o$": {}}
    with pytest.raises(KeyError, match="no such weights"):
        write_gptq(target, ModelFolder(model), {"nowhere": layer}, scheme, [])
