"""A decoder out of a config.json alone: every layer, and every tensor by the name that a published folder gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantwise.core.errors import InputError
from quantwise.models.decoder import Attention, Decoder, Layer
from quantwise.models.families import FAMILIES
from quantwise.models.family import Family
from quantwise.models.fields import MOST_TENSORS, Fields
from quantwise.models.layer_kinds import Kind, all_full, listed_kinds
from quantwise.models.layer_sizes import llama_sizes
from quantwise.models.tensor_lines import write_out
from quantwise.models.tensor_table import Alike, TensorTable

# A state has no end; llama.cpp's converter writes this length for models that name none.
_ENDLESS = 1 << 20
# Beginnings of keys that speak of latent attention, states or shared caches.
_UNUSUAL = ("kv_lora_rank", "mamba", "ssm", "linear_", "rwkv", "conv_", "num_kv_shared_layers", "attn_layer_")


def decoder_of(config: Mapping[str, Any], name: str, where: str = "config.json") -> Decoder:
    """The decoder that ``config`` describes, called ``name``; complaints name ``where`` it was read.

    Of a model of several modalities it is the language model alone. Raises InputError, one line, for a model type that
    is not known and for sizes that are missing, absurd, or contradict each other.
    """
    config = language_model(config, where)
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise InputError(
            f"{where}: the tensors of model type {kind!r:.40} are not known; known: {', '.join(FAMILIES)}; "
            "give a folder with its .safetensors files, or a .gguf file"
        )
    fields = Fields(config, where, family.defaults)
    sizes = family.sizes(fields)
    kinds = listed_kinds(fields) or family.kinds(fields)
    layers, tensors = _layers(family, fields, sizes, kinds)
    tied = fields.flag("tie_embedding" if "tie_embedding" in config else "tie_word_embeddings")
    whole = write_out((*family.whole, *(() if tied else (family.output,))), sizes, fields)
    return Decoder(
        name=name,
        architecture=class_name(config),
        hidden=sizes["h"],
        vocab=sizes["v"],
        context=fields.size("max_position_embeddings", _ENDLESS),
        tied=tied,
        layers=tuple(layers),
        tensors=TensorTable((*whole, *tensors)),
        stored={},
    )


def decoder_by_usual_keys(config: Mapping[str, Any], name: str, where: str = "config.json") -> Decoder:
    """A decoder of an unknown model type by the keys that most have, without tensors: the files must give those.

    Raises InputError where a key is missing, and where one tells of layers that these keys do not describe.
    """
    config = language_model(config, where)
    strange = [key for key in config if key.startswith(_UNUSUAL) and config[key] is not None]
    if strange:
        raise InputError(
            f"{where}: model type {config.get('model_type')!r:.40} is not known, and {strange[0]} tells that it is no "
            f"usual one; known: {', '.join(FAMILIES)}; give a .gguf file"
        )
    fields = Fields(config, where)
    sizes = llama_sizes(fields)
    window = fields.optional("sliding_window")
    kinds = listed_kinds(fields) or all_full(fields)
    if set(kinds) & {"recurrent", "both"}:
        raise InputError(f"{where}: what the layers of a {config.get('model_type')!r:.40} keep is not known")
    return Decoder(
        name=name,
        architecture=class_name(config),
        hidden=sizes["h"],
        vocab=sizes["v"],
        context=fields.size("max_position_embeddings"),
        tied=fields.flag("tie_word_embeddings"),
        layers=tuple(_layer(kind, sizes, window, sparse=sizes["e"] > 0) for kind in kinds),
        tensors={},
        stored={},
    )


def language_model(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The part of a config of several modalities that describes its language model; other configs as they are."""
    inner = config.get("text_config")
    if not isinstance(inner, dict):
        if inner is not None:
            raise InputError(f"{where}: text_config is no object; download it again")
        return config
    outer = {key: config[key] for key in ("architectures", "tie_word_embeddings") if key in config}
    return {**outer, **inner, "architectures": outer.get("architectures", inner.get("architectures"))}


def class_name(config: Mapping[str, Any]) -> str:
    """The class that config.json names, else its model type."""
    listed = config.get("architectures")
    if isinstance(listed, list) and listed and isinstance(listed[0], str):
        return listed[0]
    return str(config.get("model_type", "unknown"))


def rope_factor_count(config: Mapping[str, Any], decoder: Decoder) -> int:
    """How many numbers llama.cpp divides rotary frequencies by, which its files keep beside the weights.

    Llama 3.1 has one for each pair of a head's numbers, Gemma 4 for each of its wide heads; LongRoPE two lists.
    """
    if config.get("model_type") == "gemma4_text":
        return max((layer.attention.key_dim for layer in decoder.layers if layer.attention is not None), default=0) // 2
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    attention = next((layer.attention for layer in decoder.layers if layer.attention is not None), None)
    if not isinstance(rope, dict) or attention is None:
        return 0
    lists = [rope.get(part) for part in ("long_factor", "short_factor")]
    listed = sum(len(numbers) for numbers in lists if isinstance(numbers, list))
    return attention.key_dim // 2 if rope.get("rope_type", rope.get("type")) == "llama3" else listed


def _layers(
    family: Family, fields: Fields, sizes: Mapping[str, int], kinds: list[Kind]
) -> tuple[list[Layer], list[Alike]]:
    if len(kinds) * (len(family.experts) * sizes["e"] + 64) > MOST_TENSORS:
        raise InputError(f"{fields.where}: {len(kinds)} layers of {sizes['e']} experts are beyond any model")
    window = fields.optional(family.window)
    layers: list[Layer] = []
    tensors: list[Alike] = []
    written: dict[tuple[tuple[str, ...], tuple[tuple[str, int], ...]], list[Alike]] = {}
    for number, kind in enumerate(kinds):
        sparse = family.sparse is not None and family.sparse(fields, number)
        if sparse and sizes["e"] == 0 and "?e" not in " ".join(family.experts):
            raise InputError(f"{fields.where} names no number of experts; give the config.json of a decoder")
        lines = (
            *family.norms,
            *(() if kind == "recurrent" else family.attention),
            *(family.recurrent if kind in ("recurrent", "both") else ()),
            *(family.experts if sparse else family.dense),
        )
        own = {**sizes, **family.adjust(fields, number, kind)} if family.adjust else sizes
        alike = lines, tuple(own.items())
        if alike not in written:
            written[alike] = list(write_out(lines, own, fields))
        before = f"{family.blocks}.{number}."
        tensors += [Alike(before + one.name, one.shape, one.count) for one in written[alike]]
        layers.append(_layer(kind, own, window, sparse=sparse))
    return layers, tensors


def _layer(kind: Kind, sizes: Mapping[str, int], window: int | None, *, sparse: bool) -> Layer:
    attention = None
    if kind != "recurrent":
        attention = Attention(
            heads=sizes["heads"],
            kv_heads=sizes["kv_heads"],
            key_dim=sizes["kd"],
            value_dim=sizes["vd"],
            window=window if kind == "sliding" else None,
            latent=sizes.get("latent", 0),
            shared=bool(sizes.get("shared", 0)),
        )
    state = sizes.get("state", 0) if kind in ("recurrent", "both") else 0
    if sparse and sizes["e"]:
        return Layer(attention, sizes["m"], state, sizes["e"], sizes["k"])
    return Layer(attention, sizes["s"] if sparse else sizes["f"], state)
