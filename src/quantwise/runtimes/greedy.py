"""Decoding of a batch, greedy or by chance, and log-probabilities of given continuations, for a causal language model.

A loop of our own: ``generate`` of Transformers is no slower on the batch as such, but it keeps computing rows that have
finished, and ours drops them. Prompts are padded on the left, so that all rows end in the same column.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from quantwise.core.cache_scheme import IntegerCache
from quantwise.core.runtime import Finish
from quantwise.runtimes.sampling import Chance, next_tokens

_LOGITS_AT_ONCE = 1 << 26  # values; bounds what scoring long texts over a large vocabulary holds at once (256 MiB)


@dataclass(slots=True)
class Row:
    """One request in a batch. ``ended`` tells from the new tokens whether a stop text has been written; ``chance`` is
    None for greedy decoding."""

    prompt: list[int]
    limit: int
    ended: Callable[[list[int]], bool] | None = None
    chance: Chance | None = None
    new: list[int] = field(default_factory=list)
    finish: Finish = "timeout"


class CausalModel:
    """A loaded model with what calling it needs. Shapes: batch B, columns T, vocabulary V.

    ``cache`` says how keys and values are kept; None is the model's own cache, in its own dtype.
    """

    def __init__(self, model: Any, pad: int, eos: frozenset[int], cache: IntegerCache | None = None) -> None:
        self.model = model
        self.pad = pad
        self.eos = eos
        self.cache = cache
        self.cache_bytes = 0
        self.device = next(model.parameters()).device
        accepts = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in accepts
        self._last_only = "logits_to_keep" in accepts

    @torch.inference_mode()
    def decode(self, rows: Sequence[Row], deadline: float) -> float | None:
        """Fill ``new`` and ``finish`` of every row; what is unfinished at ``deadline`` (perf_counter) stays "timeout".

        Returns when the first tokens were there (perf_counter). Tokens are read back from the device before a clock is
        read, so that nothing has to wait for a GPU apart.
        """
        live = list(rows)
        tokens, mask = self._left_padded([row.prompt for row in live])
        cache, first = self._fresh(mask), None
        while live:
            logits, cache = self._forward(tokens, mask, cache, keep=1)
            chosen = next_tokens(logits[:, -1], [row.chance for row in live])
            first = first or time.perf_counter()
            going = [i for i, row in enumerate(live) if self._extend(row, chosen[i])]
            if time.perf_counter() > deadline:
                break
            tokens = self._on_device([[chosen[i]] for i in going])
            if len(going) < len(live) and going:
                kept = self._on_device(going)
                mask = mask[kept]
                cache.batch_select_indices(kept)
            live = [live[i] for i in going]
            mask = torch.cat([mask[: len(live)], mask.new_ones(len(live), 1)], dim=1)
        return first

    def _extend(self, row: Row, token: int) -> bool:
        """Append a token; whether the row goes on."""
        if token in self.eos:
            row.finish = "stop"
            return False
        row.new.append(token)
        if row.ended is not None and row.ended(row.new):
            row.finish = "stop"
            return False
        if len(row.new) >= row.limit:
            row.finish = "length"
            return False
        return True

    @torch.inference_mode()
    def continuation_logprobs(
        self, rows: Sequence[Sequence[int]], splits: Sequence[int], batch: int
    ) -> list[list[float]]:
        """For each row of tokens: the log-probability of every token from its split on, given all before it.

        Rows that differ in their last token only are computed once (the choices A, B, C, D of a question).
        """
        inputs: dict[tuple[int, ...], int] = {}
        for row, split in zip(rows, splits, strict=True):
            key = tuple(row[:-1])
            inputs[key] = max(inputs.get(key, 0), len(row) - split)
        wanted: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for index, row in enumerate(rows):
            wanted.setdefault(tuple(row[:-1]), []).append((index, len(row) - splits[index]))
        out: list[list[float]] = [[] for _ in rows]
        order = sorted(inputs, key=len)
        width = max(inputs.values(), default=1) * int(self.model.config.get_text_config().vocab_size)
        size = max(1, min(batch, _LOGITS_AT_ONCE // max(width, 1)))
        for start in range(0, len(order), size):
            keys = order[start : start + size]
            tokens, mask = self._left_padded([list(key) for key in keys])
            logits, _ = self._forward(tokens, mask, self._fresh(mask), keep=max(inputs[key] for key in keys))
            for column, key in zip(logits.float(), keys, strict=True):
                normal = column - column.logsumexp(-1, keepdim=True)
                for index, count in wanted[key]:
                    targets = self._on_device(rows[index][-count:])
                    out[index] = normal[-count:].gather(1, targets[:, None])[:, 0].tolist()
        return out

    @torch.inference_mode()
    def distributions(self, tokens: Sequence[int], top: int) -> list[dict[int, float]]:
        """After each token but the last: the ``top`` likeliest next tokens and the one that came."""
        out: list[dict[int, float]] = []
        ids, mask = self._left_padded([list(tokens[:-1])])
        logits, _ = self._forward(ids, mask, self._fresh(mask), keep=len(tokens) - 1)
        for scores, came in zip(logits[0], tokens[1:], strict=True):
            normal = scores.float().log_softmax(-1)
            best = normal.topk(min(top, len(normal)))
            found = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            out.append(found | {int(came): float(normal[came])})
        return out

    def _left_padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Tokens and mask, both int64 [B, T]; 0 in the mask is padding."""
        width = max(len(row) for row in rows)
        tokens = self._on_device([[self.pad] * (width - len(row)) + row for row in rows])
        mask = self._on_device([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        return tokens, mask

    def _on_device(self, numbers: Sequence[Any]) -> Tensor:
        """Whole numbers as an int64 tensor where the model is."""
        return torch.tensor(numbers, dtype=torch.int64, device=self.device)

    def _fresh(self, mask: Tensor) -> Any:
        """An empty cache for a batch of this mask; None lets the model make its own."""
        if self.cache is None:
            return None
        from quantwise.kv_cache.quantized import QuantizedCache

        return QuantizedCache(self.cache, padding=(mask == 0).sum(1))

    def _forward(self, tokens: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Any]:
        """Logits [B, keep, V] of the last ``keep`` columns, and the cache. ``tokens`` [B, t] are the mask's last.

        Where the cache rounds groups of tokens, a long text is cut at their ends, so that every token reads what it
        would have read had the text come token by token.
        """
        total, step = mask.shape[1], getattr(cache, "piece", None)
        seen = total - tokens.shape[1]
        ends = [*range(seen - seen % step + step, total, step), total] if step else [total]
        logits = []
        for begin, end in zip([seen, *ends[:-1]], ends, strict=True):
            wanted = max(1, min(end - begin, keep - (total - end)))
            told, cache = self._call(tokens[:, begin - seen : end - seen], mask[:, :end], cache, wanted)
            if total - end < keep:
                logits.append(told)
        return torch.cat(logits, dim=1) if len(logits) > 1 else logits[0], cache

    def _call(self, tokens: Tensor, mask: Tensor, cache: Any, keep: int) -> tuple[Tensor, Any]:
        extra: dict[str, Any] = {}
        if self._positions:
            extra["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        if self._last_only:
            extra["logits_to_keep"] = keep
        out = self.model(input_ids=tokens, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        self.cache_bytes = max(self.cache_bytes, _cache_bytes(out.past_key_values))
        return out.logits[:, -keep:], out.past_key_values


def _cache_bytes(cache: Any) -> int:
    """Bytes of the keys and values held, as far as the cache shows its layers."""
    if hasattr(cache, "bytes"):
        return int(cache.bytes())
    tensors = [getattr(layer, part, None) for layer in getattr(cache, "layers", ()) for part in ("keys", "values")]
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
