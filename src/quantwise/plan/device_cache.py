"""What of a model keeps its cache on the device whose memory binds: the layers there, and of each the heads there."""

from __future__ import annotations

from dataclasses import replace

from quantwise.models.decoder import Decoder
from quantwise.plan.deployment import Deployment
from quantwise.plan.parallel import device_decoder
from quantwise.plan.stages import Stages


def decoder_there(asked: Deployment, stages: Stages | None) -> Decoder:
    """The decoder with those layers and heads alone; of several GPUs those of the fullest one of ``stages``.

    Its tensors are still those of the whole.
    """
    decoder = asked.computed
    if stages is None:
        kept = decoder.layers[asked.layers_behind :] if asked.is_partial else decoder.layers
        return replace(decoder, layers=kept)
    stage, counts = stages.memory.index(stages.fullest), stages.split.layers
    first = sum(counts[:stage])
    return device_decoder(replace(decoder, layers=decoder.layers[first : first + counts[stage]]), stages.split.tensor)
