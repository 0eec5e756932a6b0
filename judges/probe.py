"""The linear probe: a logistic regression on a model's hidden states over the very prompts that a model judge reads.

Its target is whether the answer listed first is correct, so a game read in both orders gives one row of each class.
The states come from a forward pass of this module, not from an engine: no server gives them, they are some thousand
numbers a prompt where the store keeps two, and a third verb would bind every engine to what one judge needs. The price
is that a run whose engine holds the same model in memory holds it twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from debate_rl.data.models import model_path
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.load import context_of, load_adapter, load_network, load_tokenizer
from debate_rl.engines.request import Message
from debate_rl.engines.weights import check_adapter, check_weights, fingerprint
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Ask, Failure, Verdict
from debate_rl.intervals import Floats
from debate_rl.judges.calibration import Calibrator, split_clusters
from debate_rl.judges.check import check_games
from debate_rl.judges.presentation import View, prompt, verdict, views
from debate_rl.judges.scores import JudgeScores, judge_scores
from debate_rl.records import Record, digest, read_kept, write_json

BATCH_TOKENS = 8192


class Probe(Record):
    """A fitted probe: where it reads, and its weights.

    Example:
        Probe(model="lab-base", layer=-1, weights=(0.12, -0.4, ...), bias=0.03, revision="9f86d081884c7d65", n=300,
              stories=75)
    """

    name: str = "probe"
    model: str
    adapter: str | None = None
    layer: int = -1
    """0 is the embedding, k the output of the k-th layer; negative counts from the last."""
    last: int = Field(default=1, ge=1)
    """Mean over the prompt's last so many tokens; 1 is the last token alone."""
    weights: tuple[float, ...]
    bias: float
    revision: str
    """Fingerprint of the model and adapter whose states it reads."""
    n: int
    """Rows it was fitted on."""
    stories: int
    both_orders: bool = True
    calibrator: Calibrator | None = None


class FittedProbe(Record):
    """A probe with its scores on stories that it was not fitted on.

    Example:
        FittedProbe(probe=Probe(...), held_out=JudgeScores(...))
    """

    probe: Probe
    held_out: JudgeScores


def save_probe(path: str | Path, probe: Probe) -> None:
    """Write a probe as JSON.

    Raises:
        UserError: it can not be written.
    """
    write_json(path, probe.model_dump(mode="json"))


def load_probe(path: str | Path) -> Probe:
    """Read a probe.

    Raises:
        UserError: the file is missing or holds no probe.
    """
    return read_kept(path, Probe, "fit one with debate-rl judge probe")


def fit_probe(
    games: Sequence[Transcript],
    model: str,
    adapter: str | None = None,
    *,
    layer: int = -1,
    last: int = 1,
    strength: float = 1.0,
    both_orders: bool = True,
    share: float = 0.25,
    seed: int = 0,
) -> FittedProbe:
    """Fit a probe on some stories and score it on the others.

    Args:
        games: finished games whose correct answers are known.
        model: lab model, folder or hub name.
        adapter: folder of a LoRA adapter of it.
        layer: see `Probe`.
        last: see `Probe`.
        strength: inverse of the L2 penalty on standardised states, the `C` of scikit-learn.
        both_orders: read each game in both presentation orders.
        share: of the stories, held out.
        seed: of the split.

    Raises:
        UserError: an answer is unknown, a game is there twice, there is one story only or one class only, no such
            layer, or a prompt exceeds the model's context.
    """
    correct = check_games(games)
    held_out, kept = split_clusters([game.question.cluster for game in games], share, seed)
    if len({correct[at] for at in kept}) < 2:
        raise UserError(
            "probe: in the stories to fit on the correct answer is always the same one; "
            "give games of more questions, or swap the answers of some"
        )
    rows = [(at, view) for at in range(len(games)) for view in _final(games[at], both_orders)]
    states = hidden_states([prompt(games[at], view) for at, view in rows], model, adapter, layer, last)
    too_long = next((one for one in states if isinstance(one, Failure)), None)
    if too_long is not None:
        raise UserError(f"probe: {too_long.message}; leave out the longest games")
    fitting = set(kept.tolist())
    chosen = [index for index, (at, _) in enumerate(rows) if at in fitting]
    features = np.stack([one for one in states if not isinstance(one, Failure)])
    first = np.array([correct[at] == view.order[0] for at, view in rows])
    weights, bias = _regression(features[chosen], first[chosen], strength)
    probe = Probe(
        model=model, adapter=adapter, layer=layer, last=last, weights=tuple(weights.tolist()), bias=bias,
        revision=_revision(model, adapter), n=len(chosen), both_orders=both_orders,
        stories=len({games[at].question.cluster for at in fitting}),
    )  # fmt: skip
    tested = [games[at] for at in held_out]
    found = [one for one in ask_probe(tested, probe) if isinstance(one, Verdict)]
    p = [one.p[correct[at]] for one, at in zip(found, held_out, strict=True)]
    return FittedProbe(probe=probe, held_out=judge_scores(p, [game.question.cluster for game in tested]))


