"""Decoders of well-known models, by hand, without tensors."""

from __future__ import annotations

from quantwise.models.decoder import Attention, Decoder, Layer


def decoder(*layers: Layer, hidden: int = 4096, vocab: int = 32000, architecture: str = "LlamaForCausalLM") -> Decoder:
    return Decoder("by hand", architecture, hidden, vocab, 131072, False, layers, {}, {})


def uniform(layers: int, heads: int, kv_heads: int, dim: int, *, feed_forward: int = 14336) -> Decoder:
    return decoder(*(Layer(Attention(heads, kv_heads, dim, dim), feed_forward),) * layers)


def sliding(full: int, slid: int, window: int, kv_heads: int, dim: int) -> Decoder:
    """As many layers that see all tokens, and that see a window."""
    far = Layer(Attention(2 * kv_heads, kv_heads, dim, dim), 1024)
    near = Layer(Attention(2 * kv_heads, kv_heads, dim, dim, window=window), 1024)
    return decoder(*(far,) * full, *(near,) * slid, architecture="Gemma3ForCausalLM")


LLAMA_70B = uniform(80, 64, 8, 128)
LLAMA_8B = uniform(32, 32, 8, 128)
DEEPSEEK_LITE = decoder(*(Layer(Attention(16, 1, 192, 128, latent=576), 1408),) * 27, hidden=2048, vocab=102400)
DEEPSEEK_R1 = decoder(*(Layer(Attention(128, 1, 192, 128, latent=576), 2048),) * 61, hidden=7168, vocab=129280)
GEMMA_3_12B = sliding(8, 40, 1024, 8, 256)
GEMMA_2_27B = sliding(23, 23, 4096, 16, 128)
