"""A GGUF file in several parts is refused by whatever reads its header: its bytes and its hash would be one part's."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.question import pose
from quantwise.question.request import Request


def write_part(path: Path, parts: int | None) -> Path:
    """As llama-gguf-split writes them: the first part has all the keys."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    if parts is not None:
        writer.add_uint16("split.no", 0)
        writer.add_uint16("split.count", parts)
        writer.add_int32("split.tensors.count", 2)
    writer.add_tensor("token_embd.weight", np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_one_part_of_several_is_refused(tmp_path: Path) -> None:
    file = write_part(tmp_path / "m-00001-of-00002.gguf", 2)
    told = r"m-00001-of-00002\.gguf is one of 2 parts of a model.*llama-gguf-split --merge"
    with pytest.raises(InputError, match=told):
        read_gguf_header(file)
    whole = write_part(tmp_path / "m.gguf", None)
    with pytest.raises(InputError, match=told):
        pose.fits_here(Request(candidates=(str(file),), baseline=str(whole), context=32))


@pytest.mark.parametrize("parts", [None, 1])
def test_a_file_that_is_whole_is_read(tmp_path: Path, parts: int | None) -> None:
    assert [t.name for t in read_gguf_header(write_part(tmp_path / "m.gguf", parts)).tensors] == ["token_embd.weight"]
