"""The reference model with outlier channels: the same function, whose inputs of linear layers have a few huge channels.

Large models grow such channels in training (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 3); a model
as small as ours does not. Here a norm's gain is multiplied and the columns that read that channel are divided by the
same power of two, so every product, and every logit, stays what it was to the bit.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from quantwise.models import reference

# What reads each norm, within a block.
_READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def write_outlier_model(folder: Path, factor: int = 64, channels: int = 4, seed: int = 0) -> Path:
    """Write the model into ``folder``, which must not exist; returns it.

    In every norm of every block, ``channels`` of its outputs, drawn anew, are ``factor`` times as large. Raises
    ValueError where ``factor`` is no power of two.
    """
    import torch
    from safetensors.torch import load_file, save_file

    if factor < 1 or factor & (factor - 1):
        raise ValueError(f"a factor of {factor} is no power of two, so rounding would change the model")
    shutil.copytree(reference.path(), folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    generator = torch.Generator().manual_seed(seed)
    for name, gain in tensors.items():
        block, _, rest = name.rpartition(".weight")[0].rpartition(".")
        if rest not in _READERS:
            continue
        grown = torch.randperm(len(gain), generator=generator)[:channels]
        gain[grown] *= factor
        for reader in _READERS[rest]:
            tensors[f"{block}.{reader}.weight"][:, grown] /= factor
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder
