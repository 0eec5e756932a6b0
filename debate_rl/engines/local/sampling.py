"""Sample tokens with one random stream per request, and score given tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from transformers import DynamicCache

from debate_rl.engines.local.prefix import Row
from debate_rl.engines.request import Sampling

if TYPE_CHECKING:
    from debate_rl.engines.grammars import Matcher

_SCORED_TOGETHER = 256
"""Positions whose logits are in double precision at once."""
BROKEN = -1
"""Drawn in place of a token if the logits are not finite: the weights are damaged, or too large for their dtype."""


class Continued(Protocol):
    """Encoded rows that can be continued token by token."""

    logits: torch.Tensor
    """(rows, vocabulary) at the last token of each row."""

    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add one token to each row that goes on.

        Args:
            tokens: (rows that go on,).
            going: indexes of these rows among the rows of the step before; None is all of them.
        """
        ...


class Alone:
    """One prompt in transformers' own cache, for models whose rows can not share keys and values.

    Args:
        model: a causal language model of transformers.
        row: what to encode.
        draws: number of rows that continue it.
    """

    def __init__(self, model: Any, row: Row, draws: int = 1) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self.row_logits = self._forward(torch.tensor([row.tokens], device=model.device), row.keep)[0]
        """(keep, vocabulary)."""
        self.logits = self.row_logits[-1:].expand(draws, -1)
        if draws > 1:
            # Beam search's own method: it takes any indexes, and states of convolutions and recurrences have it too.
            self._cache.reorder_cache(torch.zeros(draws, dtype=torch.long, device=model.device))

    def step(self, tokens: torch.Tensor, going: torch.Tensor | None) -> None:
        """Add one token to each row (see `Continued`)."""
        if going is not None:
            self._cache.reorder_cache(going)
        self.logits = self._forward(tokens[:, None], 1)[:, -1]

    @torch.inference_mode()
    def _forward(self, tokens: torch.Tensor, keep: int) -> torch.Tensor:
        out = self._model(input_ids=tokens, past_key_values=self._cache, logits_to_keep=keep)
        return out.logits


@dataclass(frozen=True)
class Draw:
    """How to continue one row."""

    sampling: Sampling
    uniforms: np.ndarray
    """(max_new_tokens,) in [0, 1): one random number per token."""
    prompt: Sequence[int] = ()
    """Token ids in front of the new ones; a repetition penalty counts them."""
    matcher: Matcher | None = None
    """Tells which tokens may come next; None allows all of them."""


@dataclass
class Continuation:
    """The new tokens of one row.

    Example:
        Continuation(tokens=[17, 4, 9], end_token=2, finish="stop")
    """

    tokens: list[int] = field(default_factory=list)
    """Without the end token."""
    end_token: int | None = None
    """None if a stop text or the limit ended the row."""
    finish: Literal["stop", "length", "not a number", "grammar"] = "length"
    """Why the row ended; not a number: its logits are not finite; grammar: no token continues the row."""