def ask_probe(transcripts: Sequence[Transcript], probe: Probe) -> list[Verdict | Failure]:
    """Judge by a probe.

    Raises:
        UserError: the model is missing, or is not the one whose states the probe was fitted on.
    """
    if _revision(probe.model, probe.adapter) != probe.revision:
        raise UserError(f"probe {probe.name!r} was fitted on other weights of {probe.model}; fit it again")
    plans = [views(transcript, probe.both_orders) for transcript in transcripts]
    prompts = [prompt(game, view) for game, plan in zip(transcripts, plans, strict=True) for view in plan]
    states = iter(hidden_states(prompts, probe.model, probe.adapter, probe.layer, probe.last))
    weights = np.array(probe.weights)
    asked = [[_ask(view, next(states), weights, probe.bias) for view in plan] for plan in plans]
    return [verdict(probe.name, asks, probe.calibrator, probe.revision) for asks in asked]


def _final(game: Transcript, both_orders: bool) -> list[View]:
    """What is asked at the end of a game."""
    return [view for view in views(game, both_orders) if view.after_turn is None]


def _ask(view: View, state: Floats | Failure, weights: Floats, bias: float) -> Ask | Failure:
    """What the probe answers to one view."""
    if isinstance(state, Failure):
        return state
    z = float(state @ weights) + bias
    if not math.isfinite(z):
        return Failure(seat="judge", kind="not finite", message="the hidden states are not finite")
    first = (
        -float(np.logaddexp(0, -z)),
        -float(np.logaddexp(0, z)),
    )  # log P(the answer listed first is correct or not)
    logprobs = first if view.order == (0, 1) else (first[1], first[0])
    return Ask(sides=view.sides, order=view.order, logprobs=logprobs, after_turn=view.after_turn)


def _regression(features: Floats, first: Any, strength: float) -> tuple[Floats, float]:
    """Weights (width,) and bias of a logistic regression on standardised rows, for rows as they are."""
    from sklearn.linear_model import LogisticRegression  # here: it takes more than a second

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    fitted = LogisticRegression(C=strength, max_iter=2000).fit((features - centre) / spread, first)
    weights = fitted.coef_[0] / spread
    return weights, float(fitted.intercept_[0] - weights @ centre)


def _revision(model: str, adapter: str | None) -> str:
    """Fingerprint of a model with its adapter, as the engine gives it."""
    base = fingerprint(model_path(model))
    return base if adapter is None else digest([base, fingerprint(model_path(adapter))])


@lru_cache(maxsize=1)
def _network(path: str, adapter: str | None) -> tuple[Any, Any]:
    """A model with its adapter, and its tokenizer; the last one stays in memory."""
    import torch
    from transformers import AutoModelForCausalLM

    check_weights(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    network = load_network(AutoModelForCausalLM, path, dtype)
    if adapter is not None:
        check_adapter(path, adapter)
        network = load_adapter(network, adapter, "default")
    return network.to(device).eval().requires_grad_(False), load_tokenizer(path)


def hidden_states(
    prompts: Sequence[tuple[Message, ...]], model: str, adapter: str | None, layer: int, last: int
) -> list[Floats | Failure]:
    """Hidden state of each prompt at a layer, averaged over its last tokens.

    Args:
        prompts: as an engine would encode them.
        model: lab model, folder or hub name.
        adapter: folder of a LoRA adapter.
        layer: see `Probe`.
        last: see `Probe`.

    Returns:
        For each prompt (width,) floats, or a failure where it exceeds the model's context.

    Raises:
        UserError: the model can not be loaded, or has no such layer.
    """
    network, tokenizer = _network(model_path(model), None if adapter is None else model_path(adapter))
    config = network.config.get_text_config()
    layers = config.num_hidden_layers
    if not -layers - 1 <= layer <= layers:
        raise UserError(
            f"probe: {model} has no layer {layer}; choose 0 (the embedding) to {layers}, or -1 for the last"
        )
    limit = context_of(config) or 1 << 30
    ids = [prompt_ids(tokenizer, messages) for messages in prompts]
    found: list[Floats | Failure] = [
        Failure(seat="judge", kind="context", message=f"prompt of {len(one)} tokens exceeds the model's {limit}")
        for one in ids
    ]
    fits = sorted((at for at, one in enumerate(ids) if len(one) <= limit), key=lambda at: len(ids[at]))
    while fits:
        size = max(1, BATCH_TOKENS // len(ids[fits[-1]]))
        batch, fits = fits[-size:], fits[:-size]
        for at, state in zip(batch, _states(network, [ids[at] for at in batch], layer, last), strict=True):
            found[at] = state
    return found


def _states(network: Any, rows: Sequence[tuple[int, ...]], layer: int, last: int) -> list[Floats]:
    """States of one batch, padded on the right: what stands before the padding never sees it."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=network.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=network.device)
    with torch.inference_mode():
        out = network(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    states = out.hidden_states[layer].double().cpu().numpy()
    return [states[at, max(0, len(row) - last) : len(row)].mean(axis=0) for at, row in enumerate(rows)]
