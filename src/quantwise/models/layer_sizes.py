"""The sizes that a family's tensor lines speak of, by their symbols, out of a config.json.

``h`` hidden, ``v`` vocabulary, ``heads``, ``kv_heads``, ``d`` width of a head; ``q``, ``kv``, ``o``: queries, keys and
what goes into the output projection, of all heads; ``q3``: all three; ``kd``, ``vd``: a key and a value of one head;
``f`` width of the dense feed-forward layer, ``m`` of one expert, ``s`` of the shared ones; ``e`` experts, ``k`` used of
them by a token. ``state``: numbers that a recurrent layer keeps; ``latent``: numbers of a token in latent attention.
"""

from __future__ import annotations

from collections.abc import Callable

from quantwise.core.errors import InputError
from quantwise.models.fields import MOST_EXPERTS, Fields
from quantwise.models.layer_kinds import Kind

Sizes = Callable[[Fields], dict[str, int]]

_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_USED_KEYS = ("num_experts_per_tok", "top_k_experts", "moe_k")


def llama_sizes(fields: Fields) -> dict[str, int]:
    """Most families. Raises InputError where heads do not divide the hidden state, or key heads the heads."""
    sizes = _outside(fields) | _heads(fields)
    wide = fields.size("intermediate_size")
    return sizes | {"f": wide} | _expert_sizes(fields, wide)


def _outside(fields: Fields) -> dict[str, int]:
    return {"h": fields.size("hidden_size"), "v": fields.size("vocab_size")}


