"""Drawing tokens with a random stream per request, and log-probabilities of given ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from debate_rl.engines.local.prefix import Row
from debate_rl.engines.request import Sampling

_TOGETHER = 256
"""Rows of the vocabulary in double precision at once."""
BROKEN = -1
"""Drawn in place of a token where the logits are no numbers: the weights are damaged, or too large for their type."""


class Continued(Protocol):
    """Rows that are being continued."""

    logits: torch.Tensor
    """(rows, vocabulary) at the last token of each."""

    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add a token to each row that goes on (indexes among the rows of the step before; None is all)."""
        ...


class Alone:
    """One row in transformers' own cache: for models whose layers do not all attend to everything before them.

    Args:
        model: a causal language model of transformers.
        row: what to encode.
    """

    def __init__(self, model: Any, row: Row) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self.logits = self._forward(torch.tensor(row.tokens, device=model.device), row.keep)

    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add a token (see `Continued`)."""
        self.logits = self._forward(tokens, 1)

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, keep: int) -> torch.Tensor:
        out = self._model(input_ids=tokens[None], past_key_values=self._cache, logits_to_keep=keep)
        return out.logits[0]


@dataclass(frozen=True)
class Draw:
    """How one row is continued: its sampling, its uniforms (max_new_tokens,), and texts that end it."""

    sampling: Sampling
    uniforms: np.ndarray


def draw(logits: torch.Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> torch.Tensor:
    """One token a row by inverting the distribution at the row's own uniform number.

    Args:
        logits: (rows, vocabulary).
        samplings: temperature and top_p of each row; temperature 0 takes the likeliest token.
        uniforms: (rows,) in [0, 1).

    Returns:
        Token ids (rows,), `BROKEN` where a row's logits are no numbers.
    """
    temperature = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=logits.device)
    top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=logits.device)
    scaled = logits.double() / temperature.clamp(min=1e-6)[:, None]
    p = torch.softmax(scaled, dim=-1)
    if bool((top_p < 1).any()):
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        outside = (ranked.cumsum(-1) - ranked) >= top_p[:, None]
        outside[:, 0] = False
        p = p.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
    levels = p.cumsum(-1)
    target = torch.as_tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * levels[:, -1:]
    drawn = (levels <= target).sum(-1).clamp(max=logits.size(-1) - 1)
    tokens = torch.where(temperature == 0, logits.argmax(-1), drawn)
    # A single NaN reaches the sum, and comparisons with it would draw token 0: padding, which reads as an empty text.
    return torch.where(levels[:, -1].isfinite(), tokens, BROKEN)


@torch.inference_mode()
def decode(
    rows: Continued,
    draws: Sequence[Draw],
    ends: frozenset[int],
    stopped: Callable[[int, list[int]], bool],
    closing: dict[int, int] | None = None,
) -> list[tuple[list[int], bool | None]]:
    """Continue every row until it ends, is stopped or reaches its limit.

    Args:
        rows: encoded; they are used up.
        draws: one for each row.
        ends: token ids that end an answer.
        stopped: function of (row, tokens so far) that says whether a stop text stands in them.
        closing: takes the token that ended each row, where one did.

    Returns:
        For each row its new tokens without the end token, and whether it ended by itself; None where the model gave
        logits that are no numbers.
    """
    tokens: list[list[int]] = [[] for _ in draws]
    ended: list[bool | None] = [False] * len(draws)
    alive = list(range(len(draws)))
    step = 0
    while True:
        uniforms = np.array([draws[row].uniforms[step] for row in alive])
        new = draw(rows.logits, [draws[row].sampling for row in alive], uniforms)
        going = []
        for at, (row, token) in enumerate(zip(alive, new.tolist(), strict=True)):
            if token == BROKEN:
                ended[row] = None
                continue
            if token in ends:
                ended[row] = True
                if closing is not None:
                    closing[row] = token
                continue
            tokens[row].append(token)
            if stopped(row, tokens[row]):
                ended[row] = True
            elif step + 1 < len(draws[row].uniforms):
                going.append(at)
        if not going:
            return list(zip(tokens, ended, strict=True))
        kept = None
        if len(going) < len(alive):
            kept = torch.tensor(going, device=new.device)
            new, alive = new[kept], [alive[at] for at in going]
        rows.step(new, kept)
        step += 1


def token_logprobs(logits: torch.Tensor, places: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Log-probability of a token at each of some places.

    Args:
        logits: (positions, vocabulary).
        places: positions.
        tokens: a token id for each.
    """
    found: list[float] = []
    for start in range(0, len(places), _TOGETHER):  # in double precision, so not all at once
        where = torch.tensor(places[start : start + _TOGETHER], device=logits.device)
        ids = torch.tensor(tokens[start : start + _TOGETHER], device=logits.device)
        found += logits[where].double().log_softmax(-1).gather(-1, ids[:, None])[:, 0].tolist()
    return found