def draw(
    logits: torch.Tensor,
    samplings: Sequence[Sampling],
    uniforms: np.ndarray,
    forbidden: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample one token per row by inverting the row's distribution at its own uniform number.

    Args:
        logits: (rows, vocabulary).
        samplings: temperature and top_p of each row; temperature 0 takes the likeliest token.
        uniforms: (rows,) in [0, 1).
        forbidden: (rows, vocabulary), True for tokens that may not be drawn; None forbids nothing.

    Returns:
        Token ids (rows,); `BROKEN` where a row's logits are not finite.
    """
    if forbidden is not None:
        # Before top_p, which is a share of what may be drawn.
        logits = logits.masked_fill(forbidden, -torch.inf)
    # Double precision: a row's token must not change with the rows that are batched beside it.
    temperature = torch.tensor([s.temperature for s in samplings], dtype=torch.float64, device=logits.device)
    top_p = torch.tensor([s.top_p for s in samplings], dtype=torch.float64, device=logits.device)
    scaled = logits.double() / temperature.clamp(min=1e-6)[:, None]
    probabilities = torch.softmax(scaled, dim=-1)
    if bool((top_p < 1).any()):
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = (ranked.cumsum(-1) - ranked) >= top_p[:, None]
        outside[:, 0] = False  # the likeliest token always stays
        dropped = torch.zeros_like(outside).scatter(-1, order, outside)
        probabilities = probabilities.masked_fill(dropped, 0.0)
    levels = probabilities.cumsum(-1)
    # Times the last level, because what top_p left does not sum to 1.
    target = torch.as_tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * levels[:, -1:]
    drawn = (levels <= target).sum(-1).clamp(max=logits.size(-1) - 1)
    tokens = torch.where(temperature == 0, logits.argmax(-1), drawn)
    # A single NaN reaches the sum, and comparisons with it would draw token 0: padding, which reads as an empty text.
    return torch.where(levels[:, -1].isfinite(), tokens, BROKEN)


@torch.inference_mode()
def decode(
    rows: Continued, draws: Sequence[Draw], ends: frozenset[int], stopped: Callable[[int, list[int]], bool]
) -> list[Continuation]:
    """Continue every row until it ends, is stopped or reaches its limit.

    Args:
        rows: encoded rows; they are used up.
        draws: one per row.
        ends: token ids that end an answer.
        stopped: tells from (row, tokens so far) whether a stop text stands in the tokens.
    """
    continuations = [Continuation() for _ in draws]
    active = list(range(len(draws)))
    penalties = _Penalties(draws, rows.logits)
    step = 0
    while True:
        uniforms = np.array([draws[row].uniforms[step] for row in active])
        forbidden, stuck = _forbidden(draws, active, rows.logits)
        logits = penalties.applied(rows.logits, active)
        new = draw(logits, [draws[row].sampling for row in active], uniforms, forbidden)
        going = []
        for position, (row, token) in enumerate(zip(active, new.tolist(), strict=True)):
            continuation = continuations[row]
            if row in stuck:
                continuation.finish = "grammar"
                continue
            if token == BROKEN:
                continuation.finish = "not a number"
                continue
            if token in ends:
                continuation.end_token = token
                continuation.finish = "stop"
                continue
            continuation.tokens.append(token)
            if stopped(row, continuation.tokens):
                continuation.finish = "stop"
            elif step + 1 < len(draws[row].uniforms):
                going.append(position)
                penalties.add(row, token)
                matcher = draws[row].matcher
                if matcher is not None:
                    matcher.read(token)
        if not going:
            return continuations
        selected = None
        if len(going) < len(active):
            selected = torch.tensor(going, device=new.device)
            new = new[selected]
            active = [active[position] for position in going]
        rows.step(new, selected)
        step += 1


def _forbidden(
    draws: Sequence[Draw], active: Sequence[int], logits: torch.Tensor
) -> tuple[torch.Tensor | None, set[int]]:
    """The tokens that the matchers forbid in this step.

    Args:
        draws: of all rows.
        active: the rows that go on.
        logits: (active rows, vocabulary).

    Returns:
        (active rows, vocabulary), True where forbidden, None where no row has a matcher; and the rows that no token
        continues, which are left as they are.
    """
    if all(draws[row].matcher is None for row in active):
        return None, set()
    vocabulary = logits.size(-1)
    allowed = np.ones((len(active), vocabulary), dtype=np.uint8)
    stuck: set[int] = set()
    for position, row in enumerate(active):
        matcher = draws[row].matcher
        if matcher is None:
            continue
        tokens = matcher.allowed()
        if tokens is None:
            stuck.add(row)
        else:
            # A tokenizer may know fewer tokens than the model has logits, or more.
            known = tokens[:vocabulary]
            allowed[position, : len(known)] = known
            allowed[position, len(known) :] = 0
    return torch.from_numpy(allowed == 0).to(logits.device), stuck


class _Penalties:
    """Repetition penalties: the logit of every token that a row has read is divided, or multiplied if negative.

    Args:
        draws: of all rows.
        logits: (rows, vocabulary), for size and device.
    """

    def __init__(self, draws: Sequence[Draw], logits: torch.Tensor) -> None:
        self._strength = {}
        self._read: dict[int, torch.Tensor] = {}
        for row, drawn in enumerate(draws):
            penalty = drawn.sampling.repetition_penalty
            if penalty != 1:
                read = torch.zeros(logits.size(-1), dtype=torch.bool, device=logits.device)
                read[torch.tensor(sorted(set(drawn.prompt)), dtype=torch.long, device=logits.device)] = True
                self._read[row] = read
                self._strength[row] = penalty

    def applied(self, logits: torch.Tensor, active: Sequence[int]) -> torch.Tensor:
        """Logits of the active rows with their penalties."""
        if not self._read:
            return logits
        logits = logits.clone()
        for position, row in enumerate(active):
            if row in self._read:
                own = logits[position]
                penalised = torch.where(own > 0, own / self._strength[row], own * self._strength[row])
                logits[position] = torch.where(self._read[row], penalised, own)
        return logits

    def add(self, row: int, token: int) -> None:
        """Count a token that a row has drawn."""
        if row in self._read:
            self._read[row][token] = True


def token_logprobs(logits: torch.Tensor, positions: Sequence[int], tokens: Sequence[int]) -> list[float]:
    """Log-probability of one token at each position.

    Args:
        logits: (positions, vocabulary).
        positions: rows of `logits`.
        tokens: a token id for each position.
    """
    logprobs: list[float] = []
    # In pieces, because a large vocabulary in double precision takes a megabyte per position.
    for start in range(0, len(positions), _SCORED_TOGETHER):
        where = torch.tensor(positions[start : start + _SCORED_TOGETHER], device=logits.device)
        ids = torch.tensor(tokens[start : start + _SCORED_TOGETHER], device=logits.device)
        logprobs += logits[where].double().log_softmax(-1).gather(-1, ids[:, None])[:, 0].tolist()
    return logprobs
