"""The two trained models that quality is measured on, with texts to calibrate on and texts to measure on, kept apart.

The reference model ships with the package. The second one has the same shape and is trained on prose alone by the same
program; its weights are not kept in the repository, so it is trained where it is missing, which takes ten minutes of a
quiet core and the prose that reference/stream.py names (QUANTWISE_DATA).
"""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from quantwise.chat import ChatTemplate
from quantwise.core.item import Message
from quantwise.models.reference import path as reference_path
from quantwise.question.pose import rendering
from quantwise.tasks import SUITES
from quantwise.tasks.calibration import CalibrationSet, gathered
from quantwise.tasks.prose import held_out_text
from quantwise.tasks.suite import solved_items

ROOT = Path(__file__).resolve().parent.parent
PROSE_MODEL = ROOT / "reference" / "work" / "prose" / "model"
STEPS = 600
# Texts of each suite and of generated prose; documents of the novel.
HELD_OUT_EACH, HELD_OUT_DOCUMENTS, CALIBRATION_DOCUMENTS = 20, 96, 400


@dataclass(frozen=True, slots=True)
class Trained:
    """A model folder; ``about`` says what it is, and what its texts are."""

    name: str
    folder: Path
    calibration: list[str]
    held_out: list[str]
    about: str


def reference_model() -> Trained:
    """The reference model: calibrated as ``quantwise build`` does, measured on the screening split."""
    folder = reference_path()
    template = ChatTemplate.from_folder(folder)
    assert template is not None
    texts = held_out_text("screen", HELD_OUT_EACH)
    for suite in SUITES:
        for item, answer in solved_items(suite, "screen", HELD_OUT_EACH):
            turns = (*item.messages, Message("assistant", answer))
            texts.append(template.render(turns, add_generation_prompt=False))
    about = (
        "The model that ships with the package, trained on the eight suites and on prose. Calibration: solved items of "
        "the suites' calibration split and generated prose; measured on both from the screening split."
    )
    return Trained("reference", folder, gathered(CalibrationSet(), rendering(template)), texts, about)


def prose_model(seed: int = 0) -> Trained:
    """The model of prose, trained first where it is missing."""
    if not (PROSE_MODEL / "config.json").exists():
        _train()
    sys.path.insert(0, str(ROOT / "reference"))
    from stream import held_out_prose, prose

    draw = random.Random(seed)
    about = (
        "The same shape, trained by the same program on prose alone (TinyStories and War and Peace without its last "
        f"tenth) for {STEPS} steps. Calibration: {CALIBRATION_DOCUMENTS} documents of its training "
        "text; measured on the last tenth of War and Peace, which it has not seen."
    )
    held_out = draw.sample(held_out_prose(), HELD_OUT_DOCUMENTS)
    return Trained("prose", PROSE_MODEL, draw.sample(prose(), CALIBRATION_DOCUMENTS), held_out, about)


def _train() -> None:
    print(f"training the model of prose: {STEPS} steps, about ten minutes", file=sys.stderr, flush=True)
    command = [sys.executable, str(ROOT / "reference" / "train.py"), "--prose-only", "--run", "prose"]
    command += [
        "--steps",
        str(STEPS),
        "--minutes",
        "240",
        "--workers",
        "1",
        "--micro-batches",
        "2",
        "--export",
        str(PROSE_MODEL),
    ]
    subprocess.run(command, check=True)
