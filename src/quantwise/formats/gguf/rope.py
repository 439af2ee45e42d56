"""Rotary embeddings of a config.json as llama.cpp is told of them: bases, widths, and scalings for long contexts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantwise.core.errors import InputError
from quantwise.formats.gguf.graph import GgufArchitecture

# YaRN's numbers (Peng et al. 2023) that llama.cpp takes as given.
_YARN_USUAL = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "mscale": None, "mscale_all_dim": None}


def rope_parameters(config: Mapping[str, Any], layers: str = "full_attention") -> dict[str, Any]:
    """The parameters of the layers of one kind. Their place in config.json changed with Transformers 5."""
    found = dict(config.get("rope_parameters") or {})
    if not found:
        local = layers == "sliding_attention"
        old = {} if local else config.get("rope_scaling") or {}
        theta = config.get("rope_local_base_freq") if local else config.get("rope_theta", config.get("rotary_emb_base"))
        found = {**old, "rope_theta": theta}
    return dict(found.get(layers, found))


def rope_theta(config: Mapping[str, Any], default: float = 10000.0, layers: str = "full_attention") -> float:
    """Base of the rotary frequencies."""
    return float(rope_parameters(config, layers).get("rope_theta") or default)


def rotated(config: Mapping[str, Any], architecture: GgufArchitecture, width: int) -> int:
    """How many numbers of a head of ``width`` are rotated. Raises InputError where the graph rotates all of them."""
    outside = config.get("partial_rotary_factor", config.get("rotary_pct"))
    share = rope_parameters(config).get("partial_rotary_factor", outside)
    if architecture.partial_rotary is None:
        if share not in (None, 1.0):
            raise InputError(
                f"llama.cpp's {architecture.name} rotates whole heads; this model {share:.0%}: use transformers"
            )
        return width
    return int(width * float(architecture.partial_rotary if share is None else share))


def rope_kind(config: Mapping[str, Any]) -> str:
    """``default``, or the name of a scaling. The first Phi 3 called LongRoPE su, or yarn."""
    rope = rope_parameters(config)
    if rope.get("long_factor"):
        return "longrope"
    return str(rope.get("rope_type") or rope.get("type") or "default")


def scaling_keys(config: Mapping[str, Any], architecture: GgufArchitecture) -> dict[str, str | float | int]:
    """Keys of the file, without its architecture, that tell of a scaling.

    Raises InputError where llama.cpp does not scale in this way.
    """
    rope, kind = rope_parameters(config), rope_kind(config)
    if kind in ("default", "llama3" if architecture.factors else "default"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    # Where layers slide, llama.cpp would scale those too.
    usual_yarn = kind == "yarn" and all(rope.get(key) in (None, usual) for key, usual in _YARN_USUAL.items())
    if usual_yarn and original and not architecture.sliding:
        factor = float(rope["factor"])
        # Transformers multiplies cosine and sine by this; llama.cpp computes the same.
        if math.isclose(float(rope.get("attention_factor") or _yarn_attention(factor)), _yarn_attention(factor)):
            return {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": factor,
                "rope.scaling.original_context_length": int(original),
            }
    if kind == "longrope" and architecture.name == "phi3" and original:
        return {
            "rope.scaling.original_context_length": int(original),
            "rope.scaling.attn_factor": _long_attention(config, rope, int(original)),
        }
    raise InputError(
        f"llama.cpp's {architecture.name} has no rotary scaling {kind!r} of this kind; "
        "bring a .gguf, or use transformers"
    )


def factor_tensors(
    config: Mapping[str, Any], architecture: GgufArchitecture, width: int
) -> dict[str, tuple[float, ...]]:
    """Tensors of 32-bit numbers, by name, by which llama.cpp divides every rotary frequency of heads of ``width``."""
    rope, kind = rope_parameters(config), rope_kind(config)
    if kind == "llama3" and architecture.factors:
        theta = rope_theta(config, architecture.theta)
        return {"rope_freqs.weight": tuple(_llama3(rope, theta ** (-i / width)) for i in range(0, width, 2))}
    if kind == "longrope":
        count = rotated(config, architecture, width) // 2
        found = {f"rope_factors_{part}.weight": tuple(map(float, rope[f"{part}_factor"])) for part in ("long", "short")}
        if any(len(numbers) != count for numbers in found.values()):
            raise InputError(f"config.json has not {count} long and short factors of its rotary embedding; repair it")
        return found
    return {}


def _yarn_attention(factor: float) -> float:
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _long_attention(config: Mapping[str, Any], rope: Mapping[str, Any], original: int) -> float:
    """LongRoPE (Ding et al. 2024), as Transformers computes it."""
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    scale = int(config["max_position_embeddings"]) / original
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def _llama3(rope: Mapping[str, Any], frequency: float) -> float:
    """What Llama 3.1 divides a frequency by: nothing where it is fast, the factor where slow, between both between."""
    original, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = original * frequency / (2 * math.pi)
    if turns > high:
        return 1.0
    if turns < low:
        return factor
    smooth = (turns - low) / (high - low)
    return 1 / ((1 - smooth) / factor + smooth)
