"""Log-probabilities of the tokens in the loss, without logits for the prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel
from torch import Tensor

from debate_rl.trainers.common.packing import body_of

CHOSEN, REJECTED = 1, 2
"""The part of a preference pair that a token belongs to; 0 is prompt and padding."""

_MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids")
_LOGITS_LIMIT = 256 << 20
"""Most bytes of logits that are made at once on a CPU."""


class TokenLogprobs(NamedTuple):
    """A model's log-probabilities of labelled tokens."""

    values: Tensor
    """(rows, k) log-probabilities, 0 where a row has no label."""
    columns: Tensor
    """(k,) columns of the labels that the values belong to."""
    top1: Tensor
    """(rows, k) whether the labelled token is the most probable one."""
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
    model_inputs = {name: inputs[name] for name in _MODEL_INPUTS if name in inputs} | options
    part = inputs["part"]
    labels = inputs["input_ids"].masked_fill(part == 0, -100)
    scored = token_logprobs(model, model_inputs, labels, vocabulary)
    part = part[:, scored.columns]
    chosen = part == CHOSEN
    rejected = part == REJECTED
    chosen_values = rejected_values = scored.values
    if not shared:
        # The first half of the rows holds the chosen speeches, the second the rejected ones.
        chosen_values, rejected_values = scored.values.chunk(2)
        chosen = chosen.chunk(2)[0]
        rejected = rejected.chunk(2)[1]
    # A speech has some thousand nats, of which float32 keeps four decimals: too few for their small differences.
    exact = chosen_values.dtype if chosen_values.device.type == "mps" else torch.float64
    pair = PairLogprobs(
        chosen=(chosen_values * chosen).sum(1, dtype=exact),
        rejected=(rejected_values * rejected).sum(1, dtype=exact),
        chosen_length=chosen.sum(1),
        rejected_length=rejected.sum(1),
    )
    return pair, scored.outputs


def token_logprobs(model: Any, inputs: dict[str, Tensor], labels: Tensor, vocabulary: int) -> TokenLogprobs:
    """Log-probability of each labelled token.

    On a GPU TRL's fused head scores the labelled positions in tiles. On a CPU that head scores every position, prompt
    included, and a small model spends a third of a step there. So on a CPU only the columns with a label are scored:
    by plain logits, or where these would take more than 256 MiB by TRL's head.

    Args:
        model: a causal language model that `trl.trainer.utils.add_fused_lm_head` was applied to, wrapped or not.
        inputs: its inputs.
        labels: (rows, width) token ids, -100 where a token is not in the loss.
        vocabulary: number of tokens the model knows.
    """
    columns = torch.arange(1, labels.shape[1], device=labels.device)
    if labels.device.type == "cpu":
        labelled = columns[(labels[:, 1:] != -100).any(0)]
        if 4 * labels.shape[0] * len(labelled) * vocabulary <= _LOGITS_LIMIT:
            return _by_columns(model, inputs, labels, labelled)
        return _by_fused_head(model, inputs, labels, labelled)
    outputs = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
    return TokenLogprobs(outputs.log_probs, columns, outputs.is_top1, outputs)


def _by_columns(model: Any, inputs: dict[str, Tensor], labels: Tensor, columns: Tensor) -> TokenLogprobs:
    """Log-probabilities from logits of only those columns in which some row has a label."""
    # A token is predicted one column before it.
    outputs = model(**inputs, use_cache=False, logits_to_keep=columns - 1)
    logits = outputs.logits.float()
    targets = labels[:, columns]
    labelled = targets != -100
    tokens = targets.clamp(min=0)[..., None]
    # Not log_softmax, which would make a second table of the vocabulary's size.
    values = logits.gather(2, tokens)[..., 0] - logits.logsumexp(-1)
    top1 = (logits.argmax(-1) == targets) & labelled
    return TokenLogprobs(values.masked_fill(~labelled, 0.0), columns, top1, outputs)


def _by_fused_head(model: Any, inputs: dict[str, Tensor], labels: Tensor, columns: Tensor) -> TokenLogprobs:
    """Log-probabilities by TRL's fused head of only those columns in which some row has a label."""
    _, body = body_of(extract_model_from_parallel(model))

    def select(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # A token is predicted one column before it.
        output["last_hidden_state"] = output["last_hidden_state"][:, columns - 1]
        return output

    hook = body.register_forward_hook(select)
    try:
        outputs = model(**inputs, shift_labels=labels[:, columns], use_cache=False, fused_lm_head=True)
    finally:
        hook.remove()
    return TokenLogprobs(outputs.log_probs, columns, outputs.is_top1, outputs)
