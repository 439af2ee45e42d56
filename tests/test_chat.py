"""Chat templates: rendered as Transformers renders them, sandboxed, the same tomorrow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantwise.chat import ChatTemplate
from quantwise.core.errors import InputError
from quantwise.core.item import Message

TURNS = (
    Message("system", "Be brief."),
    Message("user", 'Say "ü" {{ x }}'),
    Message("assistant", "ü"),
    Message("user", "Again"),
)

# Between them: white space control, special tokens, loop controls, tojson, slices, strftime_now, the generation tag.
TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    """{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '[SYS]' + system + '[/SYS]' }}
{%- for message in messages %}
    {%- if loop.index0 > 5 %}{% break %}{% endif %}
    {{- message | tojson }}
    {%- if message.role == 'assistant' %}{% generation %}{{ message.content }}{% endgeneration %}{% endif %}
{%- endfor %}
{%- if not tools is defined or tools is none %}
no tools
{%- endif %}
""",
]


@pytest.mark.parametrize("source", TEMPLATES)
@pytest.mark.parametrize("prompted", [True, False])
def test_it_renders_as_transformers_does(source: str, prompted: bool) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    turns = [{"role": m.role, "content": m.content} for m in TURNS]
    expected = theirs.apply_chat_template(turns, chat_template=source, tokenize=False, add_generation_prompt=prompted)
    ours = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    assert ours.render(TURNS, add_generation_prompt=prompted) == expected


def test_today_never_changes() -> None:
    assert ChatTemplate("{{ strftime_now('%d %b %Y') }}").render(TURNS) == "26 Jul 2024"


def test_a_template_may_refuse_and_may_not_escape() -> None:
    with pytest.raises(InputError, match=r"refuses the messages \(system, user, assistant, user\): no system turn"):
        ChatTemplate("{{ raise_exception('no system turn') }}").render(TURNS)
    with pytest.raises(InputError, match="refuses"):
        ChatTemplate("{{ messages.__class__.__mro__[1].__subclasses__() }}").render(TURNS)
    with pytest.raises(InputError, match="refuses"):
        ChatTemplate("{{ messages.append(1) }}").render(TURNS)
    with pytest.raises(InputError, match="refuses"):
        ChatTemplate("{{ 'a' + 1 }}").render(TURNS)
    with pytest.raises(InputError, match="does not compile"):
        ChatTemplate("{% for %}")


def test_the_hash_follows_everything_that_shapes_the_text() -> None:
    base = ChatTemplate("a", {"bos_token": "<s>"})
    assert base.hash == ChatTemplate("a", {"bos_token": "<s>", "eos_token": ""}).hash
    assert (
        len({base.hash, ChatTemplate("b", {"bos_token": "<s>"}).hash, ChatTemplate("a", {"bos_token": "<b>"}).hash})
        == 3
    )


def test_folders_and_gguf_headers_tell_the_same(tmp_path: Path) -> None:
    assert ChatTemplate.from_folder(tmp_path) is None
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ bos_token }}{{ eos_token }}!"},
    ]
    config = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    folder = ChatTemplate.from_folder(tmp_path)
    metadata = {
        "tokenizer.chat_template": "{{ bos_token }}{{ eos_token }}!",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    header = ChatTemplate.from_gguf(metadata)
    assert folder is not None
    assert header is not None
    assert folder.render(TURNS) == header.render(TURNS) == "<s></s>!"
    assert folder.hash == header.hash
    assert ChatTemplate.from_gguf({}) is None

    (tmp_path / "chat_template.jinja").write_text("file first")
    assert ChatTemplate.from_folder(tmp_path).render(TURNS) == "file first"  # type: ignore[union-attr]
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer_config\.json is not JSON"):
        ChatTemplate.from_folder(tmp_path)


# As Qwen3 has it: thinking that is not wanted stands in the prompt, begun and ended.
HYBRID = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)


def test_what_a_template_is_told_is_in_every_rendering_and_in_the_hash() -> None:
    plain = ChatTemplate(HYBRID, {"bos_token": "<s>"})
    quick = plain.told({"enable_thinking": False})
    assert quick.render(TURNS[:1]) == plain.render(TURNS[:1]) + "<think></think>"
    assert plain.told({"enable_thinking": True}).render(TURNS) == plain.render(TURNS)
    assert len({plain.hash, quick.hash, plain.told({"enable_thinking": True}).hash}) == 3
    assert plain.told({}).hash == plain.hash
    assert (quick.tokens, quick.today) == (plain.tokens, plain.today)


@pytest.mark.parametrize(
    "source", [HYBRID, "{% if enable_thinking is not defined %}{% set enable_thinking = 1 %}{% endif %}"]
)
def test_an_argument_that_a_template_never_reads_is_refused(source: str) -> None:
    told = {"enable_thinking": False}
    assert ChatTemplate(source).told(told).arguments == told
    with pytest.raises(InputError, match=r"reads no argument 'thinking'; leave it out; it reads: enable_thinking$"):
        ChatTemplate(source).told(told | {"thinking": True})
    with pytest.raises(InputError, match="it reads: none"):
        ChatTemplate("{{ messages }}").told(told)
