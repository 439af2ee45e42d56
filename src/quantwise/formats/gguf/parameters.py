"""What llama.cpp is told of a model beside its tensors, and whether its graph computes the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError
from quantwise.formats.gguf.architectures import gguf_architecture
from quantwise.formats.gguf.graph import GgufArchitecture
from quantwise.formats.gguf.rope import rope_theta, rotated, scaling_keys

Value = bool | int | float | str
# The tanh form of gelu, which llama.cpp computes, and the exact one, which it computes as that.
_TANH_GELUS = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
# Gemma 2 and 3 of 27B parameters: llama.cpp tells them by their layers, and scales scores otherwise there.
_SCALED_BY_HIDDEN = {"gemma2": 46, "gemma3": 62}
# Every sixth layer of Gemma 3 attends to everything, every second of Gemma 2; every fourth of SmolLM3 rotates nothing.
_PERIOD = {"gemma2": 2, "gemma3": 6}
_UNROTATED_PERIOD = 4


def number(config: Mapping[str, Any], key: str) -> int:
    """A size in config.json. Raises InputError where it is missing."""
    if not isinstance(config.get(key), int):
        raise InputError(f"config.json lacks {key}, which GGUF needs; download it again")
    return int(config[key])


def head_dim(config: Mapping[str, Any]) -> int:
    """Width of one attention head."""
    return int(config.get("head_dim") or number(config, "hidden_size") // number(config, "num_attention_heads"))


def kv_heads(config: Mapping[str, Any]) -> int:
    """Heads of keys and values."""
    return int(config.get("num_key_value_heads") or number(config, "num_attention_heads"))


def gguf_parameters(config: Mapping[str, Any], experts: int = 0) -> dict[str, Value]:
    """Values by their key in the file, without the architecture before it; ``experts`` are those of one block.

    Raises InputError where llama.cpp does not compute as this model does.
    """
    architecture = gguf_architecture(config)
    check(config, architecture)
    width = head_dim(config)
    name, default = architecture.eps
    kind = "layer_norm_epsilon" if architecture.layer_norm else "layer_norm_rms_epsilon"
    found: dict[str, Value] = {
        "context_length": number(config, "max_position_embeddings"),
        "embedding_length": number(config, "hidden_size"),
        "block_count": number(config, "num_hidden_layers"),
        "feed_forward_length": number(config, "intermediate_size"),
        "attention.head_count": number(config, "num_attention_heads"),
        "attention.head_count_kv": kv_heads(config),
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": rotated(config, architecture, width),
        "rope.freq_base": rope_theta(config, architecture.theta),
        f"attention.{kind}": float(config.get(name, default)) if name else default,
        "vocab_size": number(config, "vocab_size"),
        **scaling_keys(config, architecture),
    }
    for key, theirs, usual in architecture.floats:
        if (value := config.get(theirs, usual)) is not None:
            found[key] = float(value)
    if architecture.name == "gptneox":
        found["use_parallel_residual"] = bool(config.get("use_parallel_residual", True))
    if architecture.sliding:
        found["attention.sliding_window"] = number(config, "sliding_window")
    if architecture.name == "phi3":
        # Without the key llama.cpp guesses a window from the count of layers.
        found["attention.sliding_window"] = 0
    return found | _expert_keys(config, experts)


def _expert_keys(config: Mapping[str, Any], experts: int) -> dict[str, Value]:
    if not experts:
        return {}
    found: dict[str, Value] = {"expert_count": experts, "expert_used_count": number(config, "num_experts_per_tok")}
    for key, theirs in (("", "moe_intermediate_size"), ("shared_", "shared_expert_intermediate_size")):
        if config.get(theirs):
            found[f"expert_{key}feed_forward_length"] = int(config[theirs])
    return found


def check(config: Mapping[str, Any], architecture: GgufArchitecture) -> None:
    """Raise InputError, with the reason, where llama.cpp's graph computes something else than this model."""
    for why in (
        _activation(config, architecture),
        _heads(config, architecture),
        _output(config, architecture),
        _layers(config, architecture),
        *(_must(config, *wanted) for wanted in architecture.must),
        *(_given(config, theirs) for _, theirs, usual in architecture.floats if usual is not None),
    ):
        if why:
            raise InputError(
                f"llama.cpp's {architecture.name} does not compute this model: {why}; "
                "bring a .gguf, or use transformers"
            )


