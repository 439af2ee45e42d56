"""One trained model, what tools make of it from the same calibration tokens, and what each result is worth.

All are weighed alike: Transformers in float32 on the values that the files hold, exact KL from the 16-bit model over
the whole vocabulary (build/held_out.py). llama.cpp's files count too: they are read as GGUF, whatever wrote them.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from fresh_process import ROOT, Arm, Finished, cores, run
from quantwise.build.calibration import Calibration, calibrate
from quantwise.build.held_out import HeldOut, divergences, divergences_of, held_out
from quantwise.build.skeleton import Skeleton
from quantwise.build.stream import walk_blocks
from quantwise.build.walk import build
from quantwise.core.artifact import Artifact, FormatName
from quantwise.core.recipe import parse_recipe
from quantwise.formats.gguf.mixes import tensor_bytes
from quantwise.formats.gguf.tensors import placed
from quantwise.formats.safetensors_folder import ModelFolder
from quantwise.grids.ggml_grid import GgmlGrid
from quantwise.quantize.gptq import Gptq
from trained_models import Trained

LLAMA, COMPRESSOR, TOOLKIT = "llama.cpp", "llm-compressor", "gptq-gguf-toolkit"


@dataclass(frozen=True, slots=True)
class Weighed:
    """One artifact: its bytes (of the files that hold tensors), and its KL in nats summed over each text."""

    name: str
    bytes: int
    sums: NDArray[np.float64]


class Bench:
    """One model, its calibration tokens and held-out texts, and every artifact weighed so far."""

    def __init__(self, trained: Trained, work: Path) -> None:
        self.trained, self.work = trained, work
        longest = int(ModelFolder(trained.folder).config["max_position_embeddings"])
        self.data: Calibration = calibrate(trained.folder, trained.calibration, longest, seed=0)
        self.texts: HeldOut = held_out(trained.folder, trained.held_out)
        self.peers: dict[str, list[Finished]] = {}
        self._weighed: dict[str, Weighed] = {}

    def prepare(self, recipes: Sequence[str]) -> None:
        """Build the recipes in one pass."""
        new = [recipe for recipe in recipes if recipe not in self._weighed]
        wanted = [parse_recipe(recipe) for recipe in new]
        made = build(self.trained.folder, wanted, self.trained.calibration, self.work / "ours", seed=0)
        for recipe, artifact in zip(new, made, strict=True):
            self._weighed[recipe] = self._weigh(recipe, artifact)

    def ours(self, recipe: str) -> Weighed:
        """An artifact of ours."""
        if recipe not in self._weighed:
            self.prepare([recipe])
        return self._weighed[recipe]

    def theirs(self, peer: str, kind: str) -> Weighed:
        """What a peer makes of the same model and the same calibration tokens."""
        name = f"{peer} {kind}"
        if name not in self._weighed:
            place = self._llama(kind) if peer == LLAMA else self._compressor(kind)
            form: FormatName = "gguf" if peer == LLAMA else "compressed-tensors"
            self._weighed[name] = self._weigh(name, Artifact(str(place), form, "", None))
        return self._weighed[name]

    def toolkit(self, clone: Path, kinds: Sequence[str]) -> list[tuple[Weighed, Weighed]]:
        """Error-compensated k-quants of both makes, every matrix of the blocks in one type, all else in 16 bit."""
        pairs = []
        for kind in kinds:
            tokens, out = self.work / "tokens.json", self.work / f"toolkit-{kind}.safetensors"
            tokens.write_text(json.dumps(self.data.sequences), encoding="utf-8")
            told = (str(clone), str(self.trained.folder), str(tokens), kind, str(out))
            python = ROOT / ".venv" / "bin" / "python"
            self.peers.setdefault(TOOLKIT, []).append(
                run(Arm(f"{TOOLKIT} {kind}", python, "gguf_toolkit_arm.py", told))
            )
            ours = self._weigh_matrices(f"gptq, {kind} everywhere", kind, self._pure(kind))
            pairs.append((ours, self._weigh_matrices(f"{TOOLKIT} {kind}", kind, load_file(out))))
        return pairs

    def _pure(self, kind: str) -> dict[str, Tensor]:
        skeleton, quantizer, found = Skeleton(ModelFolder(self.trained.folder)), Gptq(), {}
        for block in walk_blocks(skeleton, list(self.data.batches())):
            for layer, seen in block.items():
                weight = skeleton.model.get_parameter(f"{layer}.weight")
                found[f"{layer}.weight"] = quantizer(weight, GgmlGrid(kind), seen.values).dequantized
        return found

    def _weigh_matrices(self, name: str, kind: str, matrices: Mapping[str, Tensor]) -> Weighed:
        live = LlamaForCausalLM.from_pretrained(self.trained.folder, dtype=torch.float32).eval()
        live.load_state_dict(matrices, strict=False)
        held = sum(tensor_bytes(tuple(m.shape), kind) for m in matrices.values())
        return self._say(Weighed(name, held, divergences_of(self.texts, live)))

    def _weigh(self, name: str, artifact: Artifact) -> Weighed:
        with contextlib.redirect_stdout(sys.stderr):
            sums = divergences(self.texts, artifact)
        return self._say(Weighed(name, file_bytes(Path(artifact.location)), sums))

    def _say(self, weighed: Weighed) -> Weighed:
        mean = weighed.sums.sum() / self.texts.positions.sum()
        print(f"- {self.trained.name}, {weighed.name}: {weighed.bytes} bytes, KL {mean:.5f}", flush=True)
        return weighed

    def _llama(self, kind: str) -> Path:
        folder = self.work / f"llama-{kind}"
        folder.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((self.trained.folder / name).read_bytes())
        source = build(self.trained.folder, [parse_recipe("bf16")], [], self.work / "ours")[0]
        file = next(Path(source.location).rglob("*.gguf")) if Path(source.location).is_dir() else source.location
        target = folder / f"{kind}.gguf"
        told = (str(file), str(target), kind, str(cores()), str(self._importance()))
        self.peers.setdefault(LLAMA, []).append(
            run(Arm(f"llama.cpp {kind}", ROOT / ".venv-llama" / "bin" / "python", "llama_quantize_arm.py", told))
        )
        return target

    def _importance(self) -> Path:
        """The mean square of each input of the 16-bit model over the calibration tokens, by GGUF tensor."""
        file = self.work / "importance.npz"
        if not file.exists():
            skeleton = Skeleton(ModelFolder(self.trained.folder))
            names = placed(skeleton.source.entries, skeleton.source.config)
            arrays = {}
            for block in walk_blocks(skeleton, list(self.data.batches()), frozenset({"mean_square"})):
                for layer, seen in block.items():
                    arrays[names[skeleton.stored_name(f"{layer}.weight")]] = seen.values["mean_square"].float().numpy()
            np.savez(file, **arrays)
        return file

    def _compressor(self, recipe: str) -> Path:
        tokens, out = self.work / "tokens.json", self.work / recipe.replace(":", "-")
        tokens.write_text(json.dumps(self.data.sequences), encoding="utf-8")
        told = (str(self.trained.folder), str(tokens), recipe, str(out))
        python = ROOT / ".venv-llmcompressor" / "bin" / "python"
        self.peers.setdefault(COMPRESSOR, []).append(
            run(Arm(f"llm-compressor {recipe}", python, "llmcompressor_arm.py", told))
        )
        return out


def file_bytes(place: Path) -> int:
    """Of the GGUF or safetensors files of an artifact."""
    if place.is_file():
        return place.stat().st_size
    return sum(file.stat().st_size for file in place.iterdir() if file.suffix in (".gguf", ".safetensors"))
