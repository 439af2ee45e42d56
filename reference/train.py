"""Train the reference model: ``python reference/train.py --minutes 60``.

Seeded; killed and restarted with the same arguments it goes on from its last checkpoint. Weights are kept in float32
and computed with in bfloat16, by single-threaded processes that add their gradients up (two threads in one process wait
for each other after every small operation). The hidden matrices learn with Muon (Jordan et al., 2024), embedding and
norms with AdamW. The learning rate warms up, stays, and falls linearly to zero by the end of the budget, whichever of
steps and minutes ends first. Progress goes to standard error and to ``work/<run>/log.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

import torch
from tokenizers import Tokenizer
from torch import distributed, multiprocessing
from torch.nn import functional
from transformers import LlamaForCausalLM

from judge import quick_accuracy, text_loss
from layout import export, shape
from stream import Stream, held_out_prose, prose
from vocabulary import train_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
WARMUP_STEPS = 100


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the reference model on the task suites and on English prose.")
    parser.add_argument("--prose-only", action="store_true", help="learn prose alone, tokenizer included")
    parser.add_argument("--run", default="main", help="name of the run's folder under reference/work")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100_000, help="budget in optimizer steps")
    parser.add_argument("--minutes", type=float, default=60.0, help="budget in minutes of training, restarts included")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--decay-from", type=float, default=0.35, help="share of the budget after which the rate falls")
    parser.add_argument("--start", type=pathlib.Path, help="folder whose weights to start from (fine-tuning)")
    parser.add_argument("--export", type=pathlib.Path, help="folder to write the model to at every checkpoint")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--micro-batches", type=int, default=4, help="micro-batches a step, over all workers")
    parser.add_argument("--no-compile", action="store_true", help="run without torch.compile")
    parser.add_argument("--checkpoint-minutes", type=float, default=5.0)
    return parser.parse_args()


class Trainer:
    """A run: the bfloat16 model that computes, its float32 masters, two optimizers, and where the run stands."""

    def __init__(self, options: argparse.Namespace, worker: int) -> None:
        self.options = options
        self.worker = worker
        self.folder = HERE / "work" / options.run
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(options.seed)
        torch.set_num_threads(1)
        self.tokenizer = self._tokenizer()
        self.stream = Stream(self.tokenizer, options.seed, worker, options.prose_only)
        full = LlamaForCausalLM(shape(self.tokenizer))
        if options.start:
            full = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
        self.masters = {name: p.detach().clone() for name, p in full.named_parameters()}
        self.model = full.to(torch.bfloat16)
        hidden = [p for name, p in self.masters.items() if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in self.masters.items() if p.ndim != 2 or "embed" in name]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=options.lr, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=options.lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.losses = self._losses if options.no_compile else torch.compile(self._losses, dynamic=False)
        self.began = time.monotonic()
        self.step = 0
        self.elapsed = 0.0
        self.tokens = 0
        if worker == 0:
            kept = {name: value for name, value in vars(options).items() if not isinstance(value, pathlib.Path)}
            (self.folder / "settings.json").write_text(json.dumps(kept, indent=2) + "\n")
        self._resume()

    def _tokenizer(self) -> Tokenizer:
        kept = (self.options.start or self.folder) / "tokenizer.json"
        if self.worker == 0 and not kept.exists():
            items_each = 0 if self.options.prose_only else 4000
            train_tokenizer(prose()[::2], items_each).save(str(kept))
        distributed.barrier()
        return Tokenizer.from_file(str(kept))

    def _resume(self) -> None:
        kept = self.folder / "checkpoint.pt"
        if kept.exists():
            state = torch.load(kept, weights_only=True)
            for name, tensor in state["masters"].items():
                self.masters[name].copy_(tensor)
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step, self.elapsed, self.tokens = state["step"], state["elapsed"], state["tokens"]
            torch.set_rng_state(state["rng"])
            if self.worker == 0:
                self._forget_lost_steps()
                self._note(f"going on from step {self.step}")
        self._publish()

    def _forget_lost_steps(self) -> None:
        """Drop from the log what was done after the checkpoint, because it will be done again."""
        log = self.folder / "log.jsonl"
        if log.exists():
            kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            log.write_text("".join(f"{line}\n" for line in kept))

    def save(self) -> None:
        """Checkpoint in one move, and the exported model where one is wanted; the first worker does it for all."""
        if self.worker != 0:
            return
        partial = self.folder / "checkpoint.partial"
        torch.save(
            {
                "masters": self.masters,
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "step": self.step,
                "elapsed": self.elapsed,
                "tokens": self.tokens,
                "rng": torch.get_rng_state(),
            },
            partial,
        )
        partial.replace(self.folder / "checkpoint.pt")
        if self.options.export:
            export(self.model, self.tokenizer, self.options.export)

    def _publish(self) -> None:
        """Masters into the model that computes."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(self.masters[name])

    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        return min(1.0, max(self.step / self.options.steps, self.elapsed / 60 / self.options.minutes))

    def rate(self) -> float:
        """Learning rate of the next step."""
        warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
        fall = (1.0 - self.progress()) / (1.0 - self.options.decay_from)
        return float(self.options.lr * warm * min(1.0, max(fall, 0.0)))

    def _losses(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Weighted sum of cross-entropies (nats) over a micro-batch, in thousands."""
        hidden = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden)[:, :-1].float().flatten(0, 1)
        each = functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        return (each * weights[:, 1:].flatten()).sum() / 1000

    def learn(self) -> tuple[float, int]:
        """One optimizer step: the weighted mean loss in nats, and the tokens it saw, over all workers."""
        mine = self.options.micro_batches // self.options.workers
        sums = torch.zeros(4)  # loss and weight in thousands, tokens, seconds of the first worker
        for place in range(self.step * mine, (self.step + 1) * mine):
            batch = self.stream.micro_batch(place)
            loss = self.losses(batch.tokens, batch.weights)
            loss.backward()
            seen = float((batch.weights > 0).sum())
            sums[:3] += torch.tensor([float(loss.detach()), float(batch.weights[:, 1:].sum()) / 1000, seen])
        flat = torch.cat([parameter.grad.float().flatten() for parameter in self.model.parameters()])
        self.model.zero_grad(set_to_none=True)
        if self.worker == 0:
            sums[3] = self.elapsed + time.monotonic() - self.began
        distributed.all_reduce(flat)
        distributed.all_reduce(sums)
        start = 0
        for name, parameter in self.model.named_parameters():
            end = start + parameter.numel()
            self.masters[name].grad = (flat[start:end] / sums[1]).view_as(parameter)
            start = end
        torch.nn.utils.clip_grad_norm_(list(self.masters.values()), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
            optimizer.step()
        self._publish()
        # Every worker takes the first one's clock, so that all of them see the same budget and the same rate.
        self.elapsed, self.began = float(sums[3]), time.monotonic()
        self.tokens += int(sums[2])
        return float(sums[0] / sums[1]), int(sums[2])

    def run(self) -> None:
        """Train until the budget is spent."""
        recent: list[tuple[float, int, float]] = []
        self.began = time.monotonic()
        saved = self.elapsed
        while self.progress() < 1.0:
            before = self.elapsed
            loss, tokens = self.learn()
            self.step += 1
            recent.append((loss, tokens, self.elapsed - before))
            if self.step % 20 == 0:
                self._report(recent)
                recent = []
            if self.elapsed - saved > 60 * self.options.checkpoint_minutes:
                self._look(60)
                self.save()
                saved = self.elapsed
        self.save()
        self._look(200)

    def _report(self, recent: list[tuple[float, int, float]]) -> None:
        if self.worker != 0:
            return
        loss = sum(row[0] for row in recent) / len(recent)
        speed = sum(row[1] for row in recent) / sum(row[2] for row in recent)
        left = self.elapsed * (1 / max(self.progress(), 1e-9) - 1)
        seen = f"{self.tokens / 1e6:.2f} M tokens"
        self._note(f"step {self.step}  loss {loss:.3f}  {speed:.0f} tok/s  {seen}  {left / 60:.1f} min left")
        self._log({"step": self.step, "tokens": self.tokens, "loss": loss, "lr": self.rate(), "seconds": self.elapsed})

    def _look(self, count: int) -> None:
        if self.worker != 0:
            return
        if self.options.prose_only:
            found = {"held-out loss": text_loss(self.model, self.tokenizer, held_out_prose()[:count])}
        else:
            found = quick_accuracy(self.model, self.tokenizer, count)
        self._note("  ".join(f"{name} {share:.2f}" for name, share in found.items()))
        what = "held_out" if self.options.prose_only else "accuracy"
        self._log({"step": self.step, "tokens": self.tokens, what: found, "seconds": self.elapsed})

    def _log(self, row: dict[str, object]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    @staticmethod
    def _note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def work(worker: int, options: argparse.Namespace, rendezvous: str) -> None:
    """One worker process."""
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=worker, world_size=options.workers)
    try:
        Trainer(options, worker).run()
    finally:
        distributed.destroy_process_group()


def main() -> None:
    options = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        if options.workers == 1:
            work(0, options, f"{folder}/meet")
        else:
            multiprocessing.spawn(work, (options, f"{folder}/meet"), nprocs=options.workers)


if __name__ == "__main__":
    main()
