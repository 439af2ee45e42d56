"""What a llama.cpp server is asked for, and the sizes it makes of that: cells, streams, tokens at once."""

from __future__ import annotations

from dataclasses import dataclass

from quantwise.core.cache_scheme import LLAMACPP_CACHES, keys_and_values
from quantwise.core.errors import InputError
from quantwise.plan.constants import LlamacppBuild

PADDING = 256
"""Cells are counted in this many (src/llama-context.cpp, https://github.com/ggml-org/llama.cpp/pull/17046)."""
BATCH = 2048
"""The default ``n_batch``."""
MOST_SLOTS = 256
"""``LLAMA_MAX_SEQ`` of src/llama-cparams.h (2026): a server of more does not start."""


@dataclass(frozen=True, slots=True)
class LlamacppSettings:
    """One server. ``context`` tokens for each of ``slots`` requests at a time.

    ``unified``: all slots share one cache (llama-server's own choice where the number of slots is left to it).
    ``cache`` is a type, or ``K/V``. ``ubatch`` tokens are computed at once. ``whole_window`` keeps all tokens of
    sliding layers too (``--swa-full``). ``gpu_layers`` counts from the last layer and includes the output (``-ngl``);
    ``experts_on_cpu`` layers, from the first, keep their experts in main memory (``--n-cpu-moe``).
    """

    context: int
    slots: int = 1
    unified: bool = False
    cache: str = "f16"
    flash_attention: bool = True
    ubatch: int = 512
    whole_window: bool = False
    gpu_layers: int = 0
    experts_on_cpu: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "slots", "ubatch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be a whole number of at least 1, not {getattr(self, name)}")
        if self.slots > MOST_SLOTS:
            raise InputError(
                f"llama.cpp serves at most {MOST_SLOTS} requests at a time, not {self.slots}; plan several servers, or "
                "another runtime"
            )
        for name in ("gpu_layers", "experts_on_cpu"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)}")
        keys, values = self.types
        if unknown := {keys, values} - set(LLAMACPP_CACHES):
            raise InputError(f"unknown cache scheme {sorted(unknown)[0]!r}; allowed: {', '.join(LLAMACPP_CACHES)}")
        if not self.flash_attention and values not in ("f32", "f16", "bf16"):
            raise InputError(f"values in {values} need flash attention; turn it on, or take f16 values")

    @property
    def types(self) -> tuple[str, str]:
        """Cache types of keys and of values."""
        return keys_and_values(self.cache)

    @property
    def streams(self) -> int:
        """Caches that lie apart."""
        return 1 if self.unified else self.slots

    @property
    def cells(self) -> int:
        """Tokens that one stream holds."""
        total = padded(self.context * self.slots)
        return total if self.unified else padded(total // self.slots)

    def window_cells(self, window: int) -> int:
        """Tokens that one stream holds in a layer that sees ``window`` tokens back (src/llama-kv-cache-iswa.cpp).

        What is being computed stays beside the window.
        """
        if self.whole_window:
            return self.cells
        return padded(min(self.cells, window * (self.slots if self.unified else 1) + self.at_once))

    @property
    def at_once(self) -> int:
        """Tokens that are computed at once at most."""
        return min(self.ubatch, BATCH, self.context * self.slots)

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the graph that the compute buffer is made for: a whole number for each slot."""
        tokens = min(self.at_once, self.cells * self.streams)
        return -(-tokens // self.slots) * self.slots

    def reserved_outputs(self, build: LlamacppBuild) -> int:
        """Rows of logits of that graph.

        llama-server reserves one for each slot since https://github.com/ggml-org/llama.cpp/pull/23861; before, and
        where a program does not say, it is one for each token.
        """
        return min(self.at_once, self.slots) if build.outputs == "slots" else self.at_once


def padded(tokens: int) -> int:
    """A number of tokens rounded up to whole groups of cells."""
    return -(-tokens // PADDING) * PADDING
