"""Every family of methods by its name in ``decide``: built, loaded, measured, judged; what cannot work is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantwise.models import reference

QUICK = ["awq+rtn:int4-g64", "smoothquant+rtn:w8a8", "nf4@transformers", "gptq:q4_0@llamacpp,kv=q8_0"]
LONG = [
    "awq+rtn:int4-g64", "smoothquant+rtn:w8a8", "nf4@transformers", "gptq:q4_k_m@llamacpp,kv=q8_0",
    "imatrix:int3-g64", "gptq+propagate:int4-g128", "w8a8-static", "w4a8", "fp8", "fp8-static", "fp8-weights",
    "nf4-dq", "llm-int8", "gptq:int4-g128,layout=gptq", "awq+rtn:int4-g64-asym,layout=awq", "imatrix:q2_k",
    "awq+imatrix:q4_0", "q6_k", "rtn:int8-channel,kv=int8-token", "gptq:layerwise-int3-g128", "layerwise-w4a8",
]  # fmt: skip


def judged(record: dict[str, Any]) -> dict[str, str]:
    """What became of each candidate: its verdict, or why it was ruled out."""
    ruled = {r["candidate"]: r["why"] for r in record["decision"]["ruled_out"]}
    return {v["candidate"]: v["verdict"] for v in record["verdicts"]} | {
        name: why for name, why in ruled.items() if "load" in why or "fit" in why or "build" in why
    }


def ask(here: Callable[..., Any], model: Path, tasks: object, candidates: list[str], *more: object) -> dict[str, Any]:
    asked: list[object] = ["decide", model, "--tasks", tasks, "--margin", f"{Path(str(tasks)).stem}=60%", "--json"]
    for candidate in candidates:
        asked += ["--candidate", candidate]
    ended = here(*asked, *more)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = ended.record
    return found


def test_one_of_each_family(here: Callable[..., Any], model: Path, own_words: Path) -> None:
    pytest.importorskip("bitsandbytes")
    record = ask(here, model, own_words, QUICK, "--items", 32, "--context", 64)
    found = judged(record)
    assert len(found) == 4, found
    assert set(found.values()) <= {"PASS", "UNKNOWN"}, found
    assert record["decision"]["status"] in ("ship", "keep", "unknown")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_every_family_on_the_reference_model(here: Callable[..., Any]) -> None:
    pytest.importorskip("bitsandbytes")
    record = ask(here, reference.path(), "recall", LONG, "--items", 32, "--context", 256)
    found = judged(record)
    assert len(found) == len(LONG), found
    assert set(found.values()) <= {"PASS", "UNKNOWN", "FAIL"}, found


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose rows of 64 and 96 split into no group of 128."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("narrow")
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 32, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256)
    LlamaForCausalLM(config).save_pretrained(folder)
    Tokenizer(models.BPE()).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("candidate", "complaint"),
    [
        ("nf4@llamacpp", "nf4 runs in transformers, not in 'llamacpp'; write nf4@transformers"),
        ("rtn:int3-g64@vllm", "takes 4 bits, not 3"),
        ("gptq:int4-g64@vllm", "vLLM is not installed"),
        ("w4a8", "rtn:w4a8 would change nothing"),
        ("auto:4.5bpw@transformers", "auto:4.5bpw runs in llamacpp"),
        ("16bit,kv=q8_0", "unknown cache scheme 'q8_0'; allowed: f16, int8-token"),
        ("gptq:int4-g64,layout=awq@llamacpp", "runs in transformers or vllm"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_built(
    here: Callable[..., Any],
    narrow: Path,
    tmp_path: Path,
    candidate: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("QUANTWISE_VLLM_PYTHON", raising=False)
    ended = here("decide", narrow, "--candidate", candidate, "--tasks", "recall", "--items", 32)
    assert ended.code in (1, 2)
    assert complaint in ended.complaint
    assert not (tmp_path / "runs").exists()
