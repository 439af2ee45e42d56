from __future__ import annotations

import pytest

from quantwise.core.cache_scheme import LLAMACPP_CACHES, TRANSFORMERS_CACHES, keys_and_values, parse_cache
from quantwise.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "runtime", "name"),
    [
        ("Q8_0", "llamacpp", "q8_0"),
        ("q8_0/q4_0", "llamacpp", "q8_0/q4_0"),
        ("q4_0/q4_0", "llamacpp", "q4_0"),
        ("f16/iq4_nl", "llamacpp", "f16/iq4_nl"),
        ("INT4-token", "transformers", "int4-token"),
        ("f16", "transformers", "f16"),
        ("f16", "openai", "f16"),
    ],
)
def test_a_cache_has_one_name(text: str, runtime: str, name: str) -> None:
    assert parse_cache(text, runtime) == name
    assert parse_cache(name, runtime) == name


@pytest.mark.parametrize("name", TRANSFORMERS_CACHES)
def test_the_list_of_transformers_is_keyed_by_name(name: str) -> None:
    scheme = TRANSFORMERS_CACHES[name]
    assert name == (scheme.name if scheme else "f16")
    assert parse_cache(name, "transformers") == name


@pytest.mark.parametrize(
    ("text", "runtime", "complaint"),
    [
        ("q9", "llamacpp", r"unknown cache scheme 'q9'; allowed: f32, f16, .*, or K/V apart such as q8_0/q4_0"),
        ("q8_0/", "llamacpp", "unknown cache scheme"),
        ("q8_0/q4_0/q4_0", "llamacpp", "unknown cache scheme"),
        ("int4-token", "llamacpp", "unknown cache scheme 'int4-token'; allowed: f32"),
        ("int4", "transformers", "unknown cache scheme 'int4'; allowed: f16, int8-token, int4-token, int8-channel"),
        ("int8-token/f16", "transformers", "unknown cache scheme"),
        ("", "transformers", "unknown cache scheme ''"),
        ("q8_0", "openai", "openai sets its own cache; leave out ,kv="),
    ],
)
def test_what_a_runtime_has_is_listed(text: str, runtime: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse_cache(text, runtime)
    assert "\n" not in str(caught.value)


def test_keys_come_first() -> None:
    assert keys_and_values("q8_0/q4_0") == ("q8_0", "q4_0")
    assert keys_and_values("f16") == ("f16", "f16")
    assert set(LLAMACPP_CACHES) >= {"q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f16"}


def test_how_many_tokens_are_codes() -> None:
    by_token, by_channel = TRANSFORMERS_CACHES["int8-token"], TRANSFORMERS_CACHES["int4-channel"]
    assert by_token is not None
    assert by_channel is not None
    assert [by_token.rounded(n) for n in (0, 1, 77)] == [0, 1, 77]
    # The newest 32 to 63 tokens stay as they came.
    assert [by_channel.rounded(n) for n in (0, 63, 64, 95, 96, 1000)] == [0, 0, 32, 32, 64, 960]
