"""Files that others made: every ggml type is planned from its header to the byte, and what is not known is said."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.plan.candidate_fit import Workload, plan_candidate
from quantwise.question.propose import parse

TYPES = [kind for kind in gguf.GGMLQuantizationType if kind.name not in ("I8", "I16", "I32", "I64")]

ROWS = {
    "token_embd": 32, "output": 32, "blk.0.attn_q": 256, "blk.0.attn_k": 128, "blk.0.attn_v": 128,
    "blk.0.attn_output": 256, "blk.0.ffn_gate": 256, "blk.0.ffn_up": 256, "blk.0.ffn_down": 256,
}  # fmt: skip


def write(path: Path, kind: gguf.GGMLQuantizationType) -> int:
    """A Llama of one block whose matrices are of one type, filled with zeros; returns the bytes of its data."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {"embedding_length": 256, "feed_forward_length": 256, "block_count": 1, "context_length": 64,
                       "attention.head_count": 4, "attention.head_count_kv": 2}.items():  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = 0
    for name, rows in ROWS.items():
        raw = np.zeros((rows, 256 // block * size), np.uint8)
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind)
        stored += raw.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_every_type_is_planned_to_the_byte(tmp_path: Path, kind: gguf.GGMLQuantizationType) -> None:
    stored = write(tmp_path / "m.gguf", kind)
    header = read_gguf_header(tmp_path / "m.gguf")
    assert {tensor.type for tensor in header.tensors} == {kind.name.lower()}
    fit = plan_candidate(parse(f"{tmp_path / 'm.gguf'},kv=q8_0"), None, Workload(64))
    assert fit.weights_bytes == stored
    # Keys and values of two heads of 64 in q8_0: 34 bytes for 32 numbers.
    assert fit.cache_bytes is not None
    assert fit.cache_bytes % (2 * 2 * 64 * 34 // 32) == 0
    assert fit.fits == "yes"


def test_a_type_of_the_future_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write(path, gguf.GGMLQuantizationType.IQ4_XS)
    data = path.read_bytes()
    at = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 2 * 8
    assert struct.unpack_from("<I", data, at)[0] == gguf.GGMLQuantizationType.IQ4_XS
    path.write_bytes(data[:at] + struct.pack("<I", 999) + data[at + 4 :])
    with pytest.raises(InputError, match="999") as caught:
        plan_candidate(parse(str(path)), None, Workload(64))
    assert "\n" not in str(caught.value)
