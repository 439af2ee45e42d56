"""What the tools publish, written down as data: what tests of the exports compare with. Nothing here was run by them.

ModelOpt: github.com/NVIDIA/TensorRT-Model-Optimizer, commit 5a4242faf414 (December 2025), modelopt/torch/export:
quant_utils.py (get_quant_config, process_layer_quant_config, to_quantized_weight, pack_int4_in_uint8,
get_weight_scaling_factor) and unified_export_hf.py (names of buffers; input_scale is squeezed to a scalar).
TensorRT-LLM: nvidia.github.io/TensorRT-LLM/llm-api/reference/QuantConfig.html, and _torch/modules/linear.py of commit
ed53795b33fc (what ``load_weights`` of each method asks for); that only its PyTorch backend is left:
nvidia.github.io/TensorRT-LLM/legacy/tensorrt-backend-removal.html. Ollama: docs/modelfile.mdx and template/testdata of
github.com/ollama/ollama.
"""

from __future__ import annotations

from quantwise.core.item import Message

# Tensors of one linear layer (rows, columns) by the last part of their names: type, shape. Of those that are loaded as
# one (q, k, v and gate, up) pre_quant_scale is not asked for.
MODELOPT_TENSORS = {
    "FP8": {"weight": ("F8_E4M3", "rows, columns"), "weight_scale": ("F32", ""), "input_scale": ("F32", "")},
    "FP8_PER_CHANNEL_PER_TOKEN": {"weight": ("F8_E4M3", "rows, columns"), "weight_scale": ("F32", "rows")},
    "W4A16_AWQ": {
        "weight": ("U8", "rows / 2, columns"),
        "weight_scale": ("F32", "rows, columns / 128"),
        "pre_quant_scale": ("BF16", "columns"),
    },
    "W8A16": {"weight": ("I8", "rows, columns"), "weight_scale": ("F32", "rows")},
}
# Fields beside quant_algo, kv_cache_quant_algo and exclude_modules.
MODELOPT_FIELDS = {
    "W4A16_AWQ": {"group_size": 128, "has_zero_point": False, "pre_quant_scale": True},
}
QUANT_CONFIG_FIELDS = {
    "quant_algo", "kv_cache_quant_algo", "group_size", "smoothquant_val", "clamp_val", "use_meta_recipe",
    "has_zero_point", "pre_quant_scale", "exclude_modules", "mamba_ssm_cache_dtype", "mamba_ssm_stochastic_rounding",
    "mamba_ssm_philox_rounds",
}  # fmt: skip

MODELFILE_INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}
MODELFILE_PARAMETERS = {
    "num_ctx": int, "repeat_last_n": int, "repeat_penalty": float, "temperature": float, "seed": int, "stop": str,
    "num_predict": int, "draft_num_predict": int, "top_k": int, "top_p": float, "min_p": float,
}  # fmt: skip
# What Ollama's own tests expect its chatml and llama3-instruct templates to say of this conversation.
TALK = (
    Message("system", "You are a helpful assistant."),
    Message("user", "Hello, how are you?"),
    Message("assistant", "I'm doing great. How can I help you today?"),
    Message("user", "I'd like to show off how chat templating works!"),
)
SAID = {
    "chatml": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHello, how are you?"
    "<|im_end|>\n<|im_start|>assistant\nI'm doing great. How can I help you today?<|im_end|>\n<|im_start|>user\n"
    "I'd like to show off how chat templating works!<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful assistant.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHello, how are you?<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\nI'm doing great. How can I help you today?<|eot_id|><|start_header_id|>user"
    "<|end_header_id|>\n\nI'd like to show off how chat templating works!<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\n",
}
