"""Cache schemes: which numbers the keys and values of attention may take while they are kept.

``f16`` is the runtime's own 16-bit type everywhere. llama.cpp names its block types, for keys and values alike
(``q8_0``) or apart (``q8_0/q4_0``: keys, then values). The Transformers runtime has four integer schemes of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quantwise.core.errors import InputError

LLAMACPP_CACHES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, slots=True)
class IntegerCache:
    """Integer codes of ``bits`` bits, two to a byte at 4 bit, with scales in float16.

    ``keys`` says what shares a scale. ``token``: the numbers of one token and head, for keys and for values, rounded as
    soon as they come. ``channel``: for keys, one channel of one head over ``group`` neighbouring tokens; values stay
    per token; and the last ``window`` tokens or more, up to the next whole group, stay in 16 bit (KIVI, Liu et al.
    2024). 8-bit codes are symmetric, with a scale alone; 4-bit codes have a scale and a minimum.
    """

    name: str
    bits: Literal[4, 8]
    keys: Literal["token", "channel"]
    group: int = 32
    window: int = 32

    @property
    def symmetric(self) -> bool:
        """Whether a scale stands alone, without a minimum."""
        return self.bits == 8

    @property
    def scale_bytes(self) -> int:
        """Bytes of what a group of codes shares: a float16 scale, and a float16 minimum at 4 bit."""
        return 2 if self.symmetric else 4

    def rounded(self, tokens: int) -> int:
        """How many of ``tokens`` tokens, the oldest ones, are kept as codes."""
        return tokens if self.keys == "token" else max(0, tokens - self.window) // self.group * self.group


TRANSFORMERS_CACHES: Mapping[str, IntegerCache | None] = {
    "f16": None,
    "int8-token": IntegerCache("int8-token", 8, "token"),
    "int4-token": IntegerCache("int4-token", 4, "token"),
    "int8-channel": IntegerCache("int8-channel", 8, "channel"),
    "int4-channel": IntegerCache("int4-channel", 4, "channel"),
}


def parse_cache(text: str, runtime: str) -> str:
    """The one name of a cache scheme of ``runtime``: lower case, and ``K/V`` only where keys and values differ.

    Raises InputError that lists what the runtime has.
    """
    name = text.strip().lower()
    if runtime == "llamacpp":
        keys, values = keys_and_values(name)
        if keys in LLAMACPP_CACHES and values in LLAMACPP_CACHES:
            return keys if keys == values else f"{keys}/{values}"
        allowed = f"{', '.join(LLAMACPP_CACHES)}, or K/V apart such as q8_0/q4_0"
    elif runtime == "transformers":
        if name in TRANSFORMERS_CACHES:
            return name
        allowed = f"{', '.join(TRANSFORMERS_CACHES)} (f16 is the model's own dtype)"
    elif name == "f16":
        return name
    else:
        raise InputError(f"{runtime} sets its own cache; leave out ,kv=")
    raise InputError(f"unknown cache scheme {text!r}; allowed: {allowed}, in {runtime}")


def keys_and_values(name: str) -> tuple[str, str]:
    """The types of keys and of values out of ``K/V``, or of one name for both."""
    keys, slash, values = name.partition("/")
    return keys, values if slash else keys
