"""What a runtime's own start-up log says of its memory: llama.cpp's at ``--log-verbosity 4``, and vLLM's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from quantwise.core.errors import InputError
from quantwise.plan.constants import GIB, MIB
from quantwise.plan.llamacpp.settings import LlamacppSettings

_MOST = 64 << 20
_BUFFER = re.compile(r"(\w+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_CONTEXT = re.compile(r"\bllama_\w+:\s+(n_seq_max|n_ctx|n_ctx_seq|n_ubatch|n_outputs_max)\s+=\s+(\d+)\b")
_MODEL = re.compile(r"(n_embd|n_vocab|n_layer)\s+=\s+(\d+)\b")
_TYPES = re.compile(r"K \((\w+)\):.*V \((\w+)\):")
_BUILD = re.compile(r"build(?:_info)?:\s+(\S[^\n]*)")
_BREAKDOWN = re.compile(r"-\s+(\S+)[^|:]*[|:]\s+(\d+) = (\d+) \+ \((\d+) =[^)]*\) \+\s+(-?\d+)")
_VLLM = {
    "weights": re.compile(r"(?:model weights take|Model loading took|Loading model weights took)\s+([\d.]+) ?Gi?B"),
    "outside": re.compile(r"non_torch_memory(?: takes)?\s+([\d.]+) ?GiB"),
    "activation": re.compile(r"PyTorch activation peak memory(?: takes)?\s+([\d.]+) ?GiB"),
    "available": re.compile(
        r"(?:Available KV cache memory:|available_kv_cache_memory|memory reserved for KV Cache is"
        r"|Explicitly set \(|Auto set \()\s*([\d.]+)(?: ?GiB|/[\d.]+\)+ GiB for KV cache)"
    ),
    "usable": re.compile(
        r"(?:gpu_memory_utilization \([\d.]+\) =|Desired GPU memory utilization is \([\d.]+,"
        r"|for KV cache on node \d+, with)\s+([\d.]+) ?GiB"
    ),
    "consumed": re.compile(r"([\d.]+) GiB memory was consumed by non-kv usages"),
}  # fmt: skip
_VLLM_COUNTS = {
    "blocks": re.compile(r"# (?:GPU|cuda|cpu) blocks: ([\d,]+)"),
    "tokens": re.compile(r"(?:GPU|CPU) KV cache size: ([\d,]+) tokens"),
    "batched_tokens": re.compile(r"max_num_batched_tokens[=:]\s?([\d,]+)"),
    "context": re.compile(r"Maximum concurrency for ([\d,]+) tokens per request"),
}
_VLLM_GIVEN = re.compile(r"'kv_cache_memory_bytes': (\d+)")
_VLLM_REQUESTS = re.compile(r"tokens per request: ([\d.]+)x")
_VLLM_VERSION = re.compile(
    r"vLLM (?:API server version|engine \(v|version)\s*:?\s*(\d[\w.+]*)|\(v(\d[\w.+]*)\) with config"
)


@dataclass(frozen=True, slots=True)
class LlamacppLog:
    """Bytes of ``buffers`` by (device, kind), as printed to a hundredth of a MiB; the last server of the log.

    ``unaccounted``: bytes by device that no buffer explains, where a breakdown was printed. ``numbers`` of the model
    and the context by llama.cpp's names. ``settings`` are those it ran with.
    """

    build: str
    buffers: Mapping[tuple[str, str], int]
    unaccounted: Mapping[str, int]
    numbers: Mapping[str, int]
    settings: LlamacppSettings

    def of(self, kind: str) -> int:
        """Bytes of a kind of buffer on all devices."""
        return sum(amount for (_, found), amount in self.buffers.items() if found == kind)


@dataclass(frozen=True, slots=True)
class VllmLog:
    """Bytes that vLLM printed, None where it did not, and its counts.

    ``available`` for the cache is exact where bytes were asked for, else as printed to a hundredth of a GiB.
    ``consumed``: what its worker took on a processor before that. ``requests`` of ``context`` tokens have room.
    """

    version: str
    weights: int | None
    outside: int | None
    activation: int | None
    available: int | None
    usable: int | None
    consumed: int | None
    blocks: int | None
    tokens: int | None
    batched_tokens: int | None
    context: int | None
    requests: float | None
    on_cpu: bool


def runtime_of_log(text: str) -> Literal["llamacpp", "vllm"] | None:
    """Whose log a text looks like; None where it has the words of neither."""
    if "buffer size" in text and "n_ctx" in text:
        return "llamacpp"
    return "vllm" if re.search(r"\bvllm\b|KV cache|model weights take|Model loading took", text, re.I) else None


def read_llamacpp_log(text: str) -> LlamacppLog:
    """Read a log. Raises InputError where it is none of llama.cpp, or tells too little."""
    _check(text)
    buffers: dict[tuple[str, str], int] = {}
    for device, kind, mib in _BUFFER.findall(text):
        buffers[device, kind] = buffers.get((device, kind), 0) + round(float(mib) * MIB)
    numbers = {name: int(value) for name, value in (*_MODEL.findall(text), *_CONTEXT.findall(text))}
    if not any(kind == "compute" for _, kind in buffers) or "n_ctx" not in numbers:
        raise InputError("this log names no compute buffer and context; start llama-server with --log-verbosity 4")
    found = _BUILD.search(text)
    return LlamacppLog(
        build=found[1].strip()[:80] if found else "",
        buffers=buffers,
        unaccounted={d: int(rest) * MIB for d, *_, rest in _BREAKDOWN.findall(text) if int(rest) >= 0},
        numbers=numbers,
        settings=_settings(text, numbers),
    )


def _settings(text: str, numbers: Mapping[str, int]) -> LlamacppSettings:
    slots = numbers.get("n_seq_max", 1)
    unified = bool(re.search(r"kv_unified\s+=\s+true", text))
    types = _TYPES.search(text)
    told = re.search(r"flash_attn\s+=\s+(\w+)", text)
    flash = told is None or told[1] in ("enabled", "1", "true")
    if told is not None and told[1] == "auto":
        flash = "Flash Attention enabled" in text or "set to enabled" in text
    return LlamacppSettings(
        context=max(1, numbers["n_ctx"] // slots),
        slots=slots,
        unified=unified,
        cache="/".join(dict.fromkeys(types.groups())) if types else "f16",
        flash_attention=flash,
        ubatch=numbers.get("n_ubatch", 512),
        whole_window="full-size SWA cache" in text,
    )


def read_vllm_log(text: str) -> VllmLog:
    """Read a log. Raises InputError where it does not say how much memory is left for the cache."""
    _check(text)
    sizes = {name: _last(pattern, text) for name, pattern in _VLLM.items()}
    counts = {name: _last(pattern, text) for name, pattern in _VLLM_COUNTS.items()}
    if sizes["available"] is None:
        raise InputError("this log does not say what memory vLLM leaves for its cache; give one of its start")
    found = _VLLM_VERSION.search(text)
    version = next((group for group in found.groups() if group), "") if found else ""
    of_gib = {name: None if value is None else round(value * GIB) for name, value in sizes.items()}
    whole = {name: None if value is None else int(value) for name, value in counts.items()}
    given = _last(_VLLM_GIVEN, text)
    if given is not None:
        of_gib["available"] = int(given)
    on_cpu = "CPU KV cache size" in text or sizes["consumed"] is not None
    return VllmLog(version=version, requests=_last(_VLLM_REQUESTS, text), on_cpu=on_cpu, **of_gib, **whole)


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _check(text: str) -> None:
    if len(text) > _MOST:
        raise InputError(f"this log has {len(text):,} characters; give its start only, {_MOST:,} at most")
