"""Log-probabilities of the tokens in the loss, without logits for the prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHOSEN, REJECTED = 1, 2
"""What a token of a row of a preference pair belongs to; 0 is prompt and padding."""

_READ = ("input_ids", "attention_mask", "position_ids")
_ROOM = 256 << 20


class TokenLogprobs(NamedTuple):
    """What a model gives to labelled tokens."""

    values: Tensor
    """(rows, k) log-probabilities, 0 where a row has no label."""
    columns: Tensor
    """(k,) columns of the labels that the values belong to."""
    top1: Tensor
    """(rows, k) whether the labelled token is the likeliest."""
    outputs: Any
    """The model's own output."""


class PairLogprobs(NamedTuple):
    """Summed log-probabilities (pairs,) of the speeches of each pair, and their token counts."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    rejected_length: Tensor


def pair_logprobs(
    model: Any, inputs: dict[str, Tensor], vocabulary: int, shared: bool, **options: Any
) -> tuple[PairLogprobs, Any]:
    """Log-probabilities of the speeches of a batch of pairs, and the model's outputs.

    Args:
        model: see `token_logprobs`.
        inputs: a batch of `debate_rl.trainers.common.pairs.PairCollator`.
        vocabulary: number of tokens the model knows.
        shared: whether both speeches of a pair stand in one row; else the rows of chosen speeches come first.
        options: further arguments of the model.
    """
    reads = {name: inputs[name] for name in _READ if name in inputs} | options
    part = inputs["part"]
    found = token_logprobs(model, reads, inputs["input_ids"].masked_fill(part == 0, -100), vocabulary)
    part = part[:, found.columns]
    values: tuple[Tensor, ...] = (found.values, found.values)
    won, lost = part == CHOSEN, part == REJECTED
    if not shared:
        values, won, lost = found.values.chunk(2), won.chunk(2)[0], lost.chunk(2)[1]
    # A speech has some thousand nats, of which float32 keeps four decimals: too few for their small differences.
    exact = values[0].dtype if values[0].device.type == "mps" else torch.float64
    sums = (values[0] * won).sum(1, dtype=exact), (values[1] * lost).sum(1, dtype=exact)
    return PairLogprobs(*sums, won.sum(1), lost.sum(1)), found.outputs


def token_logprobs(model: Any, inputs: dict[str, Tensor], labels: Tensor, vocabulary: int) -> TokenLogprobs:
    """Log-probability of each labelled token.

    On a GPU TRL's fused head scores the labelled positions in tiles. On a CPU that head scores every position, prompt
    included, and a small model spends a third of a step there; so logits are made for the columns with a label only,
    where they fit in 256 MiB.

    Args:
        model: a causal language model that `trl.trainer.utils.add_fused_lm_head` was applied to, wrapped or not.
        inputs: what it reads.
        labels: (rows, width) token ids, -100 where a token is not in the loss.
        vocabulary: number of tokens the model knows.
    """
    columns = torch.arange(1, labels.shape[1], device=labels.device)
    if labels.device.type == "cpu":
        labelled = columns[(labels[:, 1:] != -100).any(0)]
        if 4 * labels.shape[0] * len(labelled) * vocabulary <= _ROOM:
            return _by_columns(model, inputs, labels, labelled)
    outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
    return TokenLogprobs(outputs.log_probs, columns, outputs.is_top1, outputs)


def _by_columns(model: Any, inputs: dict[str, Tensor], labels: Tensor, columns: Tensor) -> TokenLogprobs:
    """Make logits where some row has a label: one column before it."""
    outputs = model(**inputs, use_cache=False, logits_to_keep=columns - 1)
    logits, wanted = outputs.logits.float(), labels[:, columns]
    seen = wanted != -100
    tokens = wanted.clamp(min=0)[..., None]
    values = (logits.gather(2, tokens)[..., 0] - logits.logsumexp(-1)).masked_fill(~seen, 0.0)
    return TokenLogprobs(values, columns, (logits.argmax(-1) == wanted) & seen, outputs)
