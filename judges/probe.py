"""The linear probe: a logistic regression on a model's hidden states over the very prompts that a model judge reads.

Its target is whether the answer listed first is correct, so a game read in both orders gives one row of each class.
The states come from a forward pass of this module, not from an engine: no server returns them, they are some thousand
numbers a prompt where the store keeps two, and every engine would need a third method for the sake of one judge. The
price is that a run whose engine holds the same model in memory holds it twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
"""Tokens of one forward pass, padding included."""
HELD_OUT = 0.25
"""Share of the stories that a probe is scored on."""


class Probe(Record):
    """A fitted probe: the model and layer that it reads, and its weights.

    Example:
        Probe(model="lab-base", layer=-1, weights=(0.12, -0.4, ...), bias=0.03, revision="9f86d081884c7d65", n=300,
              stories=75)
    """

    name: str = "probe"
    model: str
    adapter: str | None = None
    layer: int = -1
    """0 is the embedding, k the output of the k-th layer; negative numbers count from the last."""
    last: int = Field(default=1, ge=1)
    """Number of tokens at the end of the prompt that are averaged; 1 is the last token alone."""
    weights: tuple[float, ...]
    bias: float
    revision: str
    """Fingerprint of the model and adapter whose states it reads."""
    n: int
    """Prompts it was fitted on."""
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
    seed: int = 0,
) -> FittedProbe:
    """Fit a probe on three quarters of the stories and score it on the others.

    Args:
        games: finished games whose correct answers are known.
        model: lab model, folder or hub name.
        adapter: folder of a LoRA adapter of it.
        layer: see `Probe`.
        last: see `Probe`.
        seed: seed of the split.

    Raises:
        UserError: an answer is unknown, a game is there twice, there is one story only or one class only, no such
            layer, or a prompt exceeds the model's context.
    """
    correct = check_games(games)
    held_out, fitting = split_clusters([game.question.cluster for game in games], HELD_OUT, seed)
    if len({correct[place] for place in fitting}) < 2:
        raise UserError(
            "probe: in the stories to fit on the correct answer is always the same one; "
            "give games of more questions, or swap the answers of some"
        )
    prompts = []
    places = []
    targets = []
    for place, game in enumerate(games):
        for view in views(game):
            if view.after_turn is None:
                prompts.append(prompt(game, view))
                places.append(place)
                # Is the answer that is listed first correct? Both orders give one row of each class.
                targets.append(correct[place] == view.order[0])
    # The held-out games are read as well: one that is too long should be named before anything is fitted.
    states = _all_states(prompts, model, adapter, layer, last)
    rows = np.flatnonzero(np.isin(places, fitting))
    weights, bias = _regression(states[rows], np.array(targets)[rows])
    probe = Probe(
        model=model,
        adapter=adapter,
        layer=layer,
        last=last,
        weights=tuple(weights.tolist()),
        bias=bias,
        revision=_revision(model, adapter),
        n=len(rows),
        stories=len({games[place].question.cluster for place in fitting}),
    )
    tested = [games[place] for place in held_out]
    verdicts = [result for result in ask_probe(tested, probe) if isinstance(result, Verdict)]
    p_correct = [result.p[correct[place]] for result, place in zip(verdicts, held_out, strict=True)]
    return FittedProbe(probe=probe, held_out=judge_scores(p_correct, [game.question.cluster for game in tested]))


def _all_states(
    prompts: Sequence[tuple[Message, ...]], model: str, adapter: str | None, layer: int, last: int
) -> Floats:
    """Hidden states of prompts, shape (prompts, width).

    Raises:
        UserError: a prompt exceeds the model's context, or no such layer.
    """
    states = []
    for state in hidden_states(prompts, model, adapter, layer, last):
        if isinstance(state, Failure):
            raise UserError(f"probe: {state.message}; leave out the longest games")
        states.append(state)
    return np.stack(states)


def ask_probe(transcripts: Sequence[Transcript], probe: Probe) -> list[Verdict | Failure]:
    """Judge by a probe.

    Raises:
        UserError: the model is missing, or is not the one whose states the probe was fitted on.
    """
    if _revision(probe.model, probe.adapter) != probe.revision:
        raise UserError(f"probe {probe.name!r} was fitted on other weights of {probe.model}; fit it again")
    plans = [views(transcript, probe.both_orders) for transcript in transcripts]
    prompts = []
    for transcript, plan in zip(transcripts, plans, strict=True):
        prompts += [prompt(transcript, view) for view in plan]
    states = iter(hidden_states(prompts, probe.model, probe.adapter, probe.layer, probe.last))
    weights = np.array(probe.weights)
    verdicts = []
    for plan in plans:
        asks = [_ask(view, next(states), weights, probe.bias) for view in plan]
        verdicts.append(verdict(probe.name, asks, probe.calibrator, probe.revision))
    return verdicts


def _ask(view: View, state: Floats | Failure, weights: Floats, bias: float) -> Ask | Failure:
    """The probe's answer to one view."""
    if isinstance(state, Failure):
        return state
    log_odds = float(state @ weights) + bias
    if not math.isfinite(log_odds):
        return Failure(seat="judge", kind="not finite", message="the hidden states are not finite")
    # log P(the answer listed first is correct), log P(it is not); logaddexp is exact where a plain sigmoid gives 0.
    logprobs = (-float(np.logaddexp(0, -log_odds)), -float(np.logaddexp(0, log_odds)))
    if view.order == (1, 0):
        logprobs = (logprobs[1], logprobs[0])
    return Ask(sides=view.sides, order=view.order, logprobs=logprobs, after_turn=view.after_turn)


