"""Folders of ModelOpt's layout: names, types and shapes as published, and the numbers of the artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from published import MODELOPT_FIELDS, MODELOPT_TENSORS, QUANT_CONFIG_FIELDS
from torch import Tensor

from quantwise.cli.main import main
from quantwise.core.errors import InputError
from quantwise.core.scheme import parse_scheme
from quantwise.export import tensorrt_llm
from quantwise.formats.compressed_tensors import IntegerLayer, is_static, storage, write_compressed
from quantwise.formats.content_hash import content_hash
from quantwise.formats.modelopt import ALGORITHMS, FUSED, lacks, pack_rows, unpack_rows
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.float8 import Float8Grid, to_bytes
from quantwise.grids.integer import integer_grid
from quantwise.models import reference

SCHEMES = tuple(ALGORITHMS)


def layer_of(name: str, weight: Tensor) -> IntegerLayer:
    scheme = parse_scheme(name)
    inputs = torch.tensor([0.037]) if is_static(scheme) else None
    if scheme.kind == "float8":
        float8 = Float8Grid("tensor" if scheme.granularity == "tensor" else "channel")
        ranks, steps = float8.quantize(weight)
        return IntegerLayer(to_bytes(ranks), steps.scale, None, inputs)
    grid = integer_grid(scheme)
    steps = grid.fit(weight)
    return IntegerLayer(grid.encode(weight, steps), steps.scale, None, inputs)


def written(name: str, folder: Path, **record: Any) -> Path:
    """The reference model's first block in a scheme; the others stay in 16 bit."""
    source = ModelFolder(reference.path())
    names = [
        n.removesuffix(".weight") for n in source if n.startswith("model.layers.0.") and n.endswith("_proj.weight")
    ]
    rest = [
        n.removesuffix(".weight") for n in source if n.endswith("_proj.weight") and not n.startswith("model.layers.0.")
    ]
    folder.mkdir()
    layers = {n: layer_of(name, source[f"{n}.weight"].float()) for n in names}
    write_compressed(folder, source, layers, parse_scheme(name), ["lm_head", *rest])
    body = {"recipe": f"rtn:{name}", "format": "compressed-tensors"} | record
    (folder / "quantwise.json").write_text(json.dumps(body))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Scheme to the artifact and what was made of it."""
    place = tmp_path_factory.mktemp("exports")
    made = {}
    for name in SCHEMES:
        artifact = written(name, place / name)
        tensorrt_llm.export(artifact, place / f"{name}-out")
        made[name] = (artifact, place / f"{name}-out")
    return made


def quant_config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "hf_quant_config.json").read_text())
    return found


@pytest.mark.parametrize("name", SCHEMES)
def test_tensors_are_named_typed_and_shaped_as_published(name: str, exported: Any) -> None:
    artifact, out = exported[name]
    before, after = ModelFolder(artifact, quantized=True), ModelFolder(out)
    published = MODELOPT_TENSORS[quant_config(out)["quantization"]["quant_algo"]]
    source = ModelFolder(reference.path())
    layers = [n.removesuffix(".weight_scale") for n in before if n.endswith(".weight_scale")]
    assert len(layers) == 7
    wanted = {n for n in before if not n.startswith(tuple(f"{layer}." for layer in layers))}
    for layer in layers:
        rows, columns = source.entries[f"{layer}.weight"].shape
        for part, (kind, shape) in published.items():
            if part == "pre_quant_scale" and layer.endswith(FUSED):
                continue
            wanted.add(f"{layer}.{part}")
            entry = after.entries[f"{layer}.{part}"]
            sizes = [int(eval(text, {}, {"rows": rows, "columns": columns})) for text in shape.split(",") if text]
            assert (part, entry.dtype, list(entry.shape)) == (part, kind, sizes)
    assert set(after) == wanted


@pytest.mark.parametrize("name", SCHEMES)
def test_the_quant_config_says_what_is_published(name: str, exported: Any) -> None:
    _, out = exported[name]
    found = quant_config(out)
    assert set(found) == {"producer", "quantization"}
    assert found["producer"]["name"] == "modelopt"
    assert "quantwise" in found["producer"]["version"]
    quantization = found["quantization"]
    assert set(quantization) <= QUANT_CONFIG_FIELDS
    algorithm = quantization.pop("quant_algo")
    assert algorithm == ALGORITHMS[name].name
    excluded = quantization.pop("exclude_modules")
    assert "lm_head" in excluded
    assert "model.layers.1.mlp.up_proj" in excluded
    assert not [n for n in excluded if n.startswith("model.layers.0.")]
    assert quantization == {"kv_cache_quant_algo": None, **MODELOPT_FIELDS.get(algorithm, {})}
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config  # or Transformers' own reader would take the folder for the old layout
    assert config["hidden_size"] == 256
    assert (out / "tokenizer.json").is_file()


def slowly(stored: dict[str, Tensor]) -> Tensor:
    """Weights of a layer of ModelOpt's, one at a time, as its documentation of the layout reads."""
    codes, scale = stored["weight"], stored["weight_scale"]
    if codes.dtype != torch.uint8:
        return codes.float() * (scale if scale.dim() == 0 else scale[:, None])
    rows, columns = 2 * codes.shape[0], codes.shape[1]
    found = torch.empty(rows, columns)
    for row in range(rows):
        nibbles = [(int(byte) >> (4 * (row % 2))) & 15 for byte in codes[row // 2]]
        signed = [nibble - 16 if nibble > 7 else nibble for nibble in nibbles]
        found[row] = torch.tensor([code * float(scale[row, i // 128]) for i, code in enumerate(signed)])
    return found


def meant(name: str, stored: dict[str, Tensor]) -> Tensor:
    """Weights of a layer of the artifact, as compressed-tensors' own decompressor reads them where it packs."""
    scheme = parse_scheme(name)
    if storage(scheme) != "pack-quantized":
        scale = stored["weight_scale"].float()
        return stored["weight"].float() * (scale if scale.numel() == 1 else scale.reshape(-1, 1))
    arguments = QuantizationArgs(
        num_bits=scheme.bits, type="int", symmetric=True, strategy=scheme.granularity, group_size=scheme.group
    )
    wide = stored | {"weight_scale": stored["weight_scale"].float()}
    theirs = QuantizationScheme(targets=["Linear"], weights=arguments)
    read: Tensor = PackedQuantizationCompressor.decompress(wide, theirs)["weight"].float()
    return read


@pytest.mark.parametrize("name", SCHEMES)
def test_the_weights_are_those_of_the_artifact(name: str, exported: Any) -> None:
    before, after = (ModelFolder(folder, quantized=True) for folder in exported[name])
    for layer in ("model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.o_proj"):
        old, new = ({n.rsplit(".", 1)[1]: f[n] for n in f if n.startswith(f"{layer}.")} for f in (before, after))
        assert torch.equal(slowly(new), meant(name, old))
        if "input_scale" in old:
            assert float(new["input_scale"]) == float(old["input_scale"])
        if "pre_quant_scale" in new:
            assert torch.equal(new["pre_quant_scale"], torch.ones(new["weight"].shape[1], dtype=torch.bfloat16))
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(before[name], after[name])


def test_rows_are_packed_two_by_two_and_come_back() -> None:
    codes = torch.arange(-8, 8, dtype=torch.int8).repeat(4).reshape(4, 16)
    assert pack_rows(torch.tensor([[1, -1], [2, -8]], dtype=torch.int8)).tolist() == [[0x21, 0x8F]]
    assert torch.equal(unpack_rows(pack_rows(codes)), codes)
    with pytest.raises(ValueError, match="3 rows"):
        pack_rows(codes[:3])


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ("w4a8", "these are int8; build int4-g128 or fp8"),
        ("w8a8", "no kernel for int8 inputs; build fp8 or int8-channel"),
        ("w8a8-static", "the engine backend was removed"),
        ("fp8-weights", "build fp8 or fp8-static"),
        ("int4-g64", "groups of 128, not group 64; build int4-g128"),
        ("int4-channel", "groups of 128, not channel; build int4-g128"),
        ("int4-g128-asym", "no zero points; build int4-g128"),
        ("int8-g128", "build int8-channel"),
        ("int3-g128", "no 3-bit weights"),
        ("layerwise-int4-g128", "MIXED_PRECISION"),
        ("nf4", "bitsandbytes"),
        ("llm-int8", "bitsandbytes"),
        ("q4_k_m", "does not read GGUF"),
        ("16bit", "the model's own folder"),
    ],
)
def test_a_scheme_without_a_counterpart_is_refused_with_the_reason(scheme: str, why: str, tmp_path: Path) -> None:
    assert why in (lacks(parse_scheme(scheme)) or "")
    (tmp_path / "quantwise.json").write_text(json.dumps({"recipe": scheme, "format": "compressed-tensors"}))
    with pytest.raises(InputError, match="has no counterpart in TensorRT-LLM") as refused:
        tensorrt_llm.export(tmp_path, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_what_was_not_built_here_and_what_is_there_already_are_refused(exported: Any, tmp_path: Path) -> None:
    artifact, out = exported["int8-channel"]
    with pytest.raises(InputError, match="is no artifact of `quantwise build`"):
        tensorrt_llm.export(reference.path(), tmp_path / "out")
    with pytest.raises(InputError, match="is there already"):
        tensorrt_llm.export(artifact, out)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="does not read GGUF"):
        tensorrt_llm.export(tmp_path / "model.gguf", tmp_path / "out")
    laid_out = written("int4-g128", tmp_path / "gptq", format="gptq", recipe="rtn:int4-g128,layout=gptq")
    with pytest.raises(InputError, match="in the layout of gptq; build rtn:int4-g128 without layout="):
        tensorrt_llm.export(laid_out, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_it_says_that_nobody_has_run_it(exported: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, _ = exported["fp8-static"]
    arguments = ["export", str(artifact), "--to", "tensorrt-llm", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "never run here" in said
    assert f"trtllm-serve {tmp_path / 'out'}" in said
    assert "rounds their codes again" in said
    manifest = json.loads((tmp_path / "out" / "quantwise-export.json").read_text())
    assert manifest["status"] == "never run here"
    assert manifest["artifact_hash"] == content_hash(artifact)
    assert main([*arguments[:-1], str(tmp_path / "more"), "--context", "64"]) == 2


def test_a_float16_model_stays_one(tmp_path: Path) -> None:
    artifact = written("int4-g128", tmp_path / "artifact")
    config = json.loads((artifact / "config.json").read_text())
    (artifact / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    tensorrt_llm.export(artifact, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float16"
    assert ModelFolder(tmp_path / "out").entries["model.layers.0.mlp.down_proj.pre_quant_scale"].dtype == "F16"


def test_a_mixture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = written("int4-g128", tmp_path / "artifact")
    monkeypatch.setattr("quantwise.formats.modelopt.quantized", lambda folder: ["model.layers.0.mlp.experts.0.up_proj"])
    with pytest.raises(InputError, match="is a mixture of experts"):
        tensorrt_llm.export(artifact, tmp_path / "out")
