"""safetensors headers: read without torch, and every kind of damage named with its file."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from quantwise.core.errors import InputError
from quantwise.formats.safetensors_header import read_folder, read_header


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, np.float16)}, path)
    return path


def test_names_shapes_types_and_bytes(file: Path) -> None:
    entries = read_header(file)
    assert {e.name: (e.dtype, e.shape, e.bytes) for e in entries.values()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("F16", (5,), 10),
    }
    data = file.read_bytes()[entries["a"].offset :][:24]
    assert np.frombuffer(data, np.float32).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_truncation_anywhere_is_found(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"model\.safetensors.*again") as caught:
        read_header(file)
    assert "\n" not in str(caught.value)


def header(path: Path, content: object, data: bytes = b"") -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe{{",
        [],
        {"t": 3},
        {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"t": {"dtype": "WHAT", "shape": [1], "data_offsets": [0, 4]}},
        {"t": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}},
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match="bad"):
        read_header(header(tmp_path / "bad.safetensors", content, b"\0" * 4))


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({name: np.zeros(2, np.float32)}, tmp_path / f"{name}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"b": "b.safetensors", "a": "a.safetensors"}}))
    assert set(read_folder(tmp_path)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "c": "a.safetensors"}}))
    with pytest.raises(InputError, match="'c'"):
        read_folder(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(InputError, match="gone"):
        read_folder(tmp_path)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no"):
        read_folder(tmp_path)


def test_no_torch_is_loaded() -> None:
    code = "import sys, quantwise.formats.safetensors_header; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
