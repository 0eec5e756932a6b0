"""Whether a model can read whole what it is given: none is cut or left out in silence."""

from __future__ import annotations

from collections.abc import Iterable

from debate_rl.engines.load import context_of, load_config
from debate_rl.engines.weights import check_weights
from debate_rl.errors import UserError
from debate_rl.weak_to_strong.tasks.items import Sample, token_counter


def context_length(model: str) -> int | None:
    """Tokens that a model reads; None where its config does not say.

    Raises:
        UserError: no such model.
    """
    check_weights(model)
    return context_of(load_config(model))


def check_readable(samples: Iterable[Sample], model: str, what: str) -> None:
    """Make sure that a model can read all samples.

    Args:
        samples: of all parts.
        model: folder or hub name.
        what: whose samples these are, for the message.

    Raises:
        UserError: some are longer than the model's context.
    """
    limit = context_length(model)
    if limit is None:
        return
    from debate_rl.trainers.common.load import load_tokenizer

    count = token_counter(load_tokenizer(model))
    lengths = [count(sample) for sample in samples]
    over = [length for length in lengths if length > limit]
    if over:
        raise UserError(
            f"weak-to-strong: {len(over)} of {len(lengths)} texts of {what} are longer than the {limit} tokens that "
            f"{model} reads (the longest has {max(over)}); take a model with a longer context, or shorter items, turns "
            "or speeches (protocol.max_new_tokens)"
        )
