"""Nodes of llama.cpp's graphs that every decoder has: embeddings, rotation, attention over the cache, outputs."""

from __future__ import annotations

from quantwise.models.decoder import Attention, Decoder
from quantwise.plan.constants import LlamacppBuild
from quantwise.plan.llamacpp.replay import Graph, Node, Shape, contiguous
from quantwise.plan.llamacpp.settings import LlamacppSettings

_FLOATS = ("f32", "f16", "bf16")
_HADAMARD = 64  # Heads of a multiple of this are turned before they are quantized (llama.cpp PR 21038).


class Sketch:
    """A graph that grows, with the inputs that all layers share. Shapes are fastest dimension first."""

    def __init__(self, decoder: Decoder, settings: LlamacppSettings, build: LlamacppBuild) -> None:
        self.decoder, self.settings, self.build, self.graph = decoder, settings, build, Graph()
        self.tokens = settings.reserved_tokens
        self._positions = self._given((self.tokens, 1, 1, 1))
        self._chosen = self._given((settings.reserved_outputs(build), 1, 1, 1))
        self._turns: dict[bool, tuple[Node | None, Node | None]] = {}
        self._inputs: dict[int | None, tuple[Node, Node, Node]] = {}

    def _given(self, shape: Shape, width: int = 4) -> Node:
        return Node("none", shape, width)

    def weight(self, *shape: int) -> Node:
        """A tensor of the model, in a buffer of its own."""
        full = (*shape, 1, 1, 1, 1)
        return Node("none", (full[0], full[1], full[2], full[3]), external=True)

    def embedding(self) -> Node:
        """The hidden state of all tokens; the place for given embeddings is reserved beside it."""
        shape = (self.decoder.hidden, self.tokens, 1, 1)
        made = self._looked_up(shape)
        self.graph.expand(made)
        self.graph.expand(self._given(shape))
        # Since 2026 also a batch of both, whose place is kept to the end because nothing reads it.
        if self.build.mixed_inputs:
            given = self.fresh("dup", shape, self._given(shape))
            some = self._looked_up(shape)
            slots = self._given((self.tokens, 1, 1, 1), 8)
            self.graph.expand(Node("set_rows", shape, sources=(some, slots, given), view_of=given))
        return made

    def copied_embedding(self) -> Node:
        """The hidden state of all tokens where another device looked it up."""
        return self._given((self.decoder.hidden, self.tokens, 1, 1))

    def _looked_up(self, shape: Shape) -> Node:
        return Node("get_rows", shape, sources=(self.weight(1), self._given((self.tokens, 1, 1, 1))))

    def matmul(self, rows: int, hidden: Node) -> Node:
        """A weight of ``rows`` outputs applied."""
        return Node("mul_mat", (rows, *hidden.shape[1:]), sources=(self.weight(hidden.shape[0], rows), hidden))

    def fresh(self, operation: str, shape: Shape, *sources: Node, width: int = 4) -> Node:
        """An operation with a place of its own."""
        return Node(operation, shape, width, sources=sources)

    def over(self, operation: str, *sources: Node) -> Node:
        """An operation of the first source's shape, which it may write over."""
        return Node(operation, sources[0].shape, sources[0].width, sources=sources)

    def view(self, of: Node, shape: Shape, strides: tuple[int, ...] = ()) -> Node:
        """The same bytes in another shape."""
        owner = of.view_of or of
        return Node("view", shape, of.width, (of,), strides or contiguous(shape, of.width), view_of=owner)

    def reshape(self, of: Node, shape: Shape) -> Node:
        """As ``view`` of a tensor without gaps."""
        return self.view(of, shape)

    def permuted(self, of: Node) -> Node:
        """The two middle dimensions exchanged, without moving a byte."""
        a, b, c, d = of.shape
        s = of.strides
        return self.view(of, (a, c, b, d), (s[0], s[2], s[1], s[3]))

    def slice(self, joined: Node, dim: int, heads: int) -> Node:
        """Some heads of a joined projection (columns, tokens)."""
        tokens = joined.shape[1]
        stride = joined.strides[1]
        return self.view(joined, (dim, heads, tokens, 1), (4, 4 * dim, stride, stride * tokens))

    def rope(self, heads: Node) -> Node:
        """Turned by position."""
        return self.over("rope", heads, self._positions)

    def rows(self, hidden: Node) -> Node:
        """The rows that logits are wanted of."""
        return self.fresh("get_rows", (hidden.shape[0], self._chosen.shape[0], 1, 1), hidden, self._chosen)

    def _rotations(self, attention: Attention) -> tuple[Node | None, Node | None]:
        """The matrices that keys and values are turned by before they are rounded; None where they are not.

        Sliding layers and the others have matrices of their own.
        """
        slides = attention.window is not None
        if slides not in self._turns:
            alike = [a for a in self._all() if not a.latent and not a.shared and (a.window is not None) == slides]
            key_type, value_type = self.settings.types
            keys = self._rotation(key_type, {a.key_dim for a in alike}, largest=True)
            self._turns[slides] = keys, self._rotation(value_type, {a.value_dim for a in alike}, largest=False)
        return self._turns[slides]

    def _rotation(self, kind: str, widths: set[int], *, largest: bool) -> Node | None:
        width = widths.pop() if len(widths) == 1 else 0
        if kind in _FLOATS or width == 0 or width % _HADAMARD:
            return None
        size = _HADAMARD
        while largest and width % (2 * size) == 0:
            size *= 2
        return self._given((size, size, 1, 1))

    def _turned(self, heads: Node, by: Node | None) -> Node:
        if by is None:
            return heads
        size = by.shape[0]
        flat = (size, heads.shape[0] * heads.shape[1] * heads.shape[2] // size, 1, 1)
        rows = self.view(heads, flat) if heads.is_contiguous else self.fresh("cont", flat, heads)
        return self.reshape(Node("mul_mat", flat, sources=(by, rows)), heads.shape)

    def cache_inputs(self, attention: Attention) -> tuple[Node, Node, Node]:
        """Where keys and values go, and the mask, of layers with this window."""
        found = self._inputs.get(attention.window)
        if found is None:
            cells, streams = self.cells(attention), self.settings.streams
            flash = self.settings.flash_attention
            spread = 1 if flash else max(a.kv_heads * a.value_dim for a in self._all())
            mask = self._given((cells, self.tokens // streams, 1, streams), 2 if flash else 4)
            keys, values = self._given((self.tokens, 1, 1, 1), 8), self._given((self.tokens * spread, 1, 1, 1), 8)
            found = self._inputs[attention.window] = (keys, values, mask)
        return found

    def _all(self) -> list[Attention]:
        return [layer.attention for layer in self.decoder.layers if layer.attention]

    def cells(self, attention: Attention) -> int:
        """Tokens of one stream that a layer sees."""
        window = attention.window
        return self.settings.cells if window is None else self.settings.window_cells(window)

    def attend(self, query: Node, key: Node, value: Node, attention: Attention, *, softcap: bool = False) -> Node:
        """Attention over the cache, heads side by side (heads * value_dim, tokens)."""
        key_turn, value_turn = self._rotations(attention)
        query, value = self._turned(query, key_turn), self._turned(value, value_turn)
        key = self._turned(key, key_turn)
        self.graph.expand(query)
        if not attention.shared:
            # Where layers slide keys come before values, elsewhere after them, to be written right into the cache.
            slides = any(other.window is not None for other in self._all())
            for node in (key, value) if slides else (value, key):
                self.graph.expand(node)
            self.store(key, value, attention)
        cells, streams = self.cells(attention), self.settings.streams
        keys = self.weight(attention.key_dim, attention.kv_heads, cells, streams)
        values = self.weight(attention.value_dim, attention.kv_heads, cells, streams)
        out = self.over_cache(query, keys, values, attention, softcap=softcap)
        self.graph.expand(out)
        return self._turned(out, value_turn)

    def store(self, key: Node, value: Node | None, attention: Attention) -> None:
        """Write new keys and values into the cache."""
        key_rows, value_rows, _ = self.cache_inputs(attention)
        self._store(key, key_rows)
        if value is None:
            return
        if self.settings.flash_attention:
            self._store(value, value_rows)
            return
        wide = value.shape[0] * value.shape[1]
        flat = (wide, value.shape[2], 1, 1)
        value = self.view(value, flat) if value.strides[2] == 4 * wide else self.fresh("cont", flat, value)
        self._set_rows(self.reshape(value, (1, wide * flat[1], 1, 1)), value_rows)

    def _store(self, heads: Node, rows: Node) -> None:
        flat = (heads.shape[0] * heads.shape[1], heads.shape[2], 1, 1)
        self._set_rows(self.view(heads, flat, (4, heads.strides[2], 4, 4)), rows)

    def _set_rows(self, values: Node, rows: Node) -> None:
        cache = self.weight(1)
        self.graph.expand(Node("set_rows", cache.shape, sources=(values, rows, cache), view_of=cache))

    def over_cache(
        self, query: Node, keys: Node, values: Node, attention: Attention, *, softcap: bool = False, wide: int = 0
    ) -> Node:
        """Attention proper. ``wide`` above 0: each head's value is then multiplied up to that width (latent)."""
        *_, mask = self.cache_inputs(attention)
        streams = self.settings.streams
        dim, heads, tokens, _ = query.shape
        each = tokens // streams
        query = self.permuted(self.view(query, (dim, heads, each, streams)))
        width = values.shape[0]
        if self.settings.flash_attention:
            out = self.fresh("flash", (width, heads, each, streams), query, keys, values, mask)
            if wide:
                out = self.permuted(self.matmul(wide, self.permuted(out)))
                out = self.fresh("cont", out.shape, out)
            return self.reshape(out, (out.shape[0] * heads, tokens, 1, 1))
        scores = self.fresh("mul_mat", (keys.shape[2], each, heads, streams), keys, query)
        if softcap:
            scores = self.over("scale", self.over("unary", self.over("scale", scores)))
        scores = self.over("soft_max", scores, mask)
        out = self.fresh("mul_mat", (width, each, heads, streams), values, scores)
        if wide:
            out = self.matmul(wide, out)
        return self.fresh("cont", (out.shape[0] * heads, tokens, 1, 1), self.permuted(out))