def _heads(fields: Fields) -> dict[str, int]:
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    kv_heads = fields.size("num_key_value_heads", heads)
    if fields.get("head_dim") is None and hidden % heads:
        raise InputError(f"{fields.where}: hidden_size {hidden} is no multiple of {heads} heads; set head_dim")
    if heads % kv_heads:
        raise InputError(
            f"{fields.where}: {heads} heads do not split over {kv_heads} key-value heads; the file is damaged"
        )
    width = fields.size("head_dim", hidden // heads)
    q, kv = heads * width, kv_heads * width
    return {"heads": heads, "kv_heads": kv_heads, "d": width, "kd": width, "vd": width,
            "q": q, "kv": kv, "o": q, "q3": q + 2 * kv}  # fmt: skip


def _expert_sizes(fields: Fields, wide: int) -> dict[str, int]:
    experts = next((n for key in _EXPERT_KEYS if (n := fields.size(key, 0, least=0, most=MOST_EXPERTS))), 0)
    used = next((fields.size(key, least=0) for key in _USED_KEYS if fields.get(key) is not None), min(2, experts))
    if used > experts:
        raise InputError(f"{fields.where}: {used} of {experts} experts are used by a token; the file is damaged")
    one = fields.size("moe_intermediate_size", wide)
    shared = fields.optional("shared_expert_intermediate_size") or fields.optional("shared_intermediate_size")
    shared = shared or one * fields.size("n_shared_experts", 0, least=0)
    return {"e": experts, "k": used, "m": one, "s": shared}


def llama4_sizes(fields: Fields) -> dict[str, int]:
    """Llama 4: one expert has the width that others call that of the dense layer."""
    return llama_sizes(fields) | {"f": fields.size("intermediate_size_mlp", 16384)}


def deepseek_sizes(fields: Fields) -> dict[str, int]:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are made of ``l`` numbers, and
    ``rope`` numbers of a key are shared by all heads.
    """
    heads, plain, rope = (
        fields.size("num_attention_heads"),
        fields.size("qk_nope_head_dim"),
        fields.size("qk_rope_head_dim"),
    )
    value, rank = fields.size("v_head_dim"), fields.size("kv_lora_rank")
    query = fields.optional("q_lora_rank") or 0
    wide = fields.size("intermediate_size")
    return _outside(fields) | _expert_sizes(fields, wide) | {
        "heads": heads, "kv_heads": heads, "d": plain + rope, "kd": plain + rope, "vd": value, "f": wide,
        "q": heads * (plain + rope), "o": heads * value, "lq": query, "direct": int(not query),
        "l": rank, "lr": rank + rope, "lb": heads * (plain + value), "latent": rank + rope,
    }  # fmt: skip


def qwen3_next_sizes(fields: Fields) -> dict[str, int]:
    """Gated DeltaNet (arXiv 2412.06464): a matrix of key by value for every value head, and the last inputs of a
    convolution.
    """
    keys, values = fields.size("linear_num_key_heads", 16), fields.size("linear_num_value_heads", 32)
    wide_key, wide_value = fields.size("linear_key_head_dim", 128), fields.size("linear_value_head_dim", 128)
    kernel, inner = fields.size("linear_conv_kernel_dim", 4), values * wide_value
    convolved = 2 * keys * wide_key + inner
    return llama_sizes(fields) | {
        "mh": values, "md": wide_value, "mi": inner, "mk": kernel, "mc": convolved, "mp": convolved + inner,
        "state": values * wide_key * wide_value + convolved * (kernel - 1),
    }  # fmt: skip


def _mamba(fields: Fields, inner: int, names: tuple[str, str, str]) -> dict[str, int]:
    state, kernel, hidden = fields.size(names[0], 16), fields.size(names[1], 4), fields.size("hidden_size")
    rank = -(-hidden // 16) if fields.get(names[2]) in (None, "auto") else fields.size(names[2])
    return {"mi": inner, "ms": state, "mk": kernel, "mr": rank, "mx": rank + 2 * state,
            "state": inner * (state + kernel - 1)}  # fmt: skip


def jamba_sizes(fields: Fields) -> dict[str, int]:
    """Mamba beside attention: a state of ``ms`` numbers for each of ``mi`` channels, and a convolution's inputs."""
    inner = fields.size("mamba_expand", 2) * fields.size("hidden_size")
    return llama_sizes(fields) | _mamba(fields, inner, ("mamba_d_state", "mamba_d_conv", "mamba_dt_rank"))


def mamba_sizes(fields: Fields) -> dict[str, int]:
    """Mamba alone (arXiv 2312.00752)."""
    inner = fields.size("intermediate_size", fields.size("expand", 2) * fields.size("hidden_size"))
    return _outside(fields) | {"f": 0, "e": 0} | _mamba(fields, inner, ("state_size", "conv_kernel", "time_step_rank"))


def _mamba2(heads: int, width: int, state: int, groups: int, kernel: int) -> dict[str, int]:
    """Mamba 2 (arXiv 2405.21060): ``state`` numbers for each of ``heads * width`` channels."""
    inner = heads * width
    convolved = inner + 2 * groups * state
    return {"mh": heads, "md": width, "mi": inner, "ms": state, "mk": kernel, "mc": convolved,
            "mp": inner + convolved + heads, "state": inner * state + convolved * (kernel - 1)}  # fmt: skip


def mamba2_sizes(fields: Fields) -> dict[str, int]:
    """Mamba 2 alone."""
    found = _mamba2(fields.size("num_heads", 128), fields.size("head_dim", 64), fields.size("state_size", 128),
                    fields.size("n_groups", 8), fields.size("conv_kernel", 4))  # fmt: skip
    return _outside(fields) | {"f": 0, "e": 0} | found


def mamba2_beside_sizes(fields: Fields) -> dict[str, int]:
    """Mamba 2 beside attention (Granite 4, Falcon-H1)."""
    inner = fields.optional("mamba_d_ssm") or fields.size("mamba_expand", 2) * fields.size("hidden_size")
    heads = fields.size("mamba_n_heads", 128)
    if inner % heads:
        raise InputError(f"{fields.where}: {heads} mamba_n_heads do not divide the {inner} channels; repair the file")
    width = inner // heads if fields.get("mamba_d_head") in (None, "auto") else fields.size("mamba_d_head")
    if width * heads != inner:
        raise InputError(f"{fields.where}: mamba_d_head {width} times {heads} heads is not {inner}; repair the file")
    found = _mamba2(heads, width, fields.size("mamba_d_state", 256), fields.size("mamba_n_groups", 1),
                    fields.size("mamba_d_conv", 4))  # fmt: skip
    return llama_sizes(fields) | found


def lfm2_sizes(fields: Fields) -> dict[str, int]:
    """LFM2: the config's width is that of a plain layer, two thirds of which are used, rounded up."""
    found, hidden, kernel = llama_sizes(fields), fields.size("hidden_size"), fields.size("conv_L_cache", 3)
    wide = fields.size("block_ff_dim", found["f"])
    if fields.get("block_auto_adjust_ff_dim") in (None, True):
        factor, multiple = fields.get("block_ffn_dim_multiplier"), fields.size("block_multiple_of", 256)
        wide = 2 * wide // 3
        if isinstance(factor, int | float) and 0 < factor < 64:
            wide = int(factor * wide)
        wide = -(-wide // multiple) * multiple
    return found | {"f": wide, "mk": kernel, "state": hidden * (kernel - 1)}


def lfm2_moe_sizes(fields: Fields) -> dict[str, int]:
    """LFM2 with experts: widths are what they are called."""
    kernel = fields.size("conv_L_cache", 3)
    return llama_sizes(fields) | {"mk": kernel, "state": fields.size("hidden_size") * (kernel - 1)}


def falcon_sizes(fields: Fields) -> dict[str, int]:
    """Falcon: one key-value head (multi-query) in the first models, several in the later ones; norms differ."""
    later = fields.flag("new_decoder_architecture")
    heads = fields.size("num_attention_heads")
    count = fields.size("num_kv_heads", heads) if later else 1 if fields.flag("multi_query") else heads
    plain = Fields({**fields.values, "num_key_value_heads": count}, fields.where, fields.defaults)
    hidden = fields.size("hidden_size")
    parallel = fields.flag("parallel_attn")
    two = parallel and fields.size("num_ln_in_parallel_attn", 2 if later else 1) == 2
    return _outside(fields) | _heads(plain) | {
        "f": fields.size("ffn_hidden_size", 4 * hidden), "e": 0,
        "two_norms": int(two), "one_norm": int(not two), "norm_after": int(not parallel),
    }  # fmt: skip


def opt_sizes(fields: Fields) -> dict[str, int]:
    """OPT: learned positions, two of them unused; embeddings may be narrower than the hidden state."""
    hidden = fields.size("hidden_size")
    plain = Fields({**fields.values, "num_key_value_heads": None}, fields.where, fields.defaults)
    width = fields.size("word_embed_proj_dim", hidden)
    final = fields.flag("do_layer_norm_before") and not fields.flag("_remove_final_layer_norm")
    return _outside(fields) | _heads(plain) | {
        "f": fields.size("ffn_dim"), "e": 0, "w": width, "n": fields.size("max_position_embeddings") + 2,
        "projected": int(width != hidden), "final_norm": int(final),
    }  # fmt: skip


def gemma4_sizes(fields: Fields) -> dict[str, int]:
    """Gemma 4: beside its embedding a token has a small one for every layer, ``pv`` of them of ``p`` numbers."""
    found = llama_sizes(fields)
    small = fields.size("hidden_size_per_layer_input", 256, least=0)
    count = fields.size("vocab_size_per_layer_input", 262144) if small else 0
    return found | {"p": small, "pv": count, "pa": fields.layers * small, "own": 1, "values": 1}


def gemma4_layer(fields: Fields, layer: int, kind: Kind) -> dict[str, int]:
    """Layers of Gemma 4 that see everything have wider heads, and fewer of them cached; the last ones read the cache
    of an earlier layer, and may have a feed-forward layer of twice the width.
    """
    shared = layer >= fields.layers - fields.size("num_kv_shared_layers", 0, least=0)
    double = 2 if shared and fields.flag("use_double_wide_mlp") else 1
    found = {"shared": int(shared), "own": int(not shared), "f": double * fields.size("intermediate_size")}
    if kind != "full":
        return found | {"values": int(not shared)}
    same = fields.flag("attention_k_eq_v")
    heads, usual = fields.size("num_attention_heads"), fields.size("num_key_value_heads", 4)
    listed = _of_layer(fields, layer)
    width = listed.size("head_dim", fields.size("global_head_dim", 512))
    fewer = fields.size("num_global_key_value_heads", usual) if same else usual
    kv_heads = listed.size("num_key_value_heads", fewer)
    if heads % kv_heads:
        raise InputError(f"{fields.where}: {heads} heads do not split over {kv_heads} key-value heads; repair the file")
    return found | {"values": int(not shared and not same), "kv_heads": kv_heads, "d": width, "kd": width, "vd": width,
                    "q": heads * width, "kv": kv_heads * width, "o": heads * width}  # fmt: skip


def _of_layer(fields: Fields, layer: int) -> Fields:
    """What a config.json of Transformers 5 says of one layer alone."""
    listed = fields.get("per_layer_config")
    pairs = listed.items() if isinstance(listed, dict) else ()
    own = next((value for key, value in pairs if key.isdecimal() and int(key) == layer), None)
    return Fields(own if isinstance(own, dict) else {}, fields.where)
