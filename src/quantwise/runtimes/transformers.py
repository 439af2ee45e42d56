"""Transformers: a folder of safetensors, run in this process (or in one of its own) in the checkpoint's own dtype."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantwise.core.artifact import Artifact
from quantwise.core.cache_scheme import TRANSFORMERS_CACHES, parse_cache
from quantwise.core.errors import EnvironmentFailure, InputError, RuntimeFailure
from quantwise.core.loads import loading, refused
from quantwise.core.prompt_tokens import PromptTokens
from quantwise.core.runtime import Ask, Footprint, Reply, RuntimeOptions, Session
from quantwise.runtimes.prompt import align, prompt_text
from quantwise.runtimes.transformers_device import is_cuda

if TYPE_CHECKING:
    from quantwise.runtimes.sampling import Chance

_MISSING = "Transformers is not installed; pip install 'quantwise[transformers]'"
_NEEDED = ("torch", "transformers", "tokenizers", "safetensors")


class Transformers:
    """The runtime ``transformers``. With ``own_process`` the model lives in a process of its own.

    That makes a second, independent incarnation for the A/A check, and a peak memory that is the model's alone.
    """

    name = "transformers"

    def __init__(self, own_process: bool = False) -> None:
        self.own_process = own_process

    def version(self) -> str:
        """Transformers, torch, and that it is a GPU which computes.

        Raises EnvironmentFailure when one is missing, InputError for a device that is none.
        """
        try:
            builds = [f"{p} {importlib.metadata.version(p)}" for p in ("transformers", "torch")]
        except importlib.metadata.PackageNotFoundError as error:
            raise EnvironmentFailure(_MISSING) from error
        return ", ".join([*builds, *(["on cuda"] if is_cuda() else [])])

    def refuses(self, artifact: Artifact) -> str | None:
        """It takes folders of safetensors, plain or quantized in a format that it or we can read."""
        if (why := refused(self.name, artifact.format)) is not None:
            return why
        if missing := [p for p in _NEEDED if importlib.util.find_spec(p) is None]:
            return f"{_MISSING} (no {', '.join(missing)})"
        how = loading(self.name, artifact.format)
        if how is not None and how.library is not None and importlib.util.find_spec(how.library) is None:
            package = how.library.replace("_", "-")
            return f"{artifact.format} needs the library {package} here, which is not installed; pip install {package}"
        if artifact.format in ("gptq", "awq") and artifact.location:
            from quantwise.models.config import quantization_settings
            from quantwise.runtimes.expanded_layouts import refuses

            return refuses(quantization_settings(Path(artifact.location)))
        return None

    def open(self, artifact: Artifact, options: RuntimeOptions) -> AbstractContextManager[Session]:
        """Load the folder. Raises InputError for a cache scheme it lacks, RuntimeFailure when it cannot load."""
        parse_cache(options.cache, self.name)
        if (reason := self.refuses(artifact)) is not None:
            raise RuntimeFailure(reason)
        if self.own_process:
            from quantwise.runtimes.transformers_process import open_in_process

            return open_in_process(artifact, options)
        return _open_here(artifact, options)


@contextmanager
def _open_here(artifact: Artifact, options: RuntimeOptions) -> Iterator[TransformersSession]:
    import torch

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(options.threads or threads)
        yield TransformersSession(artifact.location, options)
    finally:
        torch.set_num_threads(threads)


class TransformersSession:
    """A loaded model. Requests are answered in batches of ``options.parallel``, sorted by length."""

    def __init__(self, folder: str, options: RuntimeOptions) -> None:
        from quantwise.runtimes.greedy import CausalModel
        from quantwise.runtimes.transformers_folder import load, without_bars

        model, self._tokenizer, self._executes = load(folder)

        self._options = options
        eos = _eos_ids(model, self._tokenizer)
        cache = TRANSFORMERS_CACHES[parse_cache(options.cache, "transformers")]
        if cache is not None:
            from quantwise.kv_cache.quantized import check_model

            check_model(model.config, cache)
        pad = _first(self._tokenizer.pad_token_id, *sorted(eos), 0)
        self._model = CausalModel(model, pad=pad, eos=eos, cache=cache)
        self._adds_tokens = self._ids("a", False) != self._ids("a", True)
        self._opening = _first(*self._ids("", False)[:1], self._tokenizer.eos_token_id)
        with without_bars():
            # The first call of a model is slow (weights may be expanded); nobody's request should pay for it.
            self._model.distributions([0, 0], 1)
        self._weights_bytes = _weights_bytes(model)

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in order. ``seconds`` is the wall time of the batch that the request was in."""
        replies: list[Reply | None] = [None] * len(asks)
        generating = [i for i, ask in enumerate(asks) if not ask.choices]
        choosing = [i for i, ask in enumerate(asks) if ask.choices]
        for group, answer in ((generating, self._generate), (choosing, self._choose)):
            group.sort(key=lambda i: len(prompt_text(asks[i])[0]))
            for start in range(0, len(group), self._options.parallel):
                part = group[start : start + self._options.parallel]
                for i, reply in zip(part, self._careful(answer, [asks[i] for i in part]), strict=True):
                    replies[i] = reply
        return [reply for reply in replies if reply is not None]

    def footprint(self) -> Footprint:
        """Weights as held, the largest cache so far; a shared process has no peak of its own."""
        return Footprint(self._weights_bytes, self._model.cache_bytes, executes=self._executes)

    def next_token_logprobs(self, text: str, top: int) -> list[dict[int, float]]:
        """As in the protocol; each position also holds the token that came.

        A text to which the tokenizer adds nothing is preceded by the opening token. Raises InputError when the text is
        longer than the context.
        """
        ids = self._ids(text, rendered=False)
        if not self._adds_tokens and self._opening is not None:
            ids = [self._opening, *ids]
        if len(ids) > self._options.context:
            raise InputError(
                f"the text has {len(ids)} tokens, the context {self._options.context}; give a shorter text"
            )
        return self._model.distributions(ids, top)

    def prompt_tokens(self, ask: Ask) -> PromptTokens:
        """As in the protocol, with texts."""
        ids = self._ids(*prompt_text(ask))
        pieces = (str(self._tokenizer.decode([i], clean_up_tokenization_spaces=False)) for i in ids)
        return PromptTokens(tuple(ids), tuple(pieces), len(ids), "the tokenizer")

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a raw text."""
        return self._ids(text, rendered=False)

    def _ids(self, text: str, rendered: bool) -> list[int]:
        return [int(t) for t in self._tokenizer(text, add_special_tokens=not rendered)["input_ids"]]

    def _careful(self, answer: Callable[[list[Ask]], list[Reply]], asks: list[Ask]) -> list[Reply]:
        """A batch that fails is asked one by one, so that only the request at fault is lost."""
        try:
            return answer(asks)
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError) as error:
            if len(asks) == 1:
                return [Reply(finish="crash", error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")]
            return [reply for ask in asks for reply in self._careful(answer, [ask])]

    def _generate(self, asks: list[Ask]) -> list[Reply]:
        from quantwise.runtimes.greedy import Row

        start = time.perf_counter()
        prompts = [self._ids(*prompt_text(ask)) for ask in asks]
        refused = [self._too_long(len(ids)) for ids in prompts]
        rows = [
            Row(ids, max(1, min(ask.max_tokens, self._options.context - len(ids))), self._ended(ask, ids), _chance(ask))
            for ask, ids in zip(asks, prompts, strict=True)
        ]
        going = [row for row, why in zip(rows, refused, strict=True) if why is None]
        first = self._model.decode(going, start + self._options.timeout_s) if going else None
        texts = [self._text(row.prompt, row.new) for row in rows]
        seconds = time.perf_counter() - start
        replies = []
        for ask, row, why, text in zip(asks, rows, refused, texts, strict=True):
            if why is not None:
                replies.append(Reply(finish="refused", prompt_tokens=len(row.prompt), error=why))
                continue
            late = f"not finished in {self._options.timeout_s:g} s" if row.finish == "timeout" else None
            to_first = first - start if first is not None else None
            text = _before_stop(text, ask.stop)
            counts = (len(row.prompt), len(row.new))
            replies.append(Reply(text, row.finish, *counts, seconds, to_first, error=late))
        return replies

    def _choose(self, asks: list[Ask]) -> list[Reply]:
        start = time.perf_counter()
        out: list[Reply] = []
        rows: list[list[int]] = []
        splits: list[int] = []
        for ask in asks:
            text, rendered = prompt_text(ask)
            wholes = [self._ids(text + choice, rendered) for choice in ask.choices]
            split, wholes = align(self._ids(text, rendered), wholes, self._opening)
            why = self._too_long(max(len(whole) for whole in wholes) - 1)
            if split < 1:
                why = "a choice needs a prompt of at least one token before it"
            out.append(Reply(prompt_tokens=split) if why is None else Reply(finish="refused", error=why))
            rows += wholes if why is None else []
            splits += [split] * len(wholes) if why is None else []
        sums = iter(sum(p) for p in self._model.continuation_logprobs(rows, splits, self._options.parallel))
        seconds = time.perf_counter() - start
        return [
            reply
            if reply.error is not None
            else Reply(
                prompt_tokens=reply.prompt_tokens,
                seconds=seconds,
                choice_logprobs=tuple(next(sums) for _ in ask.choices),
            )
            for ask, reply in zip(asks, out, strict=True)
        ]

    def _too_long(self, tokens: int) -> str | None:
        if tokens == 0:
            return "the prompt is empty"
        if tokens < self._options.context:
            return None
        return f"the prompt has {tokens} tokens and the context {self._options.context}"

    def _text(self, prompt: list[int], new: list[int]) -> str:
        """What the new tokens add to the text; decoded behind the prompt's end, where a leading space survives."""
        before = prompt[-4:]
        base = self._tokenizer.decode(before, skip_special_tokens=True)
        whole = self._tokenizer.decode(before + new, skip_special_tokens=True)
        return str(
            whole[len(base) :] if whole.startswith(base) else self._tokenizer.decode(new, skip_special_tokens=True)
        )

    def _ended(self, ask: Ask, prompt: list[int]) -> Callable[[list[int]], bool] | None:
        if not ask.stop:
            return None
        # A character takes at most four byte tokens, so a stop text that was just completed lies in this many.
        window = 4 * max(len(stop) for stop in ask.stop) + 4

        def ended(new: list[int]) -> bool:
            text = self._text(prompt, new) if len(new) <= window else self._text(new[:-window], new[-window:])
            return any(stop in text for stop in ask.stop)

        return ended


def _chance(ask: Ask) -> Chance | None:
    from quantwise.runtimes.sampling import Chance

    return Chance(ask.temperature, ask.top_p, ask.seed, ask.top_k, ask.min_p) if ask.temperature > 0 else None


def _weights_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, tied ones once, and of the scales that bitsandbytes keeps beside them."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)  # of 4-bit weights
        while state is not None:
            tensors += [state.absmax, state.code]
            state = getattr(state, "state2", None)
    scales = (getattr(getattr(module, "state", None), "SCB", None) for module in model.modules())  # of 8-bit ones
    tensors += [scale for scale in scales if scale is not None]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends an answer: the generation settings' end tokens and the tokenizer's."""
    told = getattr(model.generation_config, "eos_token_id", None)
    ids = list(told) if isinstance(told, list | tuple) else [told]
    return frozenset(int(t) for t in [*ids, tokenizer.eos_token_id] if t is not None)


def _first(*values: int | None) -> Any:
    return next((v for v in values if v is not None), None)


def _before_stop(text: str, stops: Sequence[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
