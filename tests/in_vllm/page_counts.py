"""Run by test_plan_blocks.py in a process of its own: how vLLM cuts its cache into blocks, of models and of layers.

Arguments: a file of JSON, with ``starts``, each a ``name``, a ``folder``, arguments of LLM() and GiB of ``space`` or
none; and ``cases``, each layers as vLLM keeps them with the settings of one server. For each of them one line of JSON
is printed; what vLLM logs of a start stands before its line.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

# One process for everything: the engine's own would outlive a failure.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def started(start: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """What a server keeps, and its configuration."""
    from vllm import LLM, logger

    # Else a line that an earlier start has logged is left out.
    logger._print_info_once.cache_clear()
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    if start["space"]:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(start["space"])
    # An engine that is no longer held forgets its counts.
    held = LLM(start["folder"], enforce_eager=True, **start["arguments"])
    config = held.llm_engine.vllm_config
    cache = config.cache_config
    found = {
        "blocks": cache.num_gpu_blocks,
        "block": cache.block_size,
        "tokens": cache.kv_cache_size_tokens,
        "requests": cache.kv_cache_max_concurrency,
        "batched_tokens": config.scheduler_config.max_num_batched_tokens,
    }
    return found, config


def counted(case: dict[str, Any], config: Any) -> dict[str, Any]:
    """What vLLM's own functions make of layers that no published model has, on an engine's configuration."""
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs

    config.model_config.max_model_len = case["context"]
    config.scheduler_config.max_num_batched_tokens = case["batched_tokens"]
    # With it two batches are computed at once, as on a GPU.
    config.scheduler_config.async_scheduling = case["on_gpu"]
    specs = {f"layer.{i}": spec(layer, case["block"]) for i, layer in enumerate(case["layers"])}
    try:
        made = get_kv_cache_configs(config, [specs], [case["available"]])[0]
    except ValueError as error:
        return {"refused": str(error)}
    tokens, requests = get_kv_cache_capacity(config, made)
    return {"blocks": made.num_blocks, "groups": len(made.kv_cache_groups), "tokens": tokens, "requests": requests}


def spec(layer: dict[str, Any], block: int) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import (
        ChunkedLocalAttentionSpec,
        FullAttentionSpec,
        MLAAttentionSpec,
        SlidingWindowSpec,
    )

    shape = {"block_size": block, "num_kv_heads": layer["kv_heads"], "head_size": layer["key_dim"]}
    shape |= {"dtype": torch.uint8 if layer["bytes"] == 1 else torch.bfloat16, "dcp_sharded": False}
    if layer["latent"]:
        return MLAAttentionSpec(**(shape | {"num_kv_heads": 1, "head_size": layer["latent"]}))
    shape["head_size_v"] = layer["value_dim"]
    if layer["window"] is None:
        return FullAttentionSpec(**shape)
    if layer["chunked"]:
        return ChunkedLocalAttentionSpec(**shape, attention_chunk_size=layer["window"])
    return SlidingWindowSpec(**shape, sliding_window=layer["window"])


def main() -> None:
    """All starts, then all cases, on the configuration of the last start."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    asked = json.loads(Path(sys.argv[1]).read_text())
    config = None
    for start in asked["starts"]:
        try:
            found, config = started(start)
        except Exception as error:  # whatever it is, it is this model's answer
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print("FOUND " + json.dumps({"name": start["name"], **found}), flush=True)
        cleanup_dist_env_and_memory()
    for number, case in enumerate(asked["cases"]):
        print("CASE " + json.dumps({"number": number, **counted(case, config)}), flush=True)


if __name__ == "__main__":
    main()
    # Some versions abort while the interpreter shuts down, after everything has been said.
    os._exit(0)
