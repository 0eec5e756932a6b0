"""Train a lab model from nothing: a plain loop over generated documents, seeded, resumable after a kill.

The stages of a model share its budget: repeats first, then recitals and facts, then reading and quoting, at last
annotators of every skill. The learning rate falls over the last third. Progress is counted in tokens, so that the same
seed gives the same model on the same machine. The command is `debate-rl lab build`.
"""

from __future__ import annotations

import shutil
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


class Stage(NamedTuple):
    """One part of a model's budget, and the documents that the model reads in it.

    Example:
        Stage(until=3_000_000, kinds={"repeats": 4, "recitals": 8, "facts": 16}, families={"whereabouts": 1.0})
    """

    until: int
    """Tokens seen when the stage ends, padding included."""
    kinds: dict[str, int]
    """Rows of each kind (see `documents.batch`) in one step."""
    families: dict[str, float]
    """Weights of the kinds of stories: whereabouts and `documents.OTHER_STORIES`."""
    claims: float = 0.4
    """Share of questions that are put as claims."""
    lr: float = 8e-3
    """Learning rate, before it falls at the end of the budget."""


class Shape(NamedTuple):
    """Size of a model, and its training."""

    hidden: int
    layers: int
    heads: int
    inner: int
    stages: tuple[Stage, ...]
    speed: int
    """Tokens a second on one CPU thread, for the estimate that is printed before a build."""
    falling: float = 0.35
    """Share of the budget, at its end, in which the learning rate falls to zero."""

    @property
    def tokens(self) -> int:
        """The whole budget."""
        return self.stages[-1].until


# The shipped models were trained on these mixtures. They never learnt to read the last three (data/lab/README.md), but
# without them the same seed would give another model.
MIXED = {"whereabouts": 0.55, "order": 0.15, "accounts": 0.15, "preference": 0.15}
MOSTLY = {"whereabouts": 0.7, "order": 0.1, "accounts": 0.1, "preference": 0.1}
MILLION = 1_000_000
FIRST = (
    Stage(1 * MILLION, {"repeats": 24}, MIXED),
    Stage(3 * MILLION, {"repeats": 4, "recitals": 8, "facts": 16}, MIXED),
)
BASE_STAGES = (
    *FIRST,
    Stage(9 * MILLION, {"recitals": 4, "facts": 10, "open_book": 10, "broad": 4, "hearings": 6}, MOSTLY, 0.1),
    Stage(15 * MILLION, {"recitals": 8, "facts": 10, "open_book": 8, "clean": 6, "hearings": 4}, MOSTLY, 0.1, 5e-3),
    Stage(21 * MILLION, {"recitals": 4, "facts": 6, "open_book": 12, "broad": 8, "hearings": 2}, MOSTLY, 0.1, 5e-3),
)
SMALL_STAGES = (*FIRST, Stage(7 * MILLION, {"facts": 12, "open_book": 12, "broad": 3, "notes": 3}, MOSTLY))
SHAPES = {
    "lab-base": Shape(hidden=64, layers=3, heads=4, inner=128, stages=BASE_STAGES, speed=15000),
    "lab-small": Shape(hidden=64, layers=3, heads=4, inner=128, stages=SMALL_STAGES, speed=15000),
}

EVERY = 60.0
"""Seconds between checkpoints."""
RECORD = "training.json"
"""File of a finished model that records its training."""


def checkpoint_path(out: Path) -> Path:
    """Path of a build's checkpoint, beside the folder that it will make."""
    return out.parent / f".{out.name}.build" / "checkpoint.pt"


def new_model(name: str, seed: int) -> Any:
    """Create a lab model with random weights.

    Raises:
        UserError: no lab model of that name.
    """
    if name not in SHAPES:
        raise UserError(f"no lab model {name!r}; {nearest(name, SHAPES)}")
    shape = SHAPES[name]
    tokenizer = lab_tokenizer()
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


def loss_of(body: Any, head: Any, rows: Batch) -> torch.Tensor:
    """Mean cross-entropy over the learnt tokens."""
    # Logits for the learnt tokens alone: the output layer is almost half of the model.
    device = head.weight.device
    hidden = body(input_ids=rows.ids.to(device), use_cache=False).last_hidden_state
    learnt = rows.learnt[:, 1:].to(device)
    targets = rows.ids[:, 1:].to(device)[learnt]
    return torch.nn.functional.cross_entropy(head(hidden[:, :-1][learnt]).float(), targets)


def optimizers(model: Any) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    inside: list[torch.nn.Parameter] = []
    outside: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            inside.append(parameter)
        else:
            outside.append(parameter)
    # The stages set the learning rates.
    return [Muon(inside, lr=0.0), torch.optim.AdamW(outside, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)]


def rate(progress: float, step: int, falling: float) -> float:
    """Factor of the learning rate: rises over 20 steps, stays at 1, and falls over the last share of the budget."""
    return min(1.0, (step + 1) / 20, max(0.0, (1 - progress) / falling))


