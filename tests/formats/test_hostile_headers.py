"""Headers that lie: one clear line, no large allocation, no hang, whatever stands in them."""

from __future__ import annotations

import functools
import json
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantwise.core.errors import InputError
from quantwise.formats.gguf.header import read_gguf_header
from quantwise.formats.gguf.header_end import gguf_header_end
from quantwise.formats.safetensors_header import read_folder, read_header

MOST_BYTES, MOST_SECONDS = 64 << 20, 5.0


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


NAME = key(b"general.architecture", 8, text(b"llama"))


def header(keys: list[bytes], tensors: list[bytes] = [], counts: tuple[int, int] | None = None) -> bytes:  # noqa: B006
    described, said = counts or (len(tensors), len(keys) + 1)
    return struct.pack("<4sIQQ", b"GGUF", 3, described, said) + NAME + b"".join(keys) + b"".join(tensors)


def tensor(name: bytes = b"a", dimensions: tuple[int, ...] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)


def array(inner: int, count: int, values: bytes = b"") -> bytes:
    return key(b"a", 9, struct.pack("<IQ", inner, count) + values)


MANY = 2**64 - 1
HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends within its header"),
    "magic alone": (b"GGUF", "ends within its header"),
    "another file": (b"PK\3\4" * 20, "begins otherwise"),
    "version": (struct.pack("<4sIQQ", b"GGUF", 9, 0, 0), "version 9 of the format"),
    "big end first": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big end first"),
    "many tensors": (header([], counts=(MANY, 1)), "claims 18446744073709551615 tensors"),
    "many keys": (header([], counts=(0, MANY)), "18446744073709551615 keys"),
    "keys beyond the end": (header([], counts=(0, 9)), "ends within its header"),
    "tensors beyond the end": (header([], counts=(9, 1)), "ends within its header"),
    "a long key": (header([struct.pack("<Q", MANY)], counts=(0, 2)), "is longer than any model has"),
    "a long text": (header([key(b"a", 8, struct.pack("<Q", 1 << 40))]), "is longer than any model has"),
    "a text beyond the end": (header([key(b"a", 8, struct.pack("<Q", 1 << 20))]), "ends within its header"),
    "a long array": (header([array(4, MANY)]), "is longer than any model has"),
    "an array beyond the end": (header([array(4, 1 << 20)]), "ends within its header"),
    "many texts": (header([array(8, MANY)]), "which no vocabulary has"),
    "texts beyond the end": (header([array(8, 1 << 21)]), "ends within its header"),
    "nested arrays": (header([array(9, 1, struct.pack("<IQ", 9, 1) * 1000)]), "arrays within arrays"),
    "an unknown type": (header([key(b"a", 77, b"")]), "value of unknown type 77"),
    "an unknown type in an array": (header([array(77, 3)]), "values of unknown type 77"),
    "a key twice": (header([key(b"a", 7, b"\1"), key(b"a", 7, b"\1")]), "key 'a' comes twice"),
    "a key without name": (header([key(b"", 7, b"\1")]), "a key has no name"),
    "no dimension": (header([], [tensor(dimensions=())]), "has 0 dimensions"),
    "many dimensions": (header([], [text(b"a") + struct.pack("<I", 2**32 - 1)]), "has 4294967295 dimensions"),
    "a product beyond 64 bits": (header([], [tensor(dimensions=(2**63, 2**63, 2**63))]), "has 118 bytes, the data"),
    "an unknown tensor type": (header([], [tensor(kind=999)]) + bytes(999), "unknown type 999"),
    "a withdrawn tensor type": (header([], [tensor(kind=4)]) + bytes(999), "unknown type 4"),
    "rows that do not split": (header([], [tensor(dimensions=(33,), kind=8)]) + bytes(999), "do not split into"),
    "data beyond the end": (header([], [tensor(offset=1 << 60)]) + bytes(999), "the data of tensor 'a' ends at"),
    "data cut off": (header([], [tensor()]) + bytes(99), "the data of tensor 'a' ends at"),
    "an odd offset": (header([], [tensor(offset=1)]) + bytes(999), "begins within that of another"),
    "overlapping data": (header([], [tensor(), tensor(b"b", offset=32)]) + bytes(999), "within that of another"),
    "a tensor twice": (header([], [tensor(), tensor(offset=256)]) + bytes(999), "two tensors have one name"),
    "alignment 0": (header([key(b"general.alignment", 4, bytes(4))], [tensor()]) + bytes(999), "alignment of 0 is"),
    "alignment 3": (header([key(b"general.alignment", 4, b"\3\0\0\0")], [tensor()]) + bytes(999), "alignment of 3"),
    "alignment text": (header([key(b"general.alignment", 8, text(b"x"))], [tensor()]) + bytes(999), "alignment of 'x'"),
    "no architecture": (struct.pack("<4sIQQ", b"GGUF", 3, 0, 0), "names no architecture"),
}  # fmt: skip


