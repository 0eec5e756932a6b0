"""Make a lab model from nothing: a plain training loop over generated documents, seeded, resumable after a kill.

Four stages share the budget: repeats; recitals; clean quoting and reading; reading and quoting with annotators of every
skill. The learning rate falls over the last third. Progress is counted in tokens, so that the same seed gives the same
model on the same machine; with a budget in minutes it is counted in training time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from debate_rl.data.lab.documents import Batch, Encoder, batch
from debate_rl.data.lab.muon import Muon
from debate_rl.data.lab.tokenizer import lab_tokenizer
from debate_rl.errors import UserError, nearest
from debate_rl.records import write_json


class Shape(NamedTuple):
    """Size of a model and what it is trained with by default."""

    hidden: int
    layers: int
    heads: int
    inner: int
    tokens: int
    """Budget: tokens seen, padding included."""


SHAPES = {
    "lab-base": Shape(hidden=128, layers=4, heads=4, inner=384, tokens=17_000_000),
    "lab-small": Shape(hidden=64, layers=2, heads=4, inner=192, tokens=8_000_000),
}

STAGES: tuple[tuple[float, dict[str, int]], ...] = (
    (0.06, {"repeats": 24}),
    (0.31, {"repeats": 4, "recitals": 12, "notes": 4}),
    (0.65, {"recitals": 4, "clean": 6, "open_book": 14, "workings": 6, "notes": 4}),
    (1.00, {"broad": 8, "open_book": 16, "workings": 4, "notes": 4}),
)
"""Until which share of the budget a step reads how many rows of each kind."""

EVERY = 60.0
"""Seconds between checkpoints."""


def new_model(name: str, seed: int) -> Any:
    """A lab model with random weights.

    Raises:
        UserError: no lab model of that name.
    """
    if name not in SHAPES:
        raise UserError(f"no lab model {name!r}; {nearest(name, SHAPES)}")
    shape, tokenizer = SHAPES[name], lab_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            **special,
        )
    )
    model.generation_config = GenerationConfig(**special)
    return model


def loss_of(model: Any, rows: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learnt tokens; logits are computed for these alone."""
    device = model.device
    hidden = model.model(input_ids=rows.ids.to(device), use_cache=False).last_hidden_state
    learnt = rows.learnt[:, 1:].to(device)
    targets = rows.ids[:, 1:].to(device)[learnt]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[:, :-1][learnt]).float(), targets)


def optimizers(model: Any, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    outside = [p for name, p in model.named_parameters() if p.ndim < 2 or "embed" in name]
    return [Muon(inside, lr=lr), torch.optim.AdamW(outside, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]


def rate(progress: float, step: int) -> float:
    """Factor of the learning rate: up in 20 steps, level, and down over the last third of the budget."""
    return min(1.0, (step + 1) / 20, max(0.0, (1 - progress) / 0.35))


class Run:
    """A training run that can be put on disk and taken up again."""

    def __init__(self, name: str, out: Path, seed: int, lr: float, device: str) -> None:
        self.model = new_model(name, seed).to(device)
        self.optimizers = optimizers(self.model, lr)
        self.encoder = Encoder(lab_tokenizer())
        self.path = out.parent / f".{out.name}.build" / "checkpoint.pt"
        self.lr, self.seed, self.device = lr, seed, device
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.losses: dict[str, float] = {}

    def save(self) -> None:
        """Write a checkpoint beside its final name, then rename it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "losses": self.losses}
        state = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers], **counters}
        torch.save(state, partial)
        partial.replace(self.path)

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.losses = state["losses"]

    def advance(self, progress: float) -> None:
        """One step: a batch of each kind of the stage, their mean losses weighted by rows."""
        kinds = next(kinds for until, kinds in STAGES if progress < until)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * rate(progress, self.step)
        for kind, rows in kinds.items():
            documents = batch(kind, rows, self.seed * 1_000_003 + self.step, self.encoder)
            loss = loss_of(self.model, documents)
            (loss * rows / sum(kinds.values())).backward()
            self.tokens += documents.ids.numel()
            self.losses[kind] = 0.95 * self.losses.get(kind, loss.item()) + 0.05 * loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1


def build(
    name: str,
    out: str | Path,
    tokens: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    threads: int = 1,
    lr: float = 8e-3,
    device: str = "cpu",
) -> Path:
    """Train a lab model and write it with its tokenizer; taken up where a killed run of the same folder stopped.

    Args:
        name: `lab-base` or `lab-small`.
        out: folder of the finished model; checkpoints stand beside it in `.NAME.build` until then.
        tokens: budget in tokens seen; default by model.
        minutes: budget in minutes of training time instead; the result then depends on the machine.
        seed: of weights and documents.
        threads: torch threads; more than the free cores makes every step slower.
        lr: highest learning rate.
        device: `cpu` or `cuda`.

    Raises:
        UserError: no lab model of that name.
    """
    torch.set_num_threads(threads)
    out = Path(out)
    run = Run(name, out, seed, lr, device)
    run.resume()
    budget = tokens or SHAPES[name].tokens
    saved = run.seconds
    while (progress := run.seconds / (60 * minutes) if minutes else run.tokens / budget) < 1:
        started = time.perf_counter()
        run.advance(progress)
        run.seconds += time.perf_counter() - started
        if run.step % 50 == 0:
            shown = " ".join(f"{kind} {loss:.3f}" for kind, loss in run.losses.items())
            print(f"{name} step {run.step} tokens {run.tokens:,} minutes {run.seconds / 60:.1f} {shown}", flush=True)
        if run.seconds - saved > EVERY:
            run.save()
            saved = run.seconds
    return finish(run, out)


def finish(run: Run, out: Path) -> Path:
    """Write weights, config, tokenizer and the record of the run, each file under its final name when complete."""
    partial = run.path.parent / "model"
    run.model.to("cpu").save_pretrained(partial)
    lab_tokenizer().save_pretrained(partial)
    figures = {"seed": run.seed, "tokens": run.tokens, "steps": run.step, "minutes": round(run.seconds / 60, 1)}
    write_json(partial / "training.json", {**figures, "device": run.device, "losses": run.losses})
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(partial.iterdir()):
        file.replace(out / file.name)
    partial.rmdir()
    run.path.unlink(missing_ok=True)
    return out


def main() -> None:
    """Command line: python -m debate_rl.data.lab.build --model lab-base --out data/models/lab-base."""
    parser = argparse.ArgumentParser(description="Train a lab model from nothing.")
    parser.add_argument("--model", default="lab-base", choices=sorted(SHAPES))
    parser.add_argument("--out", default=None)
    parser.add_argument("--tokens", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    print(build(a.model, a.out or f"data/models/{a.model}", a.tokens, a.minutes, a.seed, a.threads, device=a.device))


if __name__ == "__main__":
    main()
