"""Checks that a model can read its texts whole, so that none is cut or left out silently."""

from __future__ import annotations

from collections.abc import Iterable

from debate_rl.engines.load import context_of, load_config
from debate_rl.engines.weights import check_weights
from debate_rl.errors import UserError
from debate_rl.weak_to_strong.tasks.items import Sample, token_counter


def context_length(model: str) -> int | None:
    """Context of a model in tokens; None where its config does not say.

    Raises:
        UserError: no such model.
    """
    check_weights(model)
    return context_of(load_config(model))


def check_readable(samples: Iterable[Sample], model: str, what: str) -> None:
    """Check that a model can read all samples whole.

    Args:
        samples: samples of all parts.
        model: folder or hub name.
        what: owner of the samples, for the message.

    Raises:
        UserError: some are longer than the model's context.
    """
    limit = context_length(model)
    if limit is None:
        return
    from debate_rl.trainers.common.load import load_tokenizer  # here: it takes seconds to load

    count = token_counter(load_tokenizer(model))
    lengths = [count(sample) for sample in samples]
    too_long = [length for length in lengths if length > limit]
    if too_long:
        raise UserError(
            f"weak-to-strong: {len(too_long)} of {len(lengths)} texts of {what} are longer than the {limit} tokens "
            f"that {model} reads (the longest has {max(too_long)}); take a model with a longer context, or shorter "
            "items, turns or speeches (protocol.max_new_tokens)"
        )
