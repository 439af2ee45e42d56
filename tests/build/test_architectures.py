"""Every architecture through the walk: Transformers loads what was chosen, and unknown modules are named."""

import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, TEXTS, write_tiny

from quantwise.build.architectures import ARCHITECTURES, architecture_of
from quantwise.build.calibration import calibrate
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.build.walk import build
from quantwise.core.errors import InputError
from quantwise.core.recipe import parse_recipe
from quantwise.formats.safetensors_folder import ModelFolder

# One of each way in which architectures differ; the others are many processes' worth of the same.
_QUICK = {"gemma3_text", "phi3", "gpt_neox", "mixtral"}
KINDS = [pytest.param(kind, marks=() if kind in _QUICK else pytest.mark.long) for kind in CONFIGS]
IDS = torch.arange(2, 42).reshape(2, 20)


def load(folder: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(folder)(IDS).logits.float()


def unpack(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """The obvious way: every code as text of bits."""
    words = packed.numpy().astype(np.uint32)
    codes = np.stack([(words >> (bits * i)) & ((1 << bits) - 1) for i in range(32 // bits)], -1)
    return torch.from_numpy(codes.reshape(len(words), -1)[:, :columns].astype(np.int64)) - (1 << (bits - 1))


def write_dequantized(artifact: Path, model: Path, target: Path) -> int:
    """The model's folder with every packed matrix written out; returns how many there were."""
    stored, plain, count = load_file(artifact / "model.safetensors"), {}, 0
    for name, tensor in stored.items():
        stem, _, part = name.rpartition(".")
        if part == "weight_packed":
            rows, columns = stored[f"{stem}.weight_shape"].tolist()
            scale = stored[f"{stem}.weight_scale"].float().repeat_interleave(64, 1)
            plain[f"{stem}.weight"] = (unpack(tensor, 4, columns) * scale).bfloat16()
            assert plain[f"{stem}.weight"].shape == (rows, columns)
            count += 1
        elif part not in ("weight_scale", "weight_shape"):
            plain[name] = tensor
    target.mkdir()
    save_file(plain, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text((model / "config.json").read_text())
    return count


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_computes_with_exactly_the_chosen_weights(kind: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_tiny(model, kind)
    recipes = [parse_recipe("rtn:int4-g64"), parse_recipe("gptq:int4-g64")]
    original = logits(model)
    divergence = []
    for artifact in build(model, recipes, TEXTS, tmp_path / "out"):
        plain = tmp_path / f"plain-{artifact.recipe[:3]}"
        layers = write_dequantized(Path(artifact.location), model, plain)
        skeleton = Skeleton(ModelFolder(model))
        assert layers == sum(len(skeleton.linear_layers(i)) for i in range(2)) > 6
        found = logits(Path(artifact.location))
        assert torch.equal(found, logits(plain))
        p, q = original.log_softmax(-1), found.log_softmax(-1)
        divergence.append(float((p.exp() * (p - q)).sum(-1).mean()))
        assert {d.what.partition(" ")[2] for d in artifact.degradations if ".experts." not in d.where} == set()
    assert 0 < divergence[0] < 0.5
    assert divergence[1] < 0.5


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if not ARCHITECTURES[kind].experts])
def test_products_of_the_served_type_change_statistics_little(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Positions far apart: an angle of a rotary embedding that was rounded too would show.
    write_tiny(tmp_path, kind)
    data = calibrate(tmp_path, [" ".join(TEXTS * 8)], 60 if kind == "opt" else 300, 0)  # OPT learns its positions

    def hessians() -> dict[str, torch.Tensor]:
        blocks = walk_blocks(Skeleton(ModelFolder(tmp_path)), list(data.batches()))
        return {name: seen.values["hessian"] for block in blocks for name, seen in block.items()}

    served = hessians()
    monkeypatch.setattr("quantwise.build.stream.products_in", lambda dtype: nullcontext())
    exact = hessians()
    for name, hessian in exact.items():
        assert float((served[name] - hessian).norm() / hessian.norm()) < 0.02, name


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_the_whole_model(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In float32 all the way, so that only the way is compared.
    monkeypatch.setattr("quantwise.build.stream.products_in", lambda dtype: nullcontext())
    write_tiny(tmp_path, kind)
    data = calibrate(tmp_path, TEXTS, 64, 0)
    skeleton = Skeleton(ModelFolder(tmp_path))
    found = {name: seen for block in walk_blocks(skeleton, list(data.batches())) for name, seen in block.items()}
    model, slow = load(tmp_path).float(), {}

    def hook(name: str):  # type: ignore[no-untyped-def]
        def add(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            slow[name] = slow.get(name, 0) + x.T @ x

        return add

    for name, module in model.named_modules():
        if name in found:
            module.register_forward_pre_hook(hook(name))
    with torch.no_grad():
        for sequence in data.sequences:
            model(torch.tensor([sequence]))
    assert set(found) >= set(slow)
    assert all(".experts." in name for name in set(found) - set(slow))
    for name, hessian in slow.items():
        most = 1e-3 * float(hessian.abs().max())
        assert torch.allclose(found[name].values["hessian"], hessian, rtol=1e-3, atol=most), name
    tokens = sum(map(len, data.sequences))
    experts = [seen.tokens for name, seen in found.items() if re.search(r"layers\.0\..*experts.*gate_proj", name)]
    if experts:
        assert sum(experts) == 2 * tokens
    assert all(seen.tokens == tokens for name, seen in found.items() if ".experts." not in name)


def test_an_unknown_architecture_is_refused_with_what_has_no_place(tmp_path: Path) -> None:
    write_tiny(tmp_path, "gptj", n_embd=64, n_layer=2, n_head=4, n_inner=128, n_positions=64, rotary_dim=8)
    with pytest.raises(InputError, match=r"'gptj'.*h\.0\.attn\.k_proj \(Linear\).*known model types: llama"):
        build(tmp_path, [parse_recipe("rtn:int4-g64")], [], tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_unlisted_type_with_familiar_names_is_refused_too() -> None:
    modules = {"model.embed_tokens": "Embedding", "model.layers.0.self_attn.q_proj": "Linear", "lm_head": "Linear"}
    with pytest.raises(InputError, match=r"'cohere'.*not known"):
        architecture_of({"model_type": "cohere"}, modules)
    assert architecture_of({"model_type": "qwen2"}, modules) is ARCHITECTURES["qwen2"]
