"""Memory is flat in depth: one block at a time, whatever the number of layers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import write_tokenizer

PROGRAM = """
import sys
from pathlib import Path
from quantwise.build.walk import build
from quantwise.core.recipe import parse_recipe
from tiny_models import TEXTS
recipes = [parse_recipe(r) for r in ("gptq:int4-g128", "rtn:int8-channel")]
build(Path(sys.argv[1]), recipes, TEXTS, Path(sys.argv[2]))
# Not ru_maxrss, which begins with what the parent held when it forked.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


def write_deep(folder: Path, layers: int) -> None:
    """Hidden 512, ffn 1024, its blocks in shards of four: 10 MB of float32 for each layer."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    folder.mkdir()
    write_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=300, hidden_size=512, intermediate_size=1024, num_hidden_layers=layers, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=128, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    draw = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=draw) * 0.04).bfloat16()

    shards: list[dict[str, torch.Tensor]] = [
        {"model.embed_tokens.weight": matrix(300, 512), "lm_head.weight": matrix(300, 512),
         "model.norm.weight": torch.ones(512).bfloat16()}
    ]  # fmt: skip
    for layer in range(layers):
        if layer % 4 == 0:
            shards.append({})
        at = f"model.layers.{layer}"
        shards[-1] |= {f"{at}.self_attn.{p}_proj.weight": matrix(512, 512) for p in "qkvo"}
        shards[-1] |= {f"{at}.mlp.{p}_proj.weight": matrix(1024, 512) for p in ("gate", "up")}
        shards[-1][f"{at}.mlp.down_proj.weight"] = matrix(512, 1024)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shards[-1][f"{at}.{norm}.weight"] = torch.ones(512).bfloat16()
    names = {}
    for number, shard in enumerate(shards):
        file = f"model-{number:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def peak(tmp_path: Path, layers: int) -> int:
    """Kilobytes that a build of so many layers held at most."""
    write_deep(tmp_path / f"model-{layers}", layers)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / f"model-{layers}"), str(tmp_path / f"out-{layers}")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_peak_memory_is_flat_in_depth(tmp_path: Path) -> None:
    peaks = {layers: peak(tmp_path, layers) for layers in (4, 16, 64)}
    print(peaks)
    assert max(peaks.values()) <= 1.1 * min(peaks.values()), peaks
