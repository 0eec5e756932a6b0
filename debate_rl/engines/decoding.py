"""Encoding waves of rows with shared beginnings, and drawing tokens with a random stream per request.

Layout of a wave in the cache, one row a line:  [shared, padded right | rest, padded left | new tokens]
The gaps are masked and positions are explicit, so every row gets the logits it would get alone (up to rounding).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from debate_rl.engines.prefix import Group, Row
from debate_rl.engines.request import Sampling


@dataclass
class Encoded:
    """A wave after its forward passes; rows in the order of the groups' members.

    Shapes: mask (rows, cached tokens) bool, next_position (rows,), logits (rows, keep, vocabulary) where `keep` is the
    largest in the wave and a row's own are the last ones.
    """

    cache: DynamicCache
    mask: torch.Tensor
    next_position: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class Draw:
    """How one row is continued: its sampling, its uniforms (max_new_tokens,), and texts that end it."""

    sampling: Sampling
    uniforms: np.ndarray


def _padded(pieces: Sequence[Sequence[int]], left: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (rows, longest) padded with 0 on one side, and which of them are real."""
    width = max(len(piece) for piece in pieces)
    ids = torch.zeros((len(pieces), width), dtype=torch.long)
    mask = torch.zeros((len(pieces), width), dtype=torch.bool)
    for row, piece in enumerate(pieces):
        span = slice(width - len(piece), width) if left else slice(0, len(piece))
        ids[row, span] = torch.tensor(piece, dtype=torch.long)
        mask[row, span] = True
    return ids.to(device), mask.to(device)


@torch.inference_mode()
def encode(model: Any, rows: Sequence[Row], wave: Sequence[Group]) -> Encoded:
    """Encode each group's shared beginning once, then every row's rest from its cache.

    Args:
        model: a causal language model of transformers.
        rows: all rows; a group names its members by index.
        wave: the groups to encode together.
    """
    device = model.device
    heads = [rows[group.members[0]].tokens[: group.shared] for group in wave]
    ids, head_mask = _padded(heads, left=False, device=device)
    cache = DynamicCache(config=model.config)
    # No mask: what is padded on the right is never seen by what stands before it, and the causal kernel is faster.
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)

    owner = [at for at, group in enumerate(wave) for _ in group.members]
    members = [index for group in wave for index in group.members]
    shared = torch.tensor([wave[at].shared for at in owner], device=device)
    if len(owner) != len(wave):
        cache.batch_select_indices(torch.tensor(owner, device=device))
    rests = [rows[index].tokens[wave[at].shared :] for at, index in zip(owner, members, strict=True)]
    ids, rest_mask = _padded(rests, left=True, device=device)
    mask = torch.cat([head_mask[torch.tensor(owner, device=device)], rest_mask], dim=1)
    positions = (shared[:, None] + rest_mask.cumsum(1) - 1).clamp(min=0)
    keep = max(rows[index].keep for index in members)
    out = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=keep
    )  # fmt: skip
    return Encoded(cache, mask, positions[:, -1] + 1, out.logits)


def draw(logits: torch.Tensor, samplings: Sequence[Sampling], uniforms: np.ndarray) -> torch.Tensor:
    """One token a row by inverting the distribution at the row's own uniform number.

    Args:
        logits: (rows, vocabulary).
        samplings: temperature and top_p of each row; temperature 0 takes the likeliest token.
        uniforms: (rows,) in [0, 1).

    Returns:
        Token ids (rows,).
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
    return torch.where(temperature == 0, logits.argmax(-1), drawn)


@torch.inference_mode()
def decode(
    model: Any, encoded: Encoded, draws: Sequence[Draw], ends: frozenset[int], stopped: Any
) -> list[tuple[list[int], bool]]:
    """Continue every row until it ends, is stopped or reaches its limit.

    Args:
        model: the model that encoded the rows.
        encoded: the wave; its cache is used up.
        draws: one for each row.
        ends: token ids that end an answer.
        stopped: function of (row, tokens so far) that says whether a stop text stands in them.

    Returns:
        For each row its new tokens without the end token, and whether it ended by itself.
    """
    device = encoded.logits.device
    tokens: list[list[int]] = [[] for _ in draws]
    ended = [False] * len(draws)
    alive = list(range(len(draws)))
    cache, mask, position, logits = encoded.cache, encoded.mask, encoded.next_position, encoded.logits[:, -1]
    step = 0
    while True:
        uniforms = np.array([draws[row].uniforms[step] for row in alive])
        new = draw(logits, [draws[row].sampling for row in alive], uniforms)
        going = []
        for at, (row, token) in enumerate(zip(alive, new.tolist(), strict=True)):
            if token in ends:
                ended[row] = True
                continue
            tokens[row].append(token)
            if stopped(row, tokens[row]):
                ended[row] = True
            elif step + 1 < len(draws[row].uniforms):
                going.append(at)
        if not going:
            return list(zip(tokens, ended, strict=True))
        if len(going) < len(alive):
            keep = torch.tensor(going, device=device)
            cache.batch_select_indices(keep)
            mask, position, new = mask[keep], position[keep], new[keep]
            alive = [alive[at] for at in going]
        mask = torch.cat([mask, torch.ones((len(alive), 1), dtype=torch.bool, device=device)], dim=1)
        logits = model(
            input_ids=new[:, None], attention_mask=mask, position_ids=position[:, None], past_key_values=cache
        ).logits[:, -1]  # fmt: skip
        position = position + 1
        step += 1


def candidate_logprobs(logits: torch.Tensor, candidate: Sequence[int]) -> float:
    """Summed log-probability of a candidate's tokens.

    Args:
        logits: (keep, vocabulary); the last len(candidate) positions are those before each of its tokens.
        candidate: its token ids.
    """
    wanted = torch.log_softmax(logits[-len(candidate) :].double(), dim=-1)
    ids = torch.tensor(candidate, device=logits.device)
    return float(wanted.gather(-1, ids[:, None]).sum())
