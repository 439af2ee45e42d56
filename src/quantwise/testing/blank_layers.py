"""The tensors of one layer of llama.cpp's architectures, by name and shape, slowest dimension first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantwise.testing.blank_gguf import BlankModel

BIASED = ("starcoder2", "gptneox", "phi2")
CONVOLUTION = 4
_QKV = ("attn_q", "attn_k", "attn_v")
_QKV_BIASED = ("qwen2", "qwen2moe", "seed_oss", "gpt-oss")
_NORM_OF_HEADS = ("qwen3", "qwen3moe", "gemma3", "lfm2", "hunyuan-dense")
_NORM_OF_ALL = ("olmo2", "olmoe")

Shapes = dict[str, tuple[int, ...]]


def layer_shapes(model: BlankModel, layer: int) -> Shapes:
    """Every tensor of a layer, without what stands before its part."""
    return _Layer(model, layer).made


class _Layer:
    """``made`` is filled part by part."""

    def __init__(self, model: BlankModel, layer: int) -> None:
        self.model, self.kv_heads, self.made = model, model.kv_heads_of(layer), Shapes()
        name, h = model.architecture, model.hidden
        if name not in ("olmo", "olmo2"):
            self.norm("attn_norm", h)
        if name == "mamba":
            self.mamba()
            return
        if name == "lfm2" and not self.kv_heads:
            self.convolution()
        elif model.rank:
            self.latent()
        else:
            self.attention()
        if name in ("gemma2", "gemma3", "olmo2"):
            self.norm("post_attention_norm", h)
            self.norm("post_ffw_norm", h)
        if name in ("seed_oss", "gpt-oss"):
            self.norm("post_attention_norm", h)
        elif name not in ("olmo", "olmo2", "phi2", "command-r", "cohere2"):
            self.norm("ffn_norm", h)
        if model.experts:
            self.experts()
        else:
            self.feed_forward()

    def matrix(self, part: str, rows: int, columns: int, *, biased: bool = False) -> None:
        """A matrix of ``rows`` outputs, with a bias where asked for or where all of the architecture have one."""
        self.made[f"{part}.weight"] = (rows, columns)
        if biased or self.model.architecture in BIASED:
            self.made[f"{part}.bias"] = (rows,)

    def norm(self, part: str, width: int) -> None:
        """A norm's scale, and its shift in architectures that have biases."""
        self.made[f"{part}.weight"] = (width,)
        if self.model.architecture in BIASED:
            self.made[f"{part}.bias"] = (width,)

    def attention(self) -> None:
        """Queries, keys, values and output, in one matrix or three, with what norms heads."""
        model, name, h = self.model, self.model.architecture, self.model.hidden
        q, kv = model.heads * model.dim, self.kv_heads * model.dim
        if name in ("phi3", "gptneox"):
            self.matrix("attn_qkv", q + 2 * kv, h)
        else:
            for part, rows in zip(_QKV, (q, kv, kv), strict=True):
                self.matrix(part, rows, h, biased=name in _QKV_BIASED)
        self.matrix("attn_output", h, q, biased=name == "gpt-oss")
        if name in _NORM_OF_HEADS:
            self.norm("attn_q_norm", model.dim)
            self.norm("attn_k_norm", model.dim)
        if name in _NORM_OF_ALL:
            self.norm("attn_q_norm", q)
            self.norm("attn_k_norm", kv)

    def latent(self) -> None:
        """Latent attention as in DeepSeek V2 (arXiv 2405.04434): low-rank queries, one compressed cache."""
        model, h = self.model, self.model.hidden
        q = model.heads * model.dim
        self.matrix("attn_q_a", model.rank, h)
        self.norm("attn_q_a_norm", model.rank)
        self.matrix("attn_q_b", q, model.rank)
        self.matrix("attn_kv_a_mqa", model.rank + model.turned, h)
        self.norm("attn_kv_a_norm", model.rank)
        self.made["attn_k_b.weight"] = (model.heads, model.rank, model.dim - model.turned)
        self.made["attn_v_b.weight"] = (model.heads, model.dim, model.rank)
        self.matrix("attn_output", h, q)

    def convolution(self) -> None:
        """LFM2's short convolution, in place of attention."""
        h = self.model.hidden
        self.made["shortconv.conv.weight"] = (h, CONVOLUTION)
        self.matrix("shortconv.in_proj", 3 * h, h)
        self.matrix("shortconv.out_proj", h, h)

    def mamba(self) -> None:
        """A layer of Mamba (arXiv 2312.00752): there is nothing else in it."""
        model, h = self.model, self.model.hidden
        inner, step = 2 * h, h // 16
        self.matrix("ssm_in", 2 * inner, h)
        self.made["ssm_conv1d.weight"] = (inner, CONVOLUTION)
        self.made["ssm_conv1d.bias"] = self.made["ssm_dt.bias"] = self.made["ssm_d"] = (inner,)
        self.matrix("ssm_x", step + 2 * model.state, inner)
        self.made["ssm_dt.weight"] = (inner, step)
        self.made["ssm_a"] = (inner, model.state)
        self.matrix("ssm_out", h, inner)

    def feed_forward(self) -> None:
        """Up, down, and a gate where the architecture has one."""
        model, h, ff = self.model, self.model.hidden, self.model.feed_forward
        if model.architecture == "phi3":
            self.matrix("ffn_up", 2 * ff, h)
        elif model.architecture in BIASED:
            self.matrix("ffn_up", ff, h)
        else:
            self.matrix("ffn_gate", ff, h)
            self.matrix("ffn_up", ff, h)
        self.matrix("ffn_down", h, ff)

    def experts(self) -> None:
        """A router, experts stacked in three dimensions, and shared ones beside them."""
        model, made = self.model, self.made
        h, ff, n = model.hidden, model.feed_forward, model.experts
        made["ffn_gate_inp.weight"] = (n, h)
        made["ffn_gate_exps.weight"] = made["ffn_up_exps.weight"] = (n, ff, h)
        made["ffn_down_exps.weight"] = (n, h, ff)
        if model.architecture == "gpt-oss":
            made["attn_sinks.weight"] = (model.heads,)
            made["ffn_gate_inp.bias"] = (n,)
            made["ffn_gate_exps.bias"] = made["ffn_up_exps.bias"] = (n, ff)
            made["ffn_down_exps.bias"] = (n, h)
        if model.shared:
            if model.architecture == "qwen2moe":
                made["ffn_gate_inp_shexp.weight"] = (h,)
            made["ffn_gate_shexp.weight"] = made["ffn_up_shexp.weight"] = (model.shared, h)
            made["ffn_down_shexp.weight"] = (h, model.shared)
