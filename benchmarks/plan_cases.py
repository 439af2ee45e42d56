"""Models and settings whose start-up logs ``plan_llamacpp.py`` compares, large enough that digits mean something."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quantwise.plan.llamacpp.settings import LlamacppSettings as S
from quantwise.testing.blank_gguf import BlankModel as M

_MOE: dict[str, Any] = {"experts": 8, "feed_forward": 768}
_GRANITE: dict[str, Any] = {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0, "attention.scale": 0.1}
_LATENT: dict[str, Any] = {"kv_heads": 1, "dim": 96, "rank": 256, "turned": 32, "shared": 768, **_MOE}

ARCHITECTURES = (
    M(),
    M("qwen2"),
    M("qwen3", dim=128),
    M("gemma", tied=True),
    M("gemma2", tied=True, window=512, vocab=4096),
    M("gemma3", tied=True, window=512, period=6, layers=7),
    M("phi3"),
    M("granite", extra=_GRANITE),
    M("olmo2"),
    M("starcoder2"),
    M("gptneox", kv_heads=8),
    M("phi2", kv_heads=8),
    M("smollm3"),
    M("olmo", kv_heads=8, extra={"attention.clamp_kqv": 8.0}),
    M("seed_oss"),
    M("llama", **_MOE),
    M("qwen2moe", shared=768, **_MOE),
    M("qwen3moe", experts_used=4, **_MOE),
    M("olmoe", kv_heads=8, **_MOE),
    M("deepseek2", **_LATENT),
    M("gpt-oss", window=128, **_MOE),
    M("internlm2"),
    M("ernie4_5"),
    M("exaone"),
    M("xverse"),
    M("minicpm"),
    M("granitemoe", **_MOE, extra=_GRANITE),
    M("mistral3"),
    M("nanbeige"),
    M("hunyuan-dense"),
    M("command-r", tied=True, extra={"logit_scale": 0.06}),
    M("cohere2", tied=True, window=512, period=4, extra={"logit_scale": 0.06}),
    M("deci", kv_each=(8, 4, 2, 1)),
)
SETTINGS = (
    S(2048),
    S(4096, flash_attention=False),
    S(2048, 2, cache="q8_0"),
    S(1000, 3, unified=True),
)
_LARGE = M(hidden=1024, layers=8, heads=16, kv_heads=4, feed_forward=3072, vocab=16384)
MIXES = ("q4_k_m", "q8_0", "q4_0", "q6_k", "q2_k", "q3_k_s", "q5_k_m", "f16", "bf16", "q5_0", "q4_1")
SIZES = (
    *((replace(_LARGE, mix=mix), S(4096)) for mix in MIXES),
    (replace(_LARGE, vocab=128256), S(8192, 4)),
    (replace(_LARGE, layers=2, feed_forward=8192), S(16384, ubatch=2048)),
    (replace(_LARGE, layers=2), S(65536, cache="q4_0")),
    (replace(_LARGE, layers=2), S(8192, 8, cache="q8_0/q4_0")),
    (replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True), S(32768, 2)),
    (replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True), S(8192, 4, unified=True)),
    (
        replace(_LARGE, architecture="gemma3", window=1024, period=6, layers=12, tied=True),
        S(8192, whole_window=True),
    ),
    (replace(_LARGE, architecture="qwen3moe", experts=32, experts_used=8, feed_forward=256, layers=4), S(4096, 3)),
    (replace(_LARGE, architecture="deci", kv_each=(16, 8, 4, 4, 2, 2, 1, 1)), S(8192, 2)),
    (
        replace(_LARGE, architecture="deci", kv_each=(16, 8, 4, 4, 2, 2, 1, 1)),
        S(8192, flash_attention=False),
    ),
    (replace(_LARGE, architecture="lfm2", kv_each=(0, 0, 4, 0, 0, 4, 0, 4), tied=True), S(8192, 3, cache="q8_0")),
    (replace(_LARGE, architecture="mamba", state=16, tied=True), S(8192, 4)),
    (replace(_LARGE, architecture="deepseek2", **{**_LATENT, "rank": 512, "turned": 64, "dim": 192}), S(16384)),
)
# Prompts that fill the context, so that all of the buffers is touched.
RESIDENT = (
    (replace(_LARGE, mix="q4_k_m"), S(1024)),
    (replace(_LARGE, mix="q8_0"), S(1024)),
    (replace(_LARGE, mix="f16"), S(1024)),
    (replace(_LARGE, mix="q4_0", vocab=65536), S(1024, 4)),
    (replace(_LARGE, mix="q6_k"), S(2048, flash_attention=False)),
    (replace(_LARGE, architecture="qwen3", layers=4), S(2048, 8, cache="q8_0")),
    (replace(_LARGE, architecture="gemma3", window=512, period=6, tied=True, mix="q4_0"), S(2048, 2)),
    (replace(_LARGE, architecture="qwen3moe", experts=8, feed_forward=768, layers=6), S(1024, 2)),
)
# Of the program that reserves logits for a whole batch; on a processor with AMX it does not open latent attention.
OLDER = tuple(
    (model, settings)
    for model in ARCHITECTURES[:21]
    if not model.rank
    for settings in (S(4096), S(2048, flash_attention=False), S(4096, cache="q8_0", whole_window=True))
)


def log_cases() -> list[tuple[M, S]]:
    """All models and settings whose logs are compared, those that differ most first."""
    return [(model, settings) for settings in SETTINGS for model in ARCHITECTURES] + list(SIZES)
