"""A folder's decoder seen as llama.cpp would, beside the GGUF file of the same sizes."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.models.from_config import decoder_of
from quantwise.models.presets import PRESETS, preset_decoder
from quantwise.plan.constants import SUMMER_2026, XLLAMACPP_2026_10
from quantwise.plan.llamacpp.cache import llamacpp_cache
from quantwise.plan.llamacpp.compute import llamacpp_compute
from quantwise.plan.llamacpp.file import mapped_bytes, repacked_bytes, tensors_of_mix
from quantwise.plan.llamacpp.model import KNOWN, as_llamacpp
from quantwise.plan.llamacpp.settings import LlamacppSettings as Settings
from quantwise.testing.blank_gguf import BlankModel

SIZES: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 8192,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
_MOE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 768, "norm_topk_prob": True}


@pytest.mark.parametrize(
    ("config", "blank"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, BlankModel()),
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, BlankModel("qwen2")),
        ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, BlankModel("qwen3")),
        ({"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}, BlankModel("phi3")),
        ({"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"}, BlankModel("olmo2")),
        (
            {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", **_MOE},
            BlankModel("qwen3moe", experts=8, feed_forward=768),
        ),
    ],
)
@pytest.mark.parametrize("settings", [Settings(2048), Settings(1000, 3, flash_attention=False)])
def test_a_folder_plans_as_its_file(config: dict[str, Any], blank: BlankModel, settings: Settings) -> None:
    folder, file = decoder_of(SIZES | config, "folder"), blank.decoder()
    assert llamacpp_cache(folder, settings) == llamacpp_cache(file, settings)
    assert llamacpp_compute(folder, settings) == llamacpp_compute(file, settings)
    for mix in ("q4_k_m", "q8_0"):
        mine, theirs = tensors_of_mix(folder, mix), tensors_of_mix(file, mix)
        assert {t.name: (t.type, t.shape, t.bytes) for t in mine} == {
            t.name: (t.type, t.shape, t.bytes) for t in theirs
        }
        assert repacked_bytes(mine, XLLAMACPP_2026_10) == repacked_bytes(theirs, XLLAMACPP_2026_10)


def test_it_is_done_once() -> None:
    seen = as_llamacpp(decoder_of(SIZES | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "m"))
    assert as_llamacpp(seen) is seen
    assert seen.architecture == "llama"


def test_every_preset_is_planned_quickly() -> None:
    unknown = set()
    for name in PRESETS:
        decoder = as_llamacpp(preset_decoder(name))
        begin = time.process_time()
        found = llamacpp_compute(decoder, Settings(8192, 4))
        assert llamacpp_cache(decoder, Settings(8192, 4)).total > 0
        assert time.process_time() - begin < 0.5
        assert found.low <= found.graph <= found.high
        if not found.known:
            unknown.add(decoder.architecture)
    assert not unknown & KNOWN


@pytest.mark.parametrize(
    ("preset", "context", "gpu", "host"),
    [("llama-3-8b", 8192, 258.50, 24.01), ("qwen2.5-3b", 512, 300.75, None)],
)
def test_buffers_of_a_gpu_that_were_published(preset: str, context: int, gpu: float, host: float | None) -> None:
    then = llamacpp_compute(preset_decoder(preset), Settings(context), SUMMER_2026)
    assert round(then.gpu / (1 << 20), 2) == gpu
    assert host is None or round(then.host / (1 << 20), 2) == host
    # With logits of one slot alone they are a fraction of that.
    assert llamacpp_compute(preset_decoder(preset), Settings(context), XLLAMACPP_2026_10).gpu < then.gpu / 2


def test_the_mask_grows_with_the_context() -> None:
    decoder = preset_decoder("llama-3.1-8b")
    short, long = (llamacpp_compute(decoder, Settings(n)).graph for n in (32768, 65536))
    assert long - short == 2 * 512 * 32768


def test_a_file_known_by_its_bytes_alone() -> None:
    blank = BlankModel()
    tensors = tensors_of_mix(blank.decoder(), "q4_k_m")
    stored = [type(t)(t.name, "stored", t.shape, t.bytes) for t in tensors]
    assert repacked_bytes(stored, XLLAMACPP_2026_10) == repacked_bytes(tensors, XLLAMACPP_2026_10) > 0
    assert mapped_bytes(stored, XLLAMACPP_2026_10) == sum(t.bytes for t in tensors)


def test_latents_without_their_tensors_are_refused() -> None:
    latent = Layer(Attention(16, 1, 192, 128, latent=576), 1408)
    bare = Decoder("bare", "deepseek2", 2048, 1000, 4096, False, (latent,), {"token_embd.weight": (1000, 2048)}, {})
    with pytest.raises(InputError, match=r"lack blk.0.attn_kv_a_norm, which llama.cpp's graph needs"):
        llamacpp_compute(bare, Settings(512))
