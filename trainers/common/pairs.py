"""Batches of preference pairs, with each speech in its own row or both after one copy of their prompt.

With a shared prompt, a row is [prompt | chosen | last token of the prompt | rejected]. The rejected speech does not
see the chosen one, and its positions continue from the prompt. This is exact for models in which every layer attends to
everything before, and takes less than half the time where prompts are long (`debate_rl.trainers.common.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from debate_rl.trainers.common.logprobs import CHOSEN, REJECTED
from debate_rl.trainers.common.packing import pad_rows
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.common.settings import Objective
from debate_rl.trainers.common.tokens import Encoder

_EXACT = torch.float32 if torch.backends.mps.is_available() else torch.float64
PROMPT = 0
"""The part of a prompt's tokens, beside CHOSEN and REJECTED; padding counts as prompt."""


def encode_pairs(tokenizer: Any, rows: Sequence[PreferenceRow], objective: Objective) -> list[dict[str, Any]]:
    """Token ids of each pair, and the target probability that its chosen speech is better.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    from debate_rl.trainers.common.losses import preference_target

    encoder = Encoder(tokenizer)
    better = torch.tensor([row.p_chosen for row in rows], dtype=torch.float64)
    worse = torch.tensor([row.p_rejected for row in rows], dtype=torch.float64)
    targets = preference_target(better, worse, objective.target, objective.gamma, objective.m, objective.t)
    encoded = []
    for row, target in zip(rows, targets.tolist(), strict=True):
        prompt, (chosen, rejected) = encoder.encode(row.prompt, row.chosen, row.rejected)
        encoded.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "target": target})
    return encoded


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of encoded pairs.

    A batch holds `input_ids`, `attention_mask`, `part` (prompt, chosen or rejected, for each token) and `target`
    (pairs,). With a row for each speech, the chosen ones come first, then the rejected ones.
    """

    pad_id: int
    share_prompt: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Make the batch of some pairs, with the reference's log-probabilities where they were computed before."""
        batch = self._shared(examples) if self.share_prompt else self._apart(examples)
        batch["target"] = torch.tensor([float(example["target"]) for example in examples])
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples], dtype=_EXACT)
        return batch

    def _apart(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows (2 pairs, width), one for each speech."""
        rows = []
        parts = []
        for name, part in (("chosen_ids", CHOSEN), ("rejected_ids", REJECTED)):
            for example in examples:
                rows.append(example["prompt_ids"] + example[name])
                parts.append([PROMPT] * len(example["prompt_ids"]) + [part] * len(example[name]))
        ids, mask = pad_rows(rows, self.pad_id, left=False)
        return {"input_ids": ids, "attention_mask": mask, "part": pad_rows(parts, PROMPT, left=False)[0]}

    def _shared(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Rows (pairs, first + tail): prompts and chosen speeches, padded, then the rejected speeches, padded.

        The mask, (pairs, 1, tail, first + tail), is for the tail alone: True where a position there may look.
        """
        rows = []
        tails = []
        for example in examples:
            rows.append(example["prompt_ids"] + example["chosen_ids"])
            # The prompt's last token stands a second time, so that each speech follows it.
            tails.append(example["prompt_ids"][-1:] + example["rejected_ids"])
        prompts = torch.tensor([len(example["prompt_ids"]) for example in examples])[:, None]
        ends = torch.tensor([len(row) for row in rows])[:, None]
        first, _ = pad_rows(rows, self.pad_id, left=False)
        tail, real = pad_rows(tails, self.pad_id, left=False)
        column = torch.arange(first.shape[1])[None]
        tail_column = torch.arange(tail.shape[1])[None]
        chosen = (column >= prompts) & (column < ends)
        rejected = (tail_column > 0) & real.bool()
        # The tail starts with the prompt's last token, so it sees the prompt without it, and not the chosen speech.
        sees_prompt = (column < prompts - 1)[:, None].expand(-1, tail.shape[1], -1)
        sees_tail = torch.ones(2 * tail.shape[1:], dtype=torch.bool).tril().expand(len(rows), -1, -1)
        return {
            "input_ids": torch.cat([first, tail], dim=1),
            "attention_mask": torch.cat([sees_prompt, sees_tail], dim=2)[:, None],
            "position_ids": torch.cat([column.expand(len(rows), -1), prompts - 1 + tail_column], dim=1),
            "part": torch.cat([chosen * CHOSEN, rejected * REJECTED], dim=1),
        }
