"""One training step in a process of its own: what memory it takes at its peak, as the kernel and as torch count it.

    python benchmarks/arms/training_step.py '{"method": "lora", "sequence": 512, ...}'

Prints one line of JSON. ``resident`` is the highest resident set of the second step (the first one makes the
optimizer's states) above the resident set after the imports and a step of a toy; ``live`` the most bytes that torch had
allocated at one moment of the third step, weights and states included. Start it with ``MALLOC_MMAP_THRESHOLD_=65536
MALLOC_TRIM_THRESHOLD_=65536 MALLOC_ARENA_MAX=1``: otherwise glibc keeps what torch has freed, and the resident set
tells of its habits. Adapters are written out here as their papers and the ``peft`` library define them.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import DynamicCache

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


class Lora(nn.Module):
    """A frozen layer and a product of two thin matrices (Hu et al., arXiv 2106.09685); DoRA's magnitudes where asked
    (Liu et al., arXiv 2402.09353).
    """

    def __init__(self, base: nn.Linear, rank: int, magnitude: bool = False) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        self.magnitude = nn.Parameter(base.weight.norm(dim=1)) if magnitude else None

    def forward(self, x: Tensor) -> Tensor:
        low = nn.functional.linear(x.to(self.down.dtype), self.down)
        delta = 2.0 * nn.functional.linear(low, self.up)
        if self.magnitude is None:
            base = self.base(x)
            return base + delta.to(base.dtype)
        norm = (self.base.weight + 2.0 * (self.up @ self.down).detach()).norm(dim=1)
        share = (self.magnitude / norm).view(1, -1)
        base = self.base(x)
        return (base + (share - 1) * base + share * delta).to(base.dtype)


class Scaled(nn.Module):
    """A frozen layer whose output, or input, is multiplied by a learned vector (IA3, Liu et al., arXiv 2205.05638)."""

    def __init__(self, base: nn.Linear, inputs: bool) -> None:
        super().__init__()
        self.base, self.inputs = base, inputs
        width = base.in_features if inputs else base.out_features
        self.scale = nn.Parameter(torch.ones(width, dtype=base.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x * self.scale) if self.inputs else self.base(x) * self.scale


class Bottleneck(nn.Module):
    """A frozen sublayer followed by a small network beside a residual (Houlsby et al., arXiv 1902.00751)."""

    def __init__(self, base: nn.Module, hidden: int, width: int) -> None:
        super().__init__()
        self.base = base
        kind = next(base.parameters()).dtype
        self.down, self.up = nn.Linear(hidden, width, dtype=kind), nn.Linear(width, hidden, dtype=kind)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.base(*args, **kwargs)
        if isinstance(out, tuple):
            return (self._adapted(out[0]), *out[1:])
        return self._adapted(out)

    def _adapted(self, x: Tensor) -> Tensor:
        return x + self.up(nn.functional.relu(self.down(x)))


def model_of(job: dict[str, Any]) -> PreTrainedModel:
    settings = {"max_position_embeddings": 8192, "use_cache": False, **job["model"]}
    config = AutoConfig.for_model(settings.pop("model_type", "llama"), **settings)
    kernel = "eager" if job["attention"] == "math" else "sdpa"
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=kernel)
    # Its type changes while it holds nothing, so that no float32 copy raises the peak.
    model.to(torch.bfloat16 if job["precision"] == "bf16" else torch.float32)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if name.endswith("norm.weight") else parameter.normal_(0, 0.02)
        for buffer in model.buffers():
            width = 2 * buffer.numel()
            buffer.copy_(1.0 / 10000 ** (torch.arange(0, width, 2).view_as(buffer) / width))
    model.tie_weights()
    return model


def adapt(model: PreTrainedModel, job: dict[str, Any]) -> None:
    method, rank = job["method"], job["rank"]
    if method == "full":
        return
    model.requires_grad_(False)
    if method == "qlora":
        quantize(model, job)
    for layer in model.model.layers:
        for owner, names in ((layer.self_attn, ATTENTION), (layer.mlp, FEED_FORWARD)):
            for name in names:
                if method in ("lora", "qlora", "dora") and (name in job["targets"] or job["targets"] == ["all"]):
                    setattr(owner, name, Lora(getattr(owner, name), rank, method == "dora"))
                if method == "ia3" and name in ("k_proj", "v_proj", "down_proj"):
                    setattr(owner, name, Scaled(getattr(owner, name), name == "down_proj"))
        if method == "adapter":
            layer.self_attn = Bottleneck(layer.self_attn, model.config.hidden_size, rank)
            layer.mlp = Bottleneck(layer.mlp, model.config.hidden_size, rank)
    if job[
        "checkpointing"
    ]:  # As every trainer does: otherwise a checkpointed layer sees no input that wants a gradient.
        model.enable_input_require_grads()


def quantize(model: PreTrainedModel, job: dict[str, Any]) -> None:
    import bitsandbytes as bnb

    kind = torch.bfloat16 if job["precision"] == "bf16" else torch.float32
    for layer in model.model.layers:
        for owner, names in ((layer.self_attn, ATTENTION), (layer.mlp, FEED_FORWARD)):
            for name in names:
                old = getattr(owner, name)
                new = bnb.nn.Linear4bit(
                    old.in_features, old.out_features, bias=False, compute_dtype=kind, quant_type="nf4",
                    compress_statistics=job["double_quant"],
                )  # fmt: skip
                new.weight = bnb.nn.Params4bit(
                    old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=job["double_quant"]
                )
                setattr(owner, name, new.to("cpu"))


def soft_prompt(model: PreTrainedModel, job: dict[str, Any]) -> nn.Parameter | None:
    config, count = model.config, job["virtual"]
    if job["method"] == "prefix":  # Li and Liang, arXiv 2101.00190, without the network that reparametrizes.
        width = config.num_key_value_heads * config.head_dim
        return nn.Parameter(torch.randn(count, config.num_hidden_layers * 2 * width))
    if job["method"] == "prompt":  # Lester et al., arXiv 2104.08691.
        return nn.Parameter(torch.randn(count, config.hidden_size))
    return None


def loss_of(model: PreTrainedModel, tokens: Tensor, soft: nn.Parameter | None, job: dict[str, Any]) -> Tensor:
    config, batch = model.config, len(tokens)
    if soft is None:
        mask = None
        if job["padded"]:
            mask = torch.ones_like(tokens)
            mask[:, : job["sequence"] // 4] = 0
        return model(input_ids=tokens, labels=tokens, attention_mask=mask).loss
    if job["method"] == "prompt":
        words = model.model.embed_tokens(tokens)
        labels = torch.cat([torch.full((batch, len(soft)), -100), tokens], 1)
        inputs = torch.cat([soft.to(words.dtype).expand(batch, -1, -1), words], 1)
        return model(inputs_embeds=inputs, labels=labels).loss
    parts = soft.view(1, len(soft), config.num_hidden_layers * 2, config.num_key_value_heads, config.head_dim)
    parts = parts.expand(batch, -1, -1, -1, -1).permute(2, 0, 3, 1, 4).split(2)
    cache = DynamicCache(config=config)
    for i, (key, value) in enumerate(parts):
        cache.update(key, value, i)
    return model(input_ids=tokens, labels=tokens, past_key_values=cache, use_cache=True).loss


def optimizer_of(parameters: list[nn.Parameter], job: dict[str, Any]) -> torch.optim.Optimizer:
    if job["optimizer"] == "adamw-8bit":
        import bitsandbytes as bnb

        return bnb.optim.AdamW8bit(parameters, lr=1e-4)
    kind = job["optimizer"]
    return torch.optim.AdamW(parameters, lr=1e-4, foreach=kind == "adamw-foreach", fused=kind == "adamw-fused")


def stepper(job: dict[str, Any]) -> tuple[Callable[[], None], int, dict[str, list[int]]]:
    """A function that does one step, the count of trained numbers, and the shapes of the model's tensors."""
    model = model_of(job)
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    adapt(model, job)
    soft = soft_prompt(model, job)
    if soft is not None:
        model.requires_grad_(False)
    model.train()
    if job["checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [p for p in model.parameters() if p.requires_grad] + ([] if soft is None else [soft])
    optimizer = optimizer_of(trained, job)
    tokens = torch.randint(0, model.config.vocab_size, (job["batch"], job["sequence"]))
    mixed = job["precision"] == "mixed"

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
            loss = loss_of(model, tokens, soft, job)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(p.numel() for p in trained), shapes


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise SystemExit(f"the kernel tells no {field}")


def trim() -> None:
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def live_peak(step: Callable[[], None], held: int) -> int:
    """The most bytes that torch's allocator had given out at one moment of a step, above ``held`` before it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    now = most = held
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def held_bytes() -> int:
    """Bytes of all tensors alive, each storage once."""
    import gc

    storages = {}
    for thing in gc.get_objects():
        if isinstance(thing, Tensor) and thing.device.type == "cpu":
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def main() -> None:
    job = json.loads(sys.argv[1])
    toy = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 256,
    }  # fmt: skip
    toy_step, _, _ = stepper({**job, "model": {**job["model"], **toy}, "sequence": 32, "virtual": 4})
    toy_step()
    toy_step()
    trim()
    before = status("VmRSS")
    step, trained, shapes = stepper(job)
    step()
    trim()
    Path("/proc/self/clear_refs").write_text("5")
    step()
    resident = status("VmHWM") - before
    live = live_peak(step, held_bytes())
    print(json.dumps({"resident": resident, "live": live, "trained": trained, "shapes": shapes}))


if __name__ == "__main__":
    main()