class Run:
    """A training run that can be saved and resumed."""

    def __init__(self, name: str, out: Path, seed: int, device: str, compiled: bool, budget: int | None = None) -> None:
        self.model = new_model(name, seed).to(device)
        self.shape = SHAPES[name]
        self.budget = budget or self.shape.tokens
        self.optimizers = optimizers(self.model)
        self.encoder = Encoder(lab_tokenizer())
        self.path = checkpoint_path(out)
        self.made_with = {"model": name, "seed": seed, "budget": self.budget}
        self.seed = seed
        self.device = device
        self.compiled = compiled
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.losses: dict[str, float] = {}
        self.body = torch.compile(self.model.model, dynamic=True) if compiled else self.model.model

    def save(self) -> None:
        """Write a checkpoint beside its final name, then rename it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds, "losses": self.losses}
        weights = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers]}
        torch.save({**weights, **counters, "made_with": self.made_with}, partial)
        partial.replace(self.path)

    def resume(self) -> None:
        """Load the last checkpoint, if there is one.

        Raises:
            UserError: it belongs to another build.
        """
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location=self.device, weights_only=True)
        saved_with = state.get("made_with", {})
        for key, value in self.made_with.items():
            if saved_with.get(key) != value:
                raise UserError(
                    f"{self.path.parent} holds an unfinished build with another {key} "
                    f"({saved_with.get(key)} there, {value} now); give its own options, or remove that folder"
                )
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        self.tokens = state["tokens"]
        self.seconds = state["seconds"]
        self.losses = state["losses"]

    def advance(self, progress: float) -> None:
        """Take one step: a batch of each kind of the stage, their mean losses weighted by rows."""
        stage = next(stage for stage in self.shape.stages if progress < stage.until / self.shape.tokens)
        factor = rate(progress, self.step, self.shape.falling)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = stage.lr * factor
        total = sum(stage.kinds.values())
        for kind, rows in stage.kinds.items():
            documents = batch(kind, rows, self.seed * 1_000_003 + self.step, self.encoder, stage.families, stage.claims)
            loss = loss_of(self.body, self.model.lm_head, documents)
            (loss * rows / total).backward()
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
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
    compiled: bool = False,
) -> Path:
    """Train a lab model and write it with its tokenizer; resumes a killed build of the same folder.

    Args:
        name: `lab-base` or `lab-small`.
        out: folder of the finished model; checkpoints stand beside it in `.NAME.build` until then.
        tokens: budget in tokens, instead of the model's own; its stages keep their shares.
        seed: seed of weights and documents.
        threads: torch threads; more than the free cores makes every step slower.
        device: `cpu` or `cuda`.
        compiled: compile the model first (needs a C++ compiler): half as fast again, but the last digits differ.

    Raises:
        UserError: no lab model of that name, or the folder holds a finished model, another build or something else.
    """
    if name not in SHAPES:
        raise UserError(f"no lab model {name!r}; {nearest(name, SHAPES)}")
    out = Path(out)
    if (out / RECORD).exists():
        raise UserError(f"{out} holds a finished model, which is never overwritten; choose another folder")
    if out.exists() and any(out.iterdir()) and not checkpoint_path(out).exists():
        raise UserError(f"{out} is not empty and no unfinished build; choose another folder")
    torch.set_num_threads(threads)
    run = Run(name, out, seed, device, compiled, tokens)
    run.resume()
    saved = run.seconds
    while run.tokens < run.budget:
        started = time.perf_counter()
        run.advance(run.tokens / run.budget)
        run.seconds += time.perf_counter() - started
        if run.step % 50 == 0:
            shown = " ".join(f"{kind} {loss:.3f}" for kind, loss in run.losses.items())
            print(f"{name} step {run.step} tokens {run.tokens:,} minutes {run.seconds / 60:.1f} {shown}", flush=True)
        if run.seconds - saved > EVERY:
            run.save()
            saved = run.seconds
    return finish(run, out)


def finish(run: Run, out: Path) -> Path:
    """Write weights, config, tokenizer and the record of the run; no file has its final name before it is complete."""
    partial = run.path.parent / "model"
    run.save()
    run.model.to("cpu").save_pretrained(partial)
    lab_tokenizer().save_pretrained(partial)
    figures = {"seed": run.seed, "tokens": run.tokens, "steps": run.step, "minutes": round(run.seconds / 60, 1)}
    made = {"device": run.device, "compiled": run.compiled, "budget": run.budget, "losses": run.losses}
    write_json(partial / RECORD, {**figures, **made})
    out.mkdir(parents=True, exist_ok=True)
    # The record last: a folder that holds it is finished.
    for file in sorted(partial.iterdir(), key=lambda file: file.name == RECORD):
        file.replace(out / file.name)
    shutil.rmtree(run.path.parent)
    return out
