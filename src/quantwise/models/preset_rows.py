"""The rows of the presets: a name, the hub id, and the keys of config.json by column; ``-`` leaves a key out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHORT = {
    "layers": "num_hidden_layers", "hidden": "hidden_size", "heads": "num_attention_heads",
    "kv": "num_key_value_heads", "head": "head_dim", "wide": "intermediate_size", "vocab": "vocab_size",
    "context": "max_position_embeddings", "tied": "tie_word_embeddings", "window": "sliding_window",
    "expert": "moe_intermediate_size", "shared": "shared_expert_intermediate_size",
    "routed": "n_routed_experts", "beside": "n_shared_experts", "dense": "first_k_dense_replace",
    "query": "q_lora_rank", "wide_kv": "num_global_key_value_heads",  "used": "num_experts_per_tok",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """Models of one type: ``config`` is what they share, ``columns`` the keys in which their ``rows`` differ."""

    config: Mapping[str, Any]
    columns: str
    rows: str


def _group(kind: str, class_name: str, columns: str, rows: str, **shared: Any) -> Group:
    keys = " ".join(_SHORT.get(column, column) for column in columns.split())
    return Group({"model_type": kind, "architectures": [class_name], **shared}, keys, rows)


_PLAIN = "layers hidden heads kv wide vocab context tied"
_MLA = {
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "tie_word_embeddings": False,
}  # fmt: skip

_QWEN35 = {
    "head_dim": 256, "vocab_size": 248320, "max_position_embeddings": 262144, "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
}  # fmt: skip

GROUPS: tuple[Group, ...] = (
    _group("llama", "LlamaForCausalLM", f"{_PLAIN} rope_scaling", """
        llama-2-7b      meta-llama/Llama-2-7b-hf           32  4096  32 32 11008  32000   4096 no -
        llama-2-13b     meta-llama/Llama-2-13b-hf          40  5120  40 40 13824  32000   4096 no -
        llama-2-70b     meta-llama/Llama-2-70b-hf          80  8192  64  8 28672  32000   4096 no -
        llama-3-8b      meta-llama/Meta-Llama-3-8B         32  4096  32  8 14336 128256   8192 no -
        llama-3-70b     meta-llama/Meta-Llama-3-70B        80  8192  64  8 28672 128256   8192 no -
        llama-3.1-8b    meta-llama/Llama-3.1-8B            32  4096  32  8 14336 128256 131072 no llama3
        llama-3.1-70b   meta-llama/Llama-3.1-70B           80  8192  64  8 28672 128256 131072 no llama3
        llama-3.1-405b  meta-llama/Llama-3.1-405B         126 16384 128  8 53248 128256 131072 no llama3
        llama-3.2-1b    meta-llama/Llama-3.2-1B            16  2048  32  8  8192 128256 131072 yes llama3
        llama-3.2-3b    meta-llama/Llama-3.2-3B            28  3072  24  8  8192 128256 131072 yes llama3
        llama-3.3-70b   meta-llama/Llama-3.3-70B-Instruct  80  8192  64  8 28672 128256 131072 no llama3
        codellama-34b   codellama/CodeLlama-34b-hf         48  8192  64  8 22016  32000  16384 no -
        tinyllama-1.1b  TinyLlama/TinyLlama-1.1B-Chat-v1.0 22  2048  32  4  5632  32000   2048 no -
        smollm2-135m    HuggingFaceTB/SmolLM2-135M         30   576   9  3  1536  49152   8192 yes -
        smollm2-360m    HuggingFaceTB/SmolLM2-360M         32   960  15  5  2560  49152   8192 yes -
        smollm2-1.7b    HuggingFaceTB/SmolLM2-1.7B         24  2048  32 32  8192  49152   8192 yes -
        yi-6b           01-ai/Yi-6B                        32  4096  32  4 11008  64000   4096 no -
        yi-34b          01-ai/Yi-34B                       60  7168  56  8 20480  64000   4096 no -
        solar-10.7b     upstage/SOLAR-10.7B-v1.0           48  4096  32  8 14336  32000   4096 no -
        falcon3-1b      tiiuae/Falcon3-1B-Base             18  2048   8  4  8192 131072   4096 no -
        falcon3-3b      tiiuae/Falcon3-3B-Base             22  3072  12  4  9216 131072  32768 no -
        falcon3-7b      tiiuae/Falcon3-7B-Base             28  3072  12  4 23040 131072  32768 no -
        falcon3-10b     tiiuae/Falcon3-10B-Base            40  3072  12  4 23040 131072  32768 no -
    """),
    _group("mistral", "MistralForCausalLM", "layers hidden heads kv head wide vocab context window", """
        mistral-7b-v0.1     mistralai/Mistral-7B-v0.1              32  4096 32 8 - 14336  32000  32768 4096
        mistral-7b          mistralai/Mistral-7B-v0.3              32  4096 32 8 - 14336  32768  32768 none
        mistral-7b-v0.3     mistralai/Mistral-7B-v0.3              32  4096 32 8 - 14336  32768  32768 none
        mistral-nemo-12b    mistralai/Mistral-Nemo-Base-2407       40  5120 32 8 128 14336 131072 131072 none
        mistral-small-24b   mistralai/Mistral-Small-24B-Base-2501  40  5120 32 8 128 32768 131072  32768 none
        mistral-large-2407  mistralai/Mistral-Large-Instruct-2407  88 12288 96 8 128 28672  32768 131072 none
        codestral-22b       mistralai/Codestral-22B-v0.1           56  6144 48 8 128 16384  32768  32768 none
    """, tie_word_embeddings=False),
    _group("mixtral", "MixtralForCausalLM", "layers hidden heads kv wide vocab context", """
        mixtral-8x7b   mistralai/Mixtral-8x7B-v0.1            32 4096 32 8 14336 32000 32768
        mixtral-8x22b  mistralai/Mixtral-8x22B-Instruct-v0.1  56 6144 48 8 16384 32768 65536
    """, num_local_experts=8, num_experts_per_tok=2, sliding_window=None),
    _group("qwen2", "Qwen2ForCausalLM", _PLAIN, """
        qwen2.5-0.5b  Qwen/Qwen2.5-0.5B-Instruct  24  896 14 2  4864 151936 32768 yes
        qwen2.5-1.5b  Qwen/Qwen2.5-1.5B-Instruct  28 1536 12 2  8960 151936 32768 yes
        qwen2.5-3b    Qwen/Qwen2.5-3B-Instruct    36 2048 16 2 11008 151936 32768 yes
        qwen2.5-7b    Qwen/Qwen2.5-7B-Instruct    28 3584 28 4 18944 152064 32768 no
        qwen2.5-14b   Qwen/Qwen2.5-14B-Instruct   48 5120 40 8 13824 152064 32768 no
        qwen2.5-32b   Qwen/Qwen2.5-32B-Instruct   64 5120 40 8 27648 152064 32768 no
        qwen2.5-72b   Qwen/Qwen2.5-72B-Instruct   80 8192 64 8 29568 152064 32768 no
        qwq-32b       Qwen/QwQ-32B                64 5120 40 8 27648 152064 40960 no
    """, use_sliding_window=False),
    _group("qwen3", "Qwen3ForCausalLM", _PLAIN, """
        qwen3-0.6b  Qwen/Qwen3-0.6B  28 1024 16 8  3072 151936 40960 yes
        qwen3-1.7b  Qwen/Qwen3-1.7B  28 2048 16 8  6144 151936 40960 yes
        qwen3-4b    Qwen/Qwen3-4B    36 2560 32 8  9728 151936 40960 yes
        qwen3-8b    Qwen/Qwen3-8B    36 4096 32 8 12288 151936 40960 no
        qwen3-14b   Qwen/Qwen3-14B   40 5120 40 8 17408 151936 40960 no
        qwen3-32b   Qwen/Qwen3-32B   64 5120 64 8 25600 151936 40960 no
    """, head_dim=128, use_sliding_window=False),
    _group("qwen3_moe", "Qwen3MoeForCausalLM", "layers hidden heads kv wide expert vocab context", """
        qwen3-30b-a3b     Qwen/Qwen3-30B-A3B      48 2048 32 4  6144  768 151936 40960
        qwen3-235b-a22b   Qwen/Qwen3-235B-A22B    94 4096 64 4 12288 1536 151936 40960
    """, head_dim=128, num_experts=128, num_experts_per_tok=8, decoder_sparse_step=1, mlp_only_layers=[],
         tie_word_embeddings=False, use_sliding_window=False),
    _group("qwen3_moe", "Qwen3MoeForCausalLM", "layers hidden heads kv wide expert vocab context", """
        qwen3-coder-480b-a35b  Qwen/Qwen3-Coder-480B-A35B-Instruct  62 6144 96 8 8192 2560 151936 262144
    """, head_dim=128, num_experts=160, num_experts_per_tok=8, decoder_sparse_step=1, mlp_only_layers=[],
         tie_word_embeddings=False, use_sliding_window=False),
    _group("qwen3_5_text", "Qwen3_5ForConditionalGeneration",
           "layers hidden heads kv wide linear_num_value_heads tied", """
        qwen3.5-0.8b  Qwen/Qwen3.5-0.8B  24 1024  8 2  3584 16 yes
        qwen3.5-2b    Qwen/Qwen3.5-2B    24 2048  8 2  6144 16 yes
        qwen3.5-4b    Qwen/Qwen3.5-4B    32 2560 16 4  9216 32 yes
        qwen3.5-9b    Qwen/Qwen3.5-9B    32 4096 16 4 12288 32 no
        qwen3.5-27b   Qwen/Qwen3.5-27B   64 5120 24 4 17408 48 no
    """, **_QWEN35),
    _group("qwen3_5_moe_text", "Qwen3_5MoeForConditionalGeneration", "layers hidden heads kv expert shared", """
        qwen3.5-35b-a3b  Qwen/Qwen3.5-35B-A3B  40 2048 16 2 512 512
    """, intermediate_size=512, num_experts=256, num_experts_per_tok=8, linear_num_value_heads=32,
         tie_word_embeddings=False, **_QWEN35),
    _group("gemma4_text", "Gemma4ForConditionalGeneration",
           "layers hidden heads kv wide_kv wide enable_moe_block num_experts top_k_experts expert", """
        gemma-4-26b-a4b  google/gemma-4-26B-A4B-it  30 2816 16  8 2  2112 yes 128 8 704
        gemma-4-31b      google/gemma-4-31B-it      60 5376 32 16 4 21504 no    - -   -
    """, head_dim=256, global_head_dim=512, attention_k_eq_v=True, hidden_size_per_layer_input=0, sliding_window=1024,
         vocab_size=262144, max_position_embeddings=262144, num_kv_shared_layers=0),
    _group("glm4", "Glm4ForCausalLM", "layers hidden heads kv wide attention_bias", """
        glm-4-9b   zai-org/GLM-4-9B-0414   40 4096 32 2 13696 yes
        glm-4-32b  zai-org/GLM-4-32B-0414  61 6144 48 2 23040 no
    """, head_dim=128, vocab_size=151552, max_position_embeddings=32768, tie_word_embeddings=False),
    _group("glm4_moe", "Glm4MoeForCausalLM", "layers hidden heads kv wide expert routed dense use_qk_norm", """
        glm-4.5-air  zai-org/GLM-4.5-Air  46 4096 96 8 10944 1408 128 1 no
        glm-4.5      zai-org/GLM-4.5      92 5120 96 8 12288 1536 160 3 yes
    """, head_dim=128, n_shared_experts=1, num_experts_per_tok=8, attention_bias=True, vocab_size=151552,
         max_position_embeddings=131072, tie_word_embeddings=False),
    _group("minimax_m2", "MiniMaxM2ForCausalLM", "layers hidden heads kv wide vocab context", """
        minimax-m2  MiniMaxAI/MiniMax-M2  62 3072 48 8 1536 200064 196608
    """, head_dim=128, num_local_experts=256, num_experts_per_tok=8, tie_word_embeddings=False),
    _group("olmo3", "Olmo3ForCausalLM", _PLAIN, """
        olmo-3-7b   allenai/Olmo-3-1025-7B   32 4096 32 32 11008 100278 65536 no
        olmo-3-32b  allenai/Olmo-3-1125-32B  64 5120 40  8 27648 100278 65536 no
    """, sliding_window=4096),
    _group("qwen2_moe", "Qwen2MoeForCausalLM",
           "layers hidden heads kv wide expert shared num_experts used vocab context", """
        qwen1.5-moe-a2.7b  Qwen/Qwen1.5-MoE-A2.7B  24 2048 16 16  5632 1408  5632 60 4 151936   8192
    """, decoder_sparse_step=1, tie_word_embeddings=False, use_sliding_window=False),
    _group("qwen3_next", "Qwen3NextForCausalLM", "layers hidden heads kv head wide expert shared vocab context", """
        qwen3-next-80b-a3b  Qwen/Qwen3-Next-80B-A3B-Instruct  48 2048 16 2 256 5120 512 512 151936 262144
    """, num_experts=512, num_experts_per_tok=10, full_attention_interval=4, linear_conv_kernel_dim=4,
         linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
         tie_word_embeddings=False),
    _group("gemma", "GemmaForCausalLM", "layers hidden heads kv wide vocab context", """
        gemma-2b  google/gemma-2b  18 2048  8  1 16384 256000 8192
        gemma-7b  google/gemma-7b  28 3072 16 16 24576 256000 8192
    """, head_dim=256),
    _group("gemma2", "Gemma2ForCausalLM", "layers hidden heads kv head wide vocab context window", """
        gemma-2-2b   google/gemma-2-2b   26 2304  8  4 256  9216 256000 8192 4096
        gemma-2-9b   google/gemma-2-9b   42 3584 16  8 256 14336 256000 8192 4096
        gemma-2-27b  google/gemma-2-27b  46 4608 32 16 128 36864 256000 8192 4096
    """),
    _group("gemma3_text", "Gemma3ForCausalLM", "layers hidden heads kv head wide vocab context window", """
        gemma-3-270m  google/gemma-3-270m   18  640  4  1 256  2048 262144  32768  512
        gemma-3-1b    google/gemma-3-1b-it  26 1152  4  1 256  6912 262144  32768  512
        gemma-3-4b    google/gemma-3-4b-it  34 2560  8  4 256 10240 262208 131072 1024
        gemma-3-12b   google/gemma-3-12b-it 48 3840 16  8 256 15360 262208 131072 1024
        gemma-3-27b   google/gemma-3-27b-it 62 5376 32 16 128 21504 262208 131072 1024
    """, sliding_window_pattern=6),
    _group("phi3", "Phi3ForCausalLM", "layers hidden heads kv wide vocab context tied window", """
        phi-3-mini-4k     microsoft/Phi-3-mini-4k-instruct      32 3072 32 32  8192  32064   4096 no 2047
        phi-3-mini-128k   microsoft/Phi-3-mini-128k-instruct    32 3072 32 32  8192  32064 131072 no 262144
        phi-3-medium-4k   microsoft/Phi-3-medium-4k-instruct    40 5120 40 10 17920  32064   4096 no 2047
        phi-3.5-mini      microsoft/Phi-3.5-mini-instruct       32 3072 32 32  8192  32064 131072 no 262144
        phi-4             microsoft/phi-4                       40 5120 40 10 17920 100352  16384 no none
        phi-4-mini        microsoft/Phi-4-mini-instruct         32 3072 24  8  8192 200064 131072 yes 262144
    """),
    _group("phi", "PhiForCausalLM", "layers hidden heads kv wide vocab context", """
        phi-1.5  microsoft/phi-1_5  24 2048 32 32  8192 51200 2048
        phi-2    microsoft/phi-2    32 2560 32 32 10240 51200 2048
    """, tie_word_embeddings=False),
    _group("phimoe", "PhimoeForCausalLM", "layers hidden heads kv wide vocab context window", """
        phi-3.5-moe  microsoft/Phi-3.5-MoE-instruct  32 4096 32 8 6400 32064 131072 131072
    """, num_local_experts=16, num_experts_per_tok=2, attention_bias=True, lm_head_bias=True,
         tie_word_embeddings=False),
    _group("deepseek_v2", "DeepseekV2ForCausalLM",
           "layers hidden heads wide expert routed beside used query vocab context", """
        deepseek-v2-lite  deepseek-ai/DeepSeek-V2-Lite  27 2048  16 10944 1408  64 2 6 none 102400 163840
        deepseek-v2       deepseek-ai/DeepSeek-V2       60 5120 128 12288 1536 160 2 6 1536 102400 163840
    """, first_k_dense_replace=1, **_MLA),
    _group("deepseek_v3", "DeepseekV3ForCausalLM",
           "layers hidden heads wide expert routed dense vocab context", """
        deepseek-v3  deepseek-ai/DeepSeek-V3          61 7168 128 18432 2048 256 3 129280 163840
        deepseek-r1  deepseek-ai/DeepSeek-R1          61 7168 128 18432 2048 256 3 129280 163840
        kimi-k2      moonshotai/Kimi-K2-Instruct      61 7168  64 18432 2048 384 1 163840 131072
    """, n_shared_experts=1, num_experts_per_tok=8, q_lora_rank=1536, **_MLA),
    _group("gpt_oss", "GptOssForCausalLM", "layers num_local_experts", """
        gpt-oss-20b   openai/gpt-oss-20b   24  32
        gpt-oss-120b  openai/gpt-oss-120b  36 128
    """, hidden_size=2880, num_attention_heads=64, num_key_value_heads=8, head_dim=64, intermediate_size=2880,
         vocab_size=201088, num_experts_per_tok=4, sliding_window=128, attention_bias=True,
         max_position_embeddings=131072, tie_word_embeddings=False),
    _group("llama4_text", "Llama4ForConditionalGeneration", "num_local_experts interleave_moe_layer_step context", """
        llama-4-scout     meta-llama/Llama-4-Scout-17B-16E-Instruct      16 1 10485760
        llama-4-maverick  meta-llama/Llama-4-Maverick-17B-128E-Instruct 128 2  1048576
    """, num_hidden_layers=48, hidden_size=5120, num_attention_heads=40, num_key_value_heads=8, head_dim=128,
         intermediate_size=8192, intermediate_size_mlp=16384, vocab_size=202048, num_experts_per_tok=1,
         attention_chunk_size=8192, tie_word_embeddings=False),
    _group("olmo", "OlmoForCausalLM", _PLAIN, """
        olmo-1b  allenai/OLMo-1B-hf  16 2048 16 16  8192 50304 2048 yes
        olmo-7b  allenai/OLMo-7B-hf  32 4096 32 32 11008 50304 2048 no
    """),
    _group("olmo2", "Olmo2ForCausalLM", _PLAIN, """
        olmo-2-1b   allenai/OLMo-2-0425-1B   16 2048 16 16  8192 100352 4096 no
        olmo-2-7b   allenai/OLMo-2-1124-7B   32 4096 32 32 11008 100352 4096 no
        olmo-2-13b  allenai/OLMo-2-1124-13B  40 5120 40 40 13824 100352 4096 no
        olmo-2-32b  allenai/OLMo-2-0325-32B  64 5120 40  8 27648 100352 4096 no
    """),
    _group("olmoe", "OlmoeForCausalLM", _PLAIN, """
        olmoe-1b-7b  allenai/OLMoE-1B-7B-0924  16 2048 16 16 1024 50304 4096 no
    """, num_experts=64, num_experts_per_tok=8),
    _group("granite", "GraniteForCausalLM", _PLAIN, """
        granite-3.3-2b  ibm-granite/granite-3.3-2b-instruct  40 2048 32 8  8192 49159 131072 yes
        granite-3.3-8b  ibm-granite/granite-3.3-8b-instruct  40 4096 32 8 12800 49159 131072 yes
    """),
    _group("smollm3", "SmolLM3ForCausalLM", _PLAIN, """
        smollm3-3b  HuggingFaceTB/SmolLM3-3B  36 2048 16 4 11008 128256 65536 yes
    """),
    _group("seed_oss", "SeedOssForCausalLM", _PLAIN, """
        seed-oss-36b  ByteDance-Seed/Seed-OSS-36B-Instruct  64 5120 80 8 27648 155136 524288 no
    """, head_dim=128, attention_bias=True, attention_out_bias=False),
    _group("starcoder2", "Starcoder2ForCausalLM", "layers hidden heads kv wide vocab context tied", """
        starcoder2-3b   bigcode/starcoder2-3b   30 3072 24 2 12288 49152 16384 yes
        starcoder2-7b   bigcode/starcoder2-7b   32 4608 36 4 18432 49152 16384 yes
        starcoder2-15b  bigcode/starcoder2-15b  40 6144 48 4 24576 49152 16384 no
    """, use_bias=True, sliding_window=4096),
    _group("gpt_neox", "GPTNeoXForCausalLM", "layers hidden heads wide vocab", """
        pythia-70m   EleutherAI/pythia-70m    6  512  8  2048 50304
        pythia-160m  EleutherAI/pythia-160m  12  768 12  3072 50304
        pythia-410m  EleutherAI/pythia-410m  24 1024 16  4096 50304
        pythia-1b    EleutherAI/pythia-1b    16 2048  8  8192 50304
        pythia-1.4b  EleutherAI/pythia-1.4b  24 2048 16  8192 50304
        pythia-2.8b  EleutherAI/pythia-2.8b  32 2560 32 10240 50304
        pythia-6.9b  EleutherAI/pythia-6.9b  32 4096 32 16384 50432
        pythia-12b   EleutherAI/pythia-12b   36 5120 40 20480 50688
    """, max_position_embeddings=2048, tie_word_embeddings=False),
    _group("opt", "OPTForCausalLM", "layers hidden heads ffn_dim", """
        opt-125m  facebook/opt-125m  12  768 12  3072
        opt-1.3b  facebook/opt-1.3b  24 2048 32  8192
        opt-6.7b  facebook/opt-6.7b  32 4096 32 16384
    """, vocab_size=50272, max_position_embeddings=2048),
    _group("cohere", "CohereForCausalLM", "layers hidden heads kv wide vocab context use_qk_norm", """
        command-r       CohereForAI/c4ai-command-r-v01    40  8192 64 64 22528 256000 131072 no
        command-r-plus  CohereForAI/c4ai-command-r-plus   64 12288 96  8 33792 256000 131072 yes
    """),
    _group("cohere2", "Cohere2ForCausalLM", "layers hidden heads kv wide vocab context", """
        command-r7b  CohereForAI/c4ai-command-r7b-12-2024  32 4096 32 8 14336 256000 132096
    """, sliding_window=4096, sliding_window_pattern=4),
    _group("stablelm", "StableLmForCausalLM", "layers hidden heads kv wide vocab context use_qkv_bias", """
        stablelm-2-1.6b  stabilityai/stablelm-2-1_6b    24 2048 32 32 5632 100352 4096 yes
        stablelm-3b      stabilityai/stablelm-3b-4e1t   32 2560 32 32 6912  50304 4096 no
    """, tie_word_embeddings=False),
    _group("falcon", "FalconForCausalLM", "layers hidden heads num_kv_heads multi_query new_decoder_architecture", """
        falcon-7b   tiiuae/falcon-7b   32 4544  71 - yes no
        falcon-40b  tiiuae/falcon-40b  60 8192 128 8 yes yes
    """, vocab_size=65024, bias=False, parallel_attn=True),
    _group("jamba", "JambaForCausalLM", "layers hidden heads kv wide vocab context", """
        jamba-v0.1  ai21labs/Jamba-v0.1  32 4096 32 8 14336 65536 262144
    """, num_experts=16, num_experts_per_tok=2, mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=256,
         tie_word_embeddings=False),
    _group("mamba", "MambaForCausalLM", "layers hidden wide time_step_rank", """
        mamba-130m  state-spaces/mamba-130m-hf  24  768 1536  48
        mamba-2.8b  state-spaces/mamba-2.8b-hf  64 2560 5120 160
    """, state_size=16, conv_kernel=4, vocab_size=50280),
    _group("lfm2", "Lfm2ForCausalLM", "hidden heads block_ff_dim", """
        lfm2-350m  LiquidAI/LFM2-350M  1024 16  6656
        lfm2-700m  LiquidAI/LFM2-700M  1536 24 10240
        lfm2-1.2b  LiquidAI/LFM2-1.2B  2048 32 12288
    """, intermediate_size=6656, num_hidden_layers=16, num_key_value_heads=8, vocab_size=65536,
         max_position_embeddings=128000, full_attn_idxs=[2, 5, 8, 10, 12, 14]),
)  # fmt: skip
