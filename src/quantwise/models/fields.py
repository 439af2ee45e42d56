"""The keys of a config.json, read as what they must be: every complaint is one line that names the key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantwise.core.errors import InputError

# Beyond any model: what is larger is a damaged file or a hostile one, and would only fill memory with names.
LARGEST_SIZE = 2**31 - 1
MOST_LAYERS = 4096
MOST_EXPERTS = 8192
MOST_TENSORS = 1_000_000


@dataclass(frozen=True, slots=True)
class Fields:
    """``values`` of the file called ``where``; ``defaults`` are those of the class in Transformers, which leaves out of
    a config.json what equals them.
    """

    values: Mapping[str, Any]
    where: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value, which may be null; where the key is absent the class's default, else None."""
        return self.values[key] if key in self.values else self.defaults.get(key)

    def size(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST_SIZE) -> int:
        """A whole number. Raises InputError where it is missing without a default, of another type, or out of range."""
        value = self.get(key)
        if value is None:
            if default is None:
                raise InputError(f"{self.where} lacks {key}; give the config.json of a decoder")
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise InputError(f"{self.where}: {key} must be a whole number of {least} to {most}, not {value!r:.40}")
        return value

    def optional(self, key: str) -> int | None:
        """A whole number, None where it is absent or 0. Raises InputError as ``size``."""
        return self.size(key, 0, least=0) or None

    def flag(self, key: str) -> bool:
        """Whether a switch is on; off where it is absent. Raises InputError where it is no switch."""
        value = self.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise InputError(f"{self.where}: {key} must be true or false, not {value!r:.40}")

    def number_list(self, key: str) -> list[int] | None:
        """A list of whole numbers, None where absent. Raises InputError where it is anything else."""
        value = self.get(key)
        if value is None:
            return None
        numbers = isinstance(value, list) and len(value) <= MOST_LAYERS
        if not numbers or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
            raise InputError(f"{self.where}: {key} must be a list of whole numbers, not {value!r:.40}")
        return list(value)

    def word_list(self, key: str, count: int) -> list[str] | None:
        """A list of ``count`` words, None where absent. Raises InputError where it is anything else."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise InputError(f"{self.where}: {key} must be a list of words, not {value!r:.40}")
        if len(value) != count:
            raise InputError(f"{self.where}: {key} names {len(value)} layers, the model has {count}; repair the file")
        return list(value)

    @property
    def layers(self) -> int:
        """How many decoder layers."""
        return self.size("num_hidden_layers", most=MOST_LAYERS)
