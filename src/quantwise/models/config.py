"""The shape of a model out of its config.json, without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantwise.core.artifact import FormatName
from quantwise.core.errors import InputError

# Architectures whose linear layers and caches are those of Llama, so that `parameters` counts them exactly.
LLAMA_LIKE = ("LlamaForCausalLM", "MistralForCausalLM")
# What quantization_config calls its method, and the format that this is.
FORMATS: Mapping[str, FormatName] = {
    "compressed-tensors": "compressed-tensors",
    "gptq": "gptq",
    "awq": "awq",
    "bitsandbytes": "bitsandbytes",
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder. ``heads`` ask, ``kv_heads`` are cached; ``head_dim`` is the width of one head.

    ``intermediate`` is the width of the feed-forward layer, ``vocab`` the count of token embeddings, ``tied`` whether
    the output matrix is the embedding, ``context`` the longest sequence it was trained for, ``quantized`` whether
    config.json says that the weights are stored quantized. ``rope_factors`` counts the numbers that a scaled rotary
    embedding is divided by, which GGUF keeps as tensors.
    """

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    context: int
    quantized: bool = False
    rope_factors: int = 0

    @property
    def parameters(self) -> int | None:
        """Count of weights, norms included; None where the architecture is not Llama's."""
        if self.architecture not in LLAMA_LIKE:
            return None
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.hidden


def read_config(folder: Path) -> ModelShape:
    """Read the config.json of a model folder in the Hugging Face layout.

    Raises InputError where the folder or the file is missing, is no JSON object, or lacks a size.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        also = "; a .gguf file can be a --candidate" if folder.suffix == ".gguf" else ", or a .gguf file"
        raise InputError(f"model folder {folder} {what}; give a folder in the Hugging Face layout{also}")
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json; give a folder in the Hugging Face layout")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({str(error).splitlines()[0]}); download it again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is no JSON object; download it again")
    return _shape(config, path)


def quantization_settings(folder: Path) -> dict[str, Any]:
    """The ``quantization_config`` of a folder's config.json; empty where it has none (``read_config`` says why)."""
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    if settings is None:
        return {}
    return settings if isinstance(settings, dict) else {"quant_method": settings}


def folder_format(folder: Path) -> FormatName:
    """How the weights of a model folder are stored, by its config.json; ``safetensors`` where that says nothing.

    Raises InputError for a quantization that no runtime here reads.
    """
    settings = quantization_settings(folder)
    if not settings:
        return "safetensors"
    method = settings.get("quant_method")
    form = FORMATS.get(str(method).lower())
    if form is None:
        raise InputError(
            f"{folder} is quantized by {str(method)!r:.40}, which is not loaded here ({', '.join(FORMATS)} are); "
            "serve it with its own runtime and give the server's address"
        )
    return form


def _shape(config: Mapping[str, Any], path: Path) -> ModelShape:
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise InputError(f"{path} names no architectures; give the config.json of a language model")
    if "text_config" in config and "hidden_size" not in config:
        raise InputError(f"{path} describes a model of several modalities ({architectures[0]}); give a text-only model")
    heads, hidden = _size(config, "num_attention_heads", path), _size(config, "hidden_size", path)
    kv_heads = _size(config, "num_key_value_heads", path, heads)
    if config.get("head_dim") is None and hidden % heads:
        raise InputError(f"{path}: hidden_size {hidden} is no multiple of {heads} heads; set head_dim")
    if heads % kv_heads:
        raise InputError(f"{path}: {heads} heads do not split over {kv_heads} key-value heads; the file is damaged")
    return ModelShape(
        architecture=architectures[0],
        layers=_size(config, "num_hidden_layers", path),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_size(config, "head_dim", path, hidden // heads),
        intermediate=_size(config, _feed_forward(config), path),
        vocab=_size(config, "vocab_size", path),
        tied=bool(config.get("tie_word_embeddings", False)),
        context=_size(config, "max_position_embeddings", path),
        quantized="quantization_config" in config,
        rope_factors=_rope_factors(config, _size(config, "head_dim", path, hidden // heads)),
    )


def _feed_forward(config: Mapping[str, Any]) -> str:
    """The key under which a config.json keeps the width of the feed-forward layer: OPT and GPT-2 have their own."""
    return next((key for key in ("intermediate_size", "ffn_dim", "n_inner") if config.get(key)), "intermediate_size")


def _rope_factors(config: Mapping[str, Any], head_dim: int) -> int:
    """Llama 3.1 divides every frequency by a number of its own, LongRoPE by one of two."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        return 0
    lists = sum(len(rope.get(part) or ()) for part in ("long_factor", "short_factor"))
    return head_dim // 2 if rope.get("rope_type", rope.get("type")) == "llama3" else lists


def _size(config: Mapping[str, Any], name: str, path: Path, default: int | None = None) -> int:
    value = config.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError(f"{path} lacks {name}; give the config.json of a decoder in the Hugging Face layout")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: {name} must be a whole number of at least 1, not {value!r:.40}")
    return value
