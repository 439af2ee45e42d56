"""Run by test_in_vllm.py in a process of its own: loads folders in vLLM one by one and prints their answers.

Arguments: a JSON list of folders, and a JSON list of prompts, each a list of token ids. For each folder one line of
JSON is printed: for each prompt the greedy continuation and the log probability of every prompt token but the first; or
the error.
"""

import json
import os
import sys
from typing import Any

# One process for everything: the engine's own would outlive a failure.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

NEW_TOKENS = 4


def answers(folder: str, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """Greedy tokens and prompt log probabilities for each prompt."""
    from vllm import LLM, SamplingParams

    engine = LLM(
        folder, dtype="bfloat16", max_model_len=512, enforce_eager=True, enable_prefix_caching=False,
        worker_extension_cls=os.environ["WORKER_EXTENSION"],
    )  # fmt: skip
    greedy = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, prompt_logprobs=0)
    outputs = engine.generate([{"prompt_token_ids": p} for p in prompts], greedy, use_tqdm=False)
    found = []
    for prompt, out in zip(prompts, outputs, strict=True):
        seen = [at[token].logprob for token, at in zip(prompt[1:], out.prompt_logprobs[1:], strict=True)]
        found.append({"tokens": list(out.outputs[0].token_ids), "logprobs": seen})
    return found


def main() -> None:
    """Answer for every folder; a folder that cannot be loaded does not end the others."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    prompts = json.loads(sys.argv[2])
    for folder in json.loads(sys.argv[1]):
        try:
            found: dict[str, Any] = {"answers": answers(folder, prompts)}
        except Exception as error:  # whatever it is, it is this folder's answer
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        print("ANSWERS " + json.dumps({"folder": folder, **found}), flush=True)
        cleanup_dist_env_and_memory()


if __name__ == "__main__":
    main()
    # Some versions abort while the interpreter shuts down, after everything has been said.
    os._exit(0)