def approximations(config: Mapping[str, Any]) -> tuple[Degradation, ...]:
    """What llama.cpp computes a little otherwise than Transformers."""
    architecture, found = gguf_architecture(config), []
    act = config.get(architecture.act_key)
    if architecture.act == "gelu" and act == "gelu":
        found.append(Degradation("activation", "llama.cpp computes gelu by its tanh form"))
    window = None if architecture.sliding else _window(config)
    if window is not None and window < number(config, "max_position_embeddings"):
        what = f"llama.cpp attends to all tokens, Transformers to the last {window}: they differ in longer contexts"
        found.append(Degradation("attention", what))
    return tuple(found)


def _window(config: Mapping[str, Any]) -> int | None:
    """The window of the layers that slide, where there are some."""
    types = config.get("layer_types")
    slides = "sliding_attention" in types if types else config.get("use_sliding_window", True)
    window = config.get("sliding_window")
    return int(window) if slides and window else None


def _activation(config: Mapping[str, Any], architecture: GgufArchitecture) -> str | None:
    usual = "gelu_pytorch_tanh" if architecture.act == "gelu" else "silu"
    act = config.get(architecture.act_key) or config.get("hidden_act") or usual
    allowed = (*_TANH_GELUS, "gelu") if architecture.act == "gelu" else ("silu",)
    return None if act in allowed else f"its activation is {act!r}, not {architecture.act}"


def _heads(config: Mapping[str, Any], architecture: GgufArchitecture) -> str | None:
    heads, hidden = number(config, "num_attention_heads"), number(config, "hidden_size")
    if architecture.square and heads * head_dim(config) != hidden:
        return f"{heads} heads of {head_dim(config)} are not as wide as the hidden state of {hidden}"
    if architecture.name == "olmoe" and kv_heads(config) != heads:
        return "it has fewer heads of keys than of queries"
    if architecture.name not in _SCALED_BY_HIDDEN:
        return None
    large = number(config, "num_hidden_layers") == _SCALED_BY_HIDDEN[architecture.name]
    due = hidden // heads if large else head_dim(config)
    scalar = config.get("query_pre_attn_scalar", 256)
    return None if scalar == due else f"query_pre_attn_scalar is {scalar}, not {due}"


def _output(config: Mapping[str, Any], architecture: GgufArchitecture) -> str | None:
    # Gemma's config.json leaves its default out: tied.
    tied = bool(config.get("tie_word_embeddings", architecture.norm_offset != 0.0))
    if architecture.output == "own" and tied:
        return "its output matrix is the embedding"
    if architecture.output == "tied" and not tied:
        return "its output matrix is not the embedding"
    return None


def _layers(config: Mapping[str, Any], architecture: GgufArchitecture) -> str | None:
    count = number(config, "num_hidden_layers")
    if architecture.name in _PERIOD:
        period = _PERIOD[architecture.name]
        due: Sequence[Any] = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(count)]
        if list(config.get("layer_types") or due) != due or config.get("sliding_window_pattern", period) != period:
            return f"its layers do not attend to a sliding window but for one in {period}"
    if architecture.name == "smollm3":
        rotated_layers = [int((i + 1) % _UNROTATED_PERIOD != 0) for i in range(count)]
        if list(config.get("no_rope_layers") or rotated_layers) != rotated_layers:
            return f"its layers without rotary embedding are not one in {_UNROTATED_PERIOD}"
    return None


def _must(config: Mapping[str, Any], key: str, usual: Any, allowed: tuple[Any, ...]) -> str | None:
    value = config.get(key, usual)
    return None if value in allowed else f"{key} is {value!r}"


def _given(config: Mapping[str, Any], key: str) -> str | None:
    return f"{key} is null" if key in config and config[key] is None else None
