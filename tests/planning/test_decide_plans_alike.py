"""``decide`` and ``plan`` say the same bytes of one model, scheme, runtime, cache, context and number of requests."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models import reference
from quantwise.models.from_config import decoder_of
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.planning import PlanRequest, plan
from quantwise.question.propose import parse
from quantwise.scenarios.reader import read_site
from quantwise.scenarios.site import Site
from quantwise.testing.blank_gguf import BlankModel, write_blank

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1024,
    "max_position_embeddings": 4096, "tie_word_embeddings": True,
}  # fmt: skip
SLIDING = LLAMA | {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"], "sliding_window": 256}
LATENT = LLAMA | {
    "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "kv_lora_rank": 128, "q_lora_rank": 64,
    "qk_nope_head_dim": 32, "qk_rope_head_dim": 32, "v_head_dim": 64, "num_key_value_heads": 4, "n_routed_experts": 4,
    "n_shared_experts": 1, "moe_intermediate_size": 128, "num_experts_per_tok": 2, "first_k_dense_replace": 1,
    "n_group": 1, "topk_group": 1, "tie_word_embeddings": False,
}  # fmt: skip
FILES = {
    "llama": BlankModel(),
    "gemma3": BlankModel("gemma3", window=512, period=6, layers=6, tied=True, mix="q4_0"),
    "deepseek2": BlankModel(
        "deepseek2", heads=8, kv_heads=1, dim=96, rank=128, turned=32, experts=4, feed_forward=256, shared=256
    ),
}
CANDIDATES = [
    "16bit@transformers", "rtn:int8-channel", "rtn:int4-g64", "rtn:int4-g64,layout=gptq", "rtn:int4-g64,layout=awq",
    "rtn:nf4-dq", "16bit@transformers,kv=int8-token", "16bit@llamacpp", "q8_0", "q4_k_m", "imatrix:q2_k",
    "auto:5bpw", "rtn:q4_0", "q4_k_m,kv=q8_0", "16bit@vllm", "rtn:int4-g64@vllm",
]  # fmt: skip


def write_folder(folder: Path, config: dict[str, Any]) -> Path:
    """A folder whose weights are a hole."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for name, shape in decoder_of(config, "m").tensors.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return folder


def alike(candidate: str, model: Path | None, place: Path, site: str, context: int, requests: int) -> None:
    one = parse(candidate)
    found = plan_candidate(one, model, Workload(context, requests, read_site(site)))
    scheme = "stored" if model is None else one.source
    planned = plan(
        PlanRequest(
            models=(str(place),),
            site=site,
            context=context,
            concurrency=requests,
            runtime=one.runtime,
            schemes=(scheme,),
            cache=one.cache,
        )
    )
    said = (
        planned["weights_bytes"],
        planned["kv_cache_bytes"],
        planned["compute_bytes"][1] + planned["overhead_bytes"],
    )
    assert (found.weights_bytes, found.cache_bytes, found.overhead_bytes) == said
    assert (found.total_bytes, found.limit_bytes) == (planned["total_bytes"], planned["limit_bytes"])


@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("site", ["nas", "rtx-4090", "m1-max"])
def test_of_the_reference_model(candidate: str, site: str) -> None:
    for context, requests in ((512, 1), (2048, 4)):
        alike(candidate, reference.path(), reference.path(), site, context, requests)


@pytest.mark.parametrize("config", [LLAMA, SLIDING, LATENT], ids=["uniform", "sliding", "latent"])
def test_of_folders(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", config)
    for candidate in ("16bit@transformers", "rtn:int4-g64", "q8_0", "q4_k_m", "16bit@vllm"):
        alike(candidate, folder, folder, "nas", 1024, 2)
    alike(str(folder), None, folder, "nas", 1024, 2)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("site", ["nas", "rtx-4090"])
def test_of_files(kind: str, site: str, tmp_path: Path) -> None:
    file = tmp_path / f"{kind}.gguf"
    write_blank(file, FILES[kind])
    for context, requests in ((512, 1), (4096, 3)):
        alike(str(file), None, file, site, context, requests)


def test_a_window_and_a_latent_keep_less_than_all_keys_and_values(tmp_path: Path) -> None:
    kept = []
    for name, config in (("uniform", LLAMA), ("sliding", SLIDING)):
        folder = write_folder(tmp_path / name, config)
        kept.append(plan_candidate(parse("16bit@transformers"), folder, Workload(2048)).cache_bytes or 0)
    # Five of six layers keep 256 of 2048 tokens.
    assert kept == [6 * 2048 * 512, (2048 + 5 * 256) * 512]
    file = tmp_path / "latent.gguf"
    write_blank(file, FILES["deepseek2"])
    assert plan_candidate(parse(str(file)), None, Workload(2048)).cache_bytes == 4 * 2048 * (128 + 32) * 2


def test_what_the_planner_does_not_know_is_unknown_and_no_complaint(tmp_path: Path) -> None:
    strange = LLAMA | {"model_type": "of-tomorrow", "architectures": ["TomorrowForCausalLM"], "ssm_state": 7}
    folder = write_folder(tmp_path / "strange", LLAMA)
    (folder / "config.json").write_text(json.dumps(strange))
    found = plan_candidate(parse("16bit@transformers"), folder, Workload(512))
    assert (found.fits, found.cache_bytes, found.overhead_bytes) == ("unknown", None, None)
    known = write_folder(tmp_path / "known", LLAMA)
    assert found.weights_bytes == plan_candidate(parse("16bit"), known, Workload(512)).weights_bytes
    tight = Workload(512, 1, Site(memory_bytes=1 << 20))
    assert plan_candidate(parse("16bit@transformers"), folder, tight).fits == "no"


def test_missing_shards_are_a_complaint(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", LLAMA)
    (folder / "config.json").write_text(json.dumps(LLAMA | {"num_hidden_layers": 7}))
    with pytest.raises(InputError, match="download the missing shards"):
        plan_candidate(parse("16bit@transformers"), folder, Workload(512))
