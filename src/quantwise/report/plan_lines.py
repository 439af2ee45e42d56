"""Lines of a plan's screen that only some plans have, as (label, text)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantwise.report import notation


def devices(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How several GPUs share the model."""
    found = record["devices"]
    if found is None:
        return
    stages = found["stages"]
    told = [f"{found['count']} of {record['site']}"]
    if found["tensor_parallel"] > 1:
        heads = found["kv_heads"]
        told.append(
            f"{found['tensor_parallel']} share every layer, {heads} key-value head{'' if heads == 1 else 's'} each"
        )
    if len(stages) > 1:
        parts = [f"{stage['layers']} layers {notation.size(stage['total_bytes'][1])}" for stage in stages]
        told.append(" then ".join(parts))
    messages = found["messages_per_token"]
    told.append(
        f"a token sends {notation.size(found['link_bytes_per_token'])} over a link and waits for {messages} "
        f"message{'' if messages == 1 else 's'}"
    )
    yield "devices", "; ".join(told) + "; sizes above are of the fullest one"
