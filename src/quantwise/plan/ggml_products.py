"""Matrix products as llama.cpp computes them, timed: ggml's own kernels in the library of an installed llama.cpp.

Called by C names (ggml/include/ggml.h, ggml-backend.h, ggml-cpu.h, 2026). Weights go into ggml's repacked layout where
llama.cpp would put them there (``CPU_REPACK`` in its log). Structures of other versions may differ and then crash, so
this is only run in a process of its own (``probe.py``).
"""

from __future__ import annotations

import ctypes as c
import mmap
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from quantwise.core.errors import EnvironmentFailure
from quantwise.grids.ggml_blocks import GgmlBlocks
from quantwise.grids.ggml_library import library

POINTER = _P = c.c_void_p
_F32 = 0
HEADERS = 1 << 24  # bytes for the descriptions of tensors and graphs, not for their data
_DRAWN = 32  # rows that are drawn and encoded; all others repeat them
_TRY_SECONDS = 0.012  # three ticks of a clock of 250 Hz, each of which costs what runs some 50 to 100 microseconds


class Init(c.Structure):
    _fields_ = (("mem_size", c.c_size_t), ("mem_buffer", _P), ("no_alloc", c.c_bool))


Signatures = Mapping[str, tuple[Any, tuple[Any, ...]]]
_SIGNATURES: Signatures = {
    "ggml_init": (_P, (Init,)),
    "ggml_free": (None, (_P,)),
    "ggml_new_tensor_2d": (_P, (_P, c.c_int, c.c_int64, c.c_int64)),
    "ggml_mul_mat": (_P, (_P, _P, _P)),
    "ggml_new_graph_custom": (_P, (_P, c.c_size_t, c.c_bool)),
    "ggml_build_forward_expand": (None, (_P, _P)),
    "ggml_backend_cpu_init": (_P, ()),
    "ggml_backend_cpu_set_n_threads": (None, (_P, c.c_int)),
    "ggml_backend_cpu_buffer_type": (_P, ()),
    "ggml_backend_get_device": (_P, (_P,)),
    "ggml_backend_dev_supports_op": (c.c_bool, (_P, _P)),
    "ggml_backend_alloc_ctx_tensors_from_buft": (_P, (_P, _P)),
    "ggml_backend_buffer_free": (None, (_P,)),
    "ggml_backend_cpu_buffer_from_ptr": (_P, (_P, c.c_size_t)),
    "ggml_backend_tensor_alloc": (c.c_int, (_P, _P, _P)),
    "ggml_backend_tensor_set": (None, (_P, _P, c.c_size_t, c.c_size_t)),
    "ggml_backend_graph_compute": (c.c_int, (_P, _P)),
    "ggml_backend_free": (None, (_P,)),
}
# The one name that C++ has changed.
_REPACK = "_Z35ggml_backend_cpu_repack_buffer_typev"


class Ggml:
    """The functions above and ``more`` of the kind, and one CPU backend of ``threads`` threads."""

    def __init__(self, threads: int, more: Signatures = MappingProxyType({})) -> None:
        found = library()
        if found is None:
            raise EnvironmentFailure("no llama.cpp is installed here; install quantwise[llamacpp]")
        self._call: dict[str, Any] = {}
        for name, (result, arguments) in {**_SIGNATURES, **more}.items():
            try:
                function = getattr(found, name)
            except AttributeError as error:
                raise EnvironmentFailure(f"the installed llama.cpp has no {name}; its kernels are not timed") from error
            function.restype, function.argtypes = result, list(arguments)
            self._call[name] = function
        repack = getattr(found, _REPACK, None)
        if repack is not None:
            repack.restype, repack.argtypes = _P, []
        self._repack = repack
        # What one thread computed for is its own clock's to say, whoever else wants the processor; of several threads
        # the others' time would be missing.
        self.clock = time.thread_time if threads == 1 else time.perf_counter
        self.backend = self("backend_cpu_init")
        self("backend_cpu_set_n_threads", self.backend, threads)

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self._call[f"ggml_{name}"](*arguments)

    @contextmanager
    def products(self, kind: str, shape: tuple[int, int], count: int, batch: int, at: int | None) -> Iterator[Products]:
        """``count`` matrices of ggml type ``kind``, each to be multiplied by ``batch`` vectors; as ``placed``."""
        weights, rest = (self("init", Init(HEADERS, None, True)) for _ in range(2))
        buffers = []
        try:
            (rows, columns), number = shape, int(GgmlBlocks(kind).type)
            matrices = [self("new_tensor_2d", weights, number, columns, rows) for _ in range(count)]
            x = self("new_tensor_2d", rest, _F32, columns, batch)
            outputs = [self("mul_mat", rest, matrix, x) for matrix in matrices]
            data = encoded(kind, rows, columns)
            buffers.append(self._place(weights, matrices, outputs[0], data, at))
            buffers.append(self("backend_alloc_ctx_tensors_from_buft", rest, self("backend_cpu_buffer_type")))
            if None in buffers:
                raise EnvironmentFailure("not enough memory to time matrix products")
            values = np.random.default_rng(1).normal(size=(batch, columns)).astype(np.float32)
            self("backend_tensor_set", x, values.ctypes.data, 0, values.nbytes)
            yield Products(self, rest, outputs, data.nbytes)
        finally:
            for buffer in filter(None, buffers):
                self("backend_buffer_free", buffer)
            for context in (weights, rest):
                self("free", context)

    def _place(
        self, weights: Any, matrices: Sequence[Any], output: Any, data: npt.NDArray[np.generic], at: int | None
    ) -> Any:
        """A buffer that holds ``data`` as each of the matrices, or what lies at the address ``at``."""
        if self._repack is None and at is not None:
            buffer = self("backend_cpu_buffer_from_ptr", at, len(matrices) * data.nbytes)
            for i, matrix in enumerate(matrices):
                self("backend_tensor_alloc", buffer, matrix, at + i * data.nbytes)
            return buffer
        kind = self("backend_cpu_buffer_type") if self._repack is None else self._repack()
        buffer = self("backend_alloc_ctx_tensors_from_buft", weights, kind)
        if buffer is None:
            return None
        device = self("backend_get_device", self.backend)
        if self._repack is not None and not self("backend_dev_supports_op", device, output):
            self("backend_buffer_free", buffer)
            raise _NotRepacked
        for matrix in matrices:
            self("backend_tensor_set", matrix, data.ctypes.data, 0, data.nbytes)
        return buffer

    def without_repacking(self) -> None:
        """From now on weights stay as they are stored."""
        self._repack = None