def refused(read: Callable[[Path], object], path: Path, words: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.perf_counter() - begin < MOST_SECONDS
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def peak_bytes(read: Callable[[Path], object], path: Path) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_gguf_headers(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.gguf"
    content, words = HOSTILE[case]
    path.write_bytes(content)
    refused(read_gguf_header, path, words)
    assert peak_bytes(read_gguf_header, path) < MOST_BYTES


def test_a_large_file_of_nothing_is_refused_as_fast(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    # Each claim is as large as is allowed; the zeros that follow are a key without a name.
    for claim in (array(8, 1 << 21), array(4, 1 << 26), key(b"a", 8, struct.pack("<Q", 1 << 24))):
        with path.open("wb") as stream:
            stream.write(header([claim], counts=(0, 1 << 14)))
            stream.truncate(4 << 30)
        refused(read_gguf_header, path, "a key has no name")
    # The last one keeps its text; tracing the first would take a minute.
    assert peak_bytes(read_gguf_header, path) < 2 * MOST_BYTES


def safetensors(value: object, data: bytes = b"") -> bytes:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(content)) + content + data


def entry(begin: object = 0, end: object = 4, shape: object = (1,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = json.dumps(entry()).encode()
HOSTILE_SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "a huge length": (struct.pack("<Q", MANY) + b"{}", "bad header length"),
    "a long length": (struct.pack("<Q", 1 << 26) + b"{}", "bad header length"),
    "nesting": (safetensors(b'{"a":' + b"[" * 300_000), "unreadable header"),
    "nested objects": (safetensors(b'{"a":' * 200_000), "unreadable header"),
    "many objects": (safetensors(b"[" + b"{}," * 300_000 + b"{}]"), "unreadable header"),
    "many numbers": (safetensors(b"[" + b"1," * 3_000_000 + b"1]"), "unreadable header"),
    "a long number": (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "unreadable header"),
    "not a number": (safetensors(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', b"four"), "inconsistent"),
    "a name twice": (safetensors(b'{"a":' + ONE + b',"a":' + ONE + b"}", b"four"), "unreadable header"),
    "overlap": (safetensors({"a": entry(), "b": entry()}, b"four"), "'b' overlaps another"),
    "a negative offset": (safetensors({"a": entry(-4, 0)}, b"four"), "'a' is inconsistent"),
    "a negative shape": (safetensors({"a": entry(shape=(-1, -1))}, b"four"), "'a' is inconsistent"),
    "a fraction": (safetensors({"a": entry(shape=(1.5,))}, b"four"), "'a' is inconsistent"),
    "a text": (safetensors({"a": entry(shape=("1",))}, b"four"), "'a' is inconsistent"),
    "a truth": (safetensors({"a": entry(shape=(True,))}, b"four"), "'a' is inconsistent"),
    "a product beyond 64 bits": (safetensors({"a": entry(shape=(2**61,) * 8)}, b"four"), "'a' is inconsistent"),
    "many dimensions": (safetensors({"a": entry(shape=(1,) * 100_000)}, b"four"), "'a' is inconsistent"),
    "beyond the end": (safetensors({"a": entry(0, 1 << 40, (1 << 38,))}, b"four"), "its header describes 1099511627"),
    "a list of types": (safetensors({"a": entry(dtype=["F32"])}, b"four"), "'a' is inconsistent"),
    "three offsets": (safetensors({"a": {**entry(), "data_offsets": [0, 4, 8]}}, b"four"), "'a' is inconsistent"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_SAFETENSORS)
def test_hostile_safetensors_headers(tmp_path: Path, case: str) -> None:
    path = tmp_path / "model.safetensors"
    content, words = HOSTILE_SAFETENSORS[case]
    path.write_bytes(content)
    refused(read_header, path, words)
    assert peak_bytes(read_header, path) < MOST_BYTES


@pytest.mark.parametrize(
    "content",
    [
        b'{"weight_map": {"a": "../../secret.safetensors"}}',
        b'{"weight_map": {"a": ["model.safetensors"]}}',
        b'{"weight_map": ["a"]}',
        b'{"weight_map":' * 200_000,
        b"[" * 300_000,
        b"\xff",
    ],
)
def test_hostile_indices(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    refused(read_folder, tmp_path, "is no readable index of shards")


def valid_gguf(path: Path) -> bytes:
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "block_count": 2,
        "embedding_length": 64,
        "context_length": 64,
        "attention.head_count": 4,
    }.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.add_array("llama.attention.head_count_kv", [2, 0])
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", "déf"])
    writer.add_string("tokenizer.chat_template", "{{ x }}")
    for name in ("token_embd.weight", "blk.0.ffn_down.weight", "blk.1.ffn_down.weight"):
        writer.add_tensor(name, np.zeros((4, 68), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def valid_safetensors(path: Path) -> bytes:
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(4)]
    path.write_bytes(safetensors({n: entry(64 * i, 64 * i + 64, [4, 4]) for i, n in enumerate(names)}, bytes(256)))
    return path.read_bytes()


NUMBERS = [0, 1, 2, 3, 4, 8, 9, 31, 255, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, MANY]
EDIT = st.one_of(
    st.tuples(st.just("byte"), st.floats(0, 1), st.integers(0, 255)),
    st.tuples(st.just("number"), st.floats(0, 1), st.sampled_from(NUMBERS)),
    st.tuples(st.just("short"), st.floats(0, 1), st.sampled_from([n for n in NUMBERS if n < 2**32])),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 40)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 200)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(max_size=24)),
)


def edited(data: bytes, edits: list[tuple[str, float, object]]) -> bytes:
    for kind, where, value in edits:
        at = int(where * len(data))
        if isinstance(value, bytes):
            data = data[:at] + value + data[at:]
            continue
        assert isinstance(value, int)
        if kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + value :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + value] * 2 + data[at + value :]
        else:
            new = {"byte": "<B", "number": "<Q", "short": "<I"}[kind]
            packed = struct.pack(new, value)
            data = data[:at] + packed + data[at + len(packed) :]
    return data


WRITERS = {"m.gguf": valid_gguf, "model.safetensors": valid_safetensors}
READERS: dict[str, Callable[[Path], object]] = {"m.gguf": read_gguf_header, "model.safetensors": read_header}


@functools.cache
def valid(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return WRITERS[name](Path(folder) / name)


def read_or_refuse(folder: Path, name: str, edits: list[tuple[str, float, object]]) -> None:
    """Whatever was changed, a reader gives an answer or one line. Anything else escapes."""
    path = folder / name
    broken = edited(valid(name), edits)
    path.write_bytes(broken)
    begin = time.perf_counter()
    for attempt in (lambda: READERS[name](path), lambda: gguf_header_end(broken)):
        said = ""
        try:
            attempt()
        except InputError as error:
            said = str(error)
        assert "\n" not in said
        assert len(said) < 600
    assert time.perf_counter() - begin < MOST_SECONDS


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=150)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_edited_headers_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[str, float, object]]
) -> None:
    read_or_refuse(tmp_path_factory.getbasetemp(), name, edits)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_thousand_edited_headers_in_little_memory(tmp_path: Path) -> None:
    code = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from hypothesis import HealthCheck, given, settings, strategies as st
import test_hostile_headers as t
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + t.MOST_BYTES * 4, -1))
count = 0
for name in t.READERS:
    t.valid(name)
@settings(max_examples=10000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(list(t.READERS)), edits=st.lists(t.EDIT, min_size=1, max_size=6))
def run(name, edits):
    global count
    count += 1
    t.read_or_refuse(Path({str(tmp_path)!r}), name, edits)
run()
run()
print(count)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 20_000
