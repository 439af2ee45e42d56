"""Candidates as a person writes them: every form, every slip."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from quantwise.core.artifact import Candidate
from quantwise.core.errors import InputError
from quantwise.question.propose import DEFAULT, parse, with_baselines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16bit", Candidate("16bit", "transformers")),
        ("16bit@llamacpp", Candidate("16bit", "llamacpp")),
        ("rtn:int8-channel", Candidate("rtn:int8-channel", "transformers")),
        ("gptq:int4-g64@transformers", Candidate("gptq:int4-g64", "transformers")),
        ("int4-g64", Candidate("int4-g64", "transformers")),
        ("int3-g64", Candidate("int3-g64", "transformers", computes_as_stored=False)),
        ("fp8", Candidate("fp8", "transformers", computes_as_stored=False)),
        ("q4_0", Candidate("q4_0", "llamacpp")),
        ("rtn:q8_0@llamacpp,kv=q8_0", Candidate("rtn:q8_0", "llamacpp", "q8_0")),
        ("q8_0,kv=q4_0", Candidate("q8_0", "llamacpp", "q4_0")),
        ("16bit@llamacpp,kv=q8_0/q4_0", Candidate("16bit", "llamacpp", "q8_0/q4_0")),
        ("q8_0,kv=IQ4_NL/iq4_nl", Candidate("q8_0", "llamacpp", "iq4_nl")),
        ("16bit,kv=int8-token", Candidate("16bit", "transformers", "int8-token", computes_as_stored=False)),
        (
            "int4-g64@transformers,kv=int4-channel",
            Candidate("int4-g64", "transformers", "int4-channel", computes_as_stored=False),
        ),
        ("w4a8@vllm", Candidate("w4a8", "vllm")),
        ("gptq:int4-g64,layout=gptq@vllm", Candidate("gptq:int4-g64,layout=gptq", "vllm")),
        (
            "awq+rtn:int4-g128,layout=awq",
            Candidate("awq+rtn:int4-g128,layout=awq", "transformers"),
        ),
        ("nf4@transformers", Candidate("nf4", "transformers")),
        ("smoothquant+rtn:w8a8", Candidate("smoothquant+rtn:w8a8", "transformers")),
        ("gptq:q4_k_m@llamacpp,kv=q8_0", Candidate("gptq:q4_k_m", "llamacpp", "q8_0")),
        ("auto:4.5bpw", Candidate("auto:4.5bpw", "llamacpp")),
        ("http://127.0.0.1:8080", Candidate("http://127.0.0.1:8080", "openai")),
        ("https://me@host/v1#model", Candidate("https://me@host/v1#model", "openai")),
    ],
)
def test_recipes_and_urls(text: str, expected: Candidate) -> None:
    assert parse(text) == expected
    assert parse(parse(text).name if expected.runtime != "openai" else text) == expected


def test_files_and_folders(tmp_path: Path) -> None:
    gguf = tmp_path / "my@model.gguf"
    gguf.write_bytes(b"GGUF")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    assert parse(str(gguf)) == Candidate(str(gguf), "llamacpp")
    assert parse(f"{gguf}@llamacpp,kv=q8_0") == Candidate(str(gguf), "llamacpp", "q8_0")
    assert parse(str(folder), baseline=True) == Candidate(str(folder), "transformers", baseline=True)
    assert parse(str(folder)).shippable
    assert not parse(str(small)).computes_as_stored
    cached = parse(f"{folder},kv=int8-channel")
    assert (cached.cache, cached.computes_as_stored, cached.shippable) == ("int8-channel", False, False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://host:1,kv=q8_0", "a server sets its own cache"),
        ("q8_0,kv=int8-token", "unknown cache scheme 'int8-token'; allowed: f32, f16"),
        ("q8_0,kv=q8_0/q9_0", "unknown cache scheme 'q8_0/q9_0'; allowed: f32, f16"),
        ("16bit,kv=q8_0", "unknown cache scheme 'q8_0'; allowed: f16, int8-token, int4-token"),
        ("16bit,kv=", "unknown cache scheme ''"),
        ("nowhere/model.gguf", "no such file"),
        ("model.gguf", "no such file"),
        ("./folder", "no such file or folder"),
        ("models/llama", "no such file or folder"),
        ("int5-g64", "unknown recipe 'int5-g64'"),
        ("rtn:int5-g64", "no such integer scheme"),
        ("q8_0@transformers", "q8_0 runs in llamacpp, not in 'transformers'; write q8_0@llamacpp"),
        ("int4-g64@llamacpp", "int4-g64 runs in transformers or vllm, not in 'llamacpp'; write int4-g64@transformers"),
        ("nf4@llamacpp", "nf4 runs in transformers, not in 'llamacpp'"),
        ("nf4@vllm", "nf4 runs in transformers, not in 'vllm'"),
        ("q4_k_m@vllm", "q4_k_m runs in llamacpp, not in 'vllm'"),
        ("w8a8@vllm,kv=q8_0", "vllm sets its own cache"),
        ("16bit@openai", "16bit runs in transformers or vllm or llamacpp"),
        ("@llamacpp", "names no candidate"),
        ("smooth:int4-g64", "unknown quantizer 'smooth'; allowed: rtn, imatrix, gptq"),
        ("gptq:nf4", "gptq cannot fill 'nf4'; use rtn:nf4"),
        ("rtn:16bit", "rtn cannot fill '16bit'; use 16bit alone"),
        ("q5_2", "unknown recipe 'q5_2'"),
        ("", "'' names no candidate"),
        ("nas:8080", "nas:8080: a server's URL begins with its scheme; write http://nas:8080"),
        ("192.168.1.5:11434/v1#m", "write http://192.168.1.5:11434/v1#m"),
        ("localhost:80", "write http://localhost:80"),
        ("[::1]:8080", r"write http://\[::1\]:8080"),
        ("C:12", "unknown quantizer 'c'"),
        ("rtn:44", "unknown scheme '44'"),
        ("AUTO:4096", "unknown budget '4096'"),
        ("model.gguf:8080", "model.gguf:8080: no such file or folder"),
    ],
)
def test_every_slip_is_named_with_what_is_allowed(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint.replace("(", r"\(")) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "complaint"),
    [
        (
            "hqq",
            "quantized by 'hqq', which is not loaded here (compressed-tensors, gptq, awq, bitsandbytes are); serve",
        ),
        (None, "quantized by 'None'"),
    ],
)
def test_a_folder_that_nobody_here_reads_is_refused(tmp_path: Path, method: str | None, complaint: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(InputError, match=re.escape(complaint)):
        parse(str(tmp_path))


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", "bitsandbytes"])
def test_a_brought_folder_goes_where_its_format_is_loaded(tmp_path: Path, method: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    found = parse(str(tmp_path))
    # Of the others nobody says how many bits they have, so whether a kernel takes them is not known.
    assert (found.runtime, found.computes_as_stored) == ("transformers", method == "bitsandbytes")
    with pytest.raises(InputError, match=f"llamacpp loads gguf, not {method}, which runs in transformers"):
        parse(f"{tmp_path}@llamacpp")
    if method != "bitsandbytes":
        assert parse(f"{tmp_path}@vllm").computes_as_stored


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("x")
    with pytest.raises(InputError, match=r"neither a \.gguf file nor a folder"):
        parse(str(other))


def test_baselines_are_the_one_given_or_16_bit_in_each_runtime_that_is_used() -> None:
    q8, int4, url = parse("q8_0"), parse("int4-g64"), parse("http://host:1")
    assert with_baselines([q8, int4], None) == (
        Candidate("16bit", "llamacpp", baseline=True),
        Candidate("16bit", "transformers", baseline=True),
        q8,
        int4,
    )
    base = parse("http://host:2", baseline=True)
    assert with_baselines([q8, url], base) == (base, q8, url)
    with pytest.raises(InputError, match="name one with --baseline"):
        with_baselines([url], None)


def test_the_list_of_the_first_run_can_be_read_back_and_holds_one_control() -> None:
    for candidate in DEFAULT:
        read = parse(candidate.name, baseline=candidate.baseline)
        assert (read.source, read.runtime, read.computes_as_stored) == (
            candidate.source,
            candidate.runtime,
            candidate.computes_as_stored,
        )
    assert [c.source for c in DEFAULT if c.control] == ["rtn:int4-tensor"]
    assert {c.runtime for c in DEFAULT if c.baseline} == {c.runtime for c in DEFAULT}
    assert sum(c.shippable for c in DEFAULT) == 5