def _regression(features: Floats, targets: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Fit a logistic regression on standardised rows; return weights (width,) and bias for rows as they are."""
    from sklearn.linear_model import LogisticRegression  # here: it takes more than a second

    centre = features.mean(axis=0)
    spread = features.std(axis=0)
    # A dimension that never changes carries nothing, and must not divide by 0.
    spread = np.where(spread > 0, spread, 1.0)
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit((features - centre) / spread, targets)
    weights = fitted.coef_[0] / spread
    return weights, float(fitted.intercept_[0] - weights @ centre)


def _revision(model: str, adapter: str | None) -> str:
    """Fingerprint of a model with its adapter, the same as the engine's."""
    base = fingerprint(model_path(model))
    return base if adapter is None else digest([base, fingerprint(model_path(adapter))])


@lru_cache(maxsize=1)
def _network(path: str, adapter: str | None) -> tuple[Any, Any]:
    """Load a model with its adapter, and its tokenizer; the last one stays in memory."""
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
        prompts: prompts as an engine would encode them.
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
    states: list[Floats | Failure] = []
    for row in ids:
        message = f"prompt of {len(row)} tokens exceeds the model's {limit}"
        states.append(Failure(seat="judge", kind="context", message=message))
    # Sorted by length, so that a batch holds little padding; the longest first, to run out of memory early if at all.
    waiting = sorted((place for place, row in enumerate(ids) if len(row) <= limit), key=lambda place: len(ids[place]))
    while waiting:
        size = max(1, BATCH_TOKENS // len(ids[waiting[-1]]))
        batch = waiting[-size:]
        waiting = waiting[:-size]
        for place, state in zip(batch, _states(network, [ids[place] for place in batch], layer, last), strict=True):
            states[place] = state
    return states


def _states(network: Any, rows: Sequence[tuple[int, ...]], layer: int, last: int) -> list[Floats]:
    """States of one batch of token ids, each averaged over the row's last tokens."""
    import torch

    # Padded on the right: a causal model's tokens never see what comes after them.
    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    with torch.inference_mode():
        out = network(
            input_ids=ids.to(network.device),
            attention_mask=mask.to(network.device),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        )
    states = out.hidden_states[layer].double().cpu().numpy()
    return [states[place, max(0, len(row) - last) : len(row)].mean(axis=0) for place, row in enumerate(rows)]