class _NotRepacked(Exception):
    """No error: the type has no repacked layout here, and tensors that were placed cannot be placed again."""


@dataclass(slots=True)
class Products:
    """Matrices in place. ``bytes`` are those of one matrix."""

    ggml: Ggml
    context: Any
    outputs: Sequence[Any]
    bytes: int

    def graphs(self, count: int, each: int) -> list[Any]:
        """The first ``count`` products, ``each`` of them a graph."""
        made = []
        for first in range(0, count - each + 1, each):
            graph = self.ggml("new_graph_custom", self.context, max(64, 2 * each), False)
            for output in self.outputs[first : first + each]:
                self.ggml("build_forward_expand", graph, output)
            made.append(graph)
        return made

    def times(self, graphs: Sequence[Any], seconds: float) -> npt.NDArray[np.float64]:
        """As ``run_times``."""
        return run_times(self.ggml, graphs, seconds)


def run_times(ggml: Ggml, graphs: Sequence[Any], seconds: float, least: int = 3) -> npt.NDArray[np.float64]:
    """Seconds of a graph, on average over each of at least ``least`` tries: all graphs in turn, and again until a try
    has seen some ticks of the system's clock. The first turn warms up and is left out.

    A token is as long as the sum of its hundreds of products, quick and slow ones. So no single product may stand for
    it: of streamed q4_0 the quickest twentieth took 3/4 of the mean, slow ones coming to any matrix in any turn.
    """
    read = ggml.clock
    for graph in graphs:
        ggml("backend_graph_compute", ggml.backend, graph)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < end:
        start, count, passed = read(), 0, 0.0
        while passed < _TRY_SECONDS:
            for graph in graphs:
                ggml("backend_graph_compute", ggml.backend, graph)
            count += len(graphs)
            passed = read() - start
        taken.append(passed / count)
    return np.array(taken)


@contextmanager
def placed(
    threads: int, kind: str, shape: tuple[int, int], count: int, batch: int = 1, at: int | None = None
) -> Iterator[Products]:
    """``count`` matrices of ggml type ``kind`` and ``shape`` (rows, columns) where llama.cpp would have them: repacked
    where it repacks the type, else in the mapped file at the address ``at`` (None: in memory of their own)."""
    ggml = Ggml(threads)
    try:
        held = ggml.products(kind, shape, count, batch, at)
        try:
            products = held.__enter__()
        except _NotRepacked:
            ggml.without_repacking()
            held = ggml.products(kind, shape, count, batch, at)
            products = held.__enter__()
        try:
            yield products
        finally:
            held.__exit__(None, None, None)
    finally:
        ggml("backend_free", ggml.backend)


@contextmanager
def mapped_numbers(size: int) -> Iterator[int]:
    """The address of ``size`` bytes of float16 numbers in a mapped file, as llama.cpp maps its weights.

    Pages of a file mostly lie together in memory; those of a program's own, 4 KiB each, were read a third slower by the
    same kernel. Raises OSError where there is no room for the file.
    """
    numbers = np.random.default_rng(0).normal(0, 0.02, 1 << 20).astype(np.float16).tobytes()
    with tempfile.TemporaryFile(prefix="quantwise-") as file:
        for _ in range(-(-size // len(numbers))):
            file.write(numbers)
        file.flush()
        populate = getattr(mmap, "MAP_POPULATE", 0)
        with mmap.mmap(file.fileno(), size, mmap.MAP_SHARED | populate, mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            address = view.ctypes.data
            del view  # a view would keep the file from being unmapped
            yield address


def encoded(kind: str, rows: int, columns: int) -> npt.NDArray[np.generic]:
    """Real numbers in a type, so that no scale is a denormal or an infinity."""
    values = np.random.default_rng(0).normal(0, columns**-0.5, (_DRAWN, columns)).astype(np.float32)
    drawn = GgmlBlocks(kind).encode(values)
    return np.ascontiguousarray(np.tile(drawn, (-(-rows // _DRAWN), 1))[:rows])
