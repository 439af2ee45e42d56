"""A Hugging Face ``tokenizer.json`` as the ``tokenizer.ggml.*`` keys of a GGUF file.

Three families are written: byte-level BPE (``gpt2`` in llama.cpp), where the splitting rule has to be one that
llama.cpp knows by name; SentencePiece-like BPE with a visible space and byte fallback (``llama`` in llama.cpp), where
merges become scores; and the same without merges or bytes, one token for each character (``t5``, a unigram model, which
unlike ``llama`` has an unknown token).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer

from quantwise.core.artifact import Degradation
from quantwise.core.errors import InputError

# Splitting expressions of byte-level tokenizers and llama.cpp's names for them (src/llama-vocab.cpp).
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE, _SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_CASED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    _WORDS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _WORDS + r"\p{N}" + _REST: "qwen2",
    f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|" + r"\p{N}" + _CASED: "tekken",
    f"{_BEFORE}{_UPPER}*{_LOWER}+{_SHORT}|{_BEFORE}{_UPPER}+{_LOWER}*{_SHORT}|" + r"\p{N}{1,3}" + _CASED: "gpt-4o",
}
_SPACE = "\u2581"
# llama.cpp tells capitals from small letters in ASCII only.
_BY_CASE = ("tekken", "gpt-4o")


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """What llama.cpp needs to tokenize as Transformers does. ``pre`` is the name of the splitting rule;
    ``space_before`` tells whether a text is read as if a space came first, outside byte-level tokenizers.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float]
    merges: list[str]
    add_bos: bool
    add_eos: bool
    special: dict[str, int]
    chat_template: str | None
    degradations: tuple[Degradation, ...] = ()
    space_before: bool = True

    def add_to(self, writer: gguf.GGUFWriter) -> None:
        """Write the keys."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == "gpt2":
            writer.add_token_merges(self.merges)
        else:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.space_before)
        for kind, token in self.special.items():
            getattr(writer, f"add_{kind}_token_id")(token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def read_tokenizer(folder: Path, config: dict[str, Any]) -> GgufTokenizer:
    """Translate a folder's tokenizer. Raises InputError where llama.cpp has no equal of it."""
    file = folder / "tokenizer.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(file))
        settings = _json(folder / "tokenizer_config.json")
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{file} is missing or unreadable; GGUF needs a tokenizer.json ({error})") from error
    if data["model"].get("type") != "BPE":
        raise InputError(f"{file} is a {data['model'].get('type')} tokenizer; GGUF is written for BPE tokenizers only")
    tokens, types = _tokens(data, int(config["vocab_size"]), file)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    pre, degradations = _splitting(data, file)
    model = "gpt2" if pre != "default" else "llama" if data["model"].get("byte_fallback") else "t5"
    scores = _scores(data, tokens, types, file) if model != "gpt2" else []
    special = _special(tokenizer, settings, config, _json(folder / "generation_config.json"))
    add_bos, add_eos = _added(tokenizer, special, file)
    return GgufTokenizer(
        model, pre, tokens, types, scores, merges,
        add_bos=add_bos,
        add_eos=add_eos,
        special=special,
        chat_template=_chat_template(folder, settings),
        degradations=degradations,
        space_before=_space_before(data),
    )  # fmt: skip


def _space_before(data: dict[str, Any]) -> bool:
    """Whether a part of the tokenizer puts a space before the text."""
    parts = [*_steps(data.get("normalizer"), "normalizers"), *_steps(data.get("pre_tokenizer"), "pretokenizers")]
    return any(
        part["type"] == "Prepend" or (part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "never")
        for part in parts
    )


def _added(tokenizer: Tokenizer, special: dict[str, int], file: Path) -> tuple[bool, bool]:
    """Whether encoding adds a beginning and an end token, as observed on a text."""
    bare, full = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    for add_bos in (False, True):
        for add_eos in (False, True):
            ends = [special.get("bos")] * add_bos, [special.get("eos")] * add_eos
            if full == [*ends[0], *bare, *ends[1]]:
                return add_bos, add_eos
    raise InputError(
        f"{file} adds other tokens than bos and eos around a text, which llama.cpp lacks; use transformers"
    )


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _tokens(data: dict[str, Any], size: int, file: Path) -> tuple[list[str], list[int]]:
    """Texts and types of all ids up to the embedding's rows; ids that the tokenizer does not use are marked unused."""
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [int(gguf.TokenType.UNUSED)] * size
    unknown = data["model"].get("unk_token")
    for text, i in data["model"]["vocab"].items():
        if i >= size:
            raise InputError(f"{file} has token {i}, but the model has {size} embeddings; check the folder")
        byte = data["model"].get("byte_fallback") and len(text) == 6 and text.startswith("<0x")
        tokens[i] = text
        types[i] = int(gguf.TokenType.BYTE if byte else gguf.TokenType.NORMAL)
    for added in data.get("added_tokens", []):
        if added["id"] >= size:
            raise InputError(f"{file} adds token {added['id']}, but the model has {size} embeddings; check the folder")
        tokens[added["id"]] = added["content"]
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        types[added["id"]] = int(gguf.TokenType.UNKNOWN if added["content"] == unknown else kind)
    return tokens, types


def _steps(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part[inner]) if part["type"] == "Sequence" else [part]


def _splitting(data: dict[str, Any], file: Path) -> tuple[str, tuple[Degradation, ...]]:
    """llama.cpp's name for the pre-tokenizer; ``default`` stands for the SentencePiece family."""
    normalizers = _steps(data.get("normalizer"), "normalizers")
    splitters = _steps(data.get("pre_tokenizer"), "pretokenizers")
    names = [part["type"] for part in splitters]
    steps = [part["type"] for part in normalizers]
    # Gemma replaces spaces and puts none before; what it then splits at are the spaces that are gone.
    bare = steps == ["Replace"] and normalizers[0]["content"] == _SPACE and names in ([], ["Split"])
    if names == ["Metaspace"] or steps == ["Prepend", "Replace"] or bare:
        if data["model"].get("byte_fallback"):
            doubled = names == ["Metaspace"] and _space_before(data)
            what = "llama.cpp puts a space before a text that begins with one, Transformers does not"
            return "default", (Degradation("tokenizer", what),) if doubled else ()
        if data["model"]["merges"]:
            raise InputError(
                f"{file} has merges but no byte fallback, which llama.cpp lacks; use the transformers runtime"
            )
        what = (
            "llama.cpp reads a run of characters outside the vocabulary as one unknown token, Transformers as several"
        )
        return "default", (Degradation("tokenizer", what),)
    retreats: tuple[Degradation, ...] = ()
    if steps == ["NFC"]:
        retreats = (Degradation("tokenizer", "llama.cpp does not normalise text to NFC before it tokenizes"),)
    elif normalizers:
        raise InputError(f"{file} normalises text in a way llama.cpp has no equal of; use the transformers runtime")
    pre = _byte_level_name(splitters)
    if pre is None:
        known = ", ".join(["gpt-2", "smollm", *_SPLITS.values()])
        raise InputError(f"{file} splits words in a way not known here (known: {known}); use the transformers runtime")
    if pre in _BY_CASE:
        what = "llama.cpp splits words at capitals of ASCII only, Transformers at all capitals"
        retreats = (*retreats, Degradation("tokenizer", what))
    return pre, retreats


def _byte_level_name(splitters: list[dict[str, Any]]) -> str | None:
    if not splitters or splitters[-1]["type"] != "ByteLevel" or splitters[-1].get("add_prefix_space"):
        return None
    own_words = bool(splitters[-1].get("use_regex", True))
    match splitters[:-1]:
        case [] if own_words:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}] if own_words:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": expression}}] if not own_words:
            return _SPLITS.get(expression)
    return None


def _scores(data: dict[str, Any], tokens: list[str], types: list[int], file: Path) -> list[float]:
    """SentencePiece joins the pair whose result scores highest: the earlier a merge, the higher its result's score."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(data["model"]["merges"]):
        rank.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), i)
    normal = int(gguf.TokenType.NORMAL)
    orphans = [t for t, kind in zip(tokens, types, strict=True) if kind == normal and len(t) > 1 and t not in rank]
    if orphans:
        raise InputError(
            f"{file} has token {orphans[0]!r} that no merge produces; llama.cpp would produce it: "
            "use the transformers runtime"
        )
    return [-float(rank[text]) if text in rank else -1e6 for text in tokens]


def _special(
    tokenizer: Tokenizer, settings: dict[str, Any], config: dict[str, Any], generation: dict[str, Any]
) -> dict[str, int]:
    """Ids by GGUF's names (bos, eos, eot, unk, pad), from the tokenizer's settings, else the model's config."""
    found: dict[str, int] = {}
    for kind in ("bos", "eos", "unk", "pad"):
        text = settings.get(f"{kind}_token")
        text = text.get("content") if isinstance(text, dict) else text
        token = tokenizer.token_to_id(text) if text else None
        if token is None:
            listed = config.get(f"{kind}_token_id")
            token = listed[0] if isinstance(listed, list) else listed
        if token is not None:
            found[kind] = int(token)
    ends = [end for source in (config, generation) for end in _as_list(source.get("eos_token_id"))]
    others = [end for end in ends if end != found.get("eos")]
    if others:
        found["eot"] = int(others[0])
    return found


def _as_list(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template if isinstance(template, str) else None
