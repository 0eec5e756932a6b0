"""Batches of preference pairs: each speech in a row of its own, or both after one copy of their prompt.

With the prompt shared, a row is [prompt | chosen | last token of the prompt | rejected]. The rejected speech does not
see the chosen one (a mask over positions says so), and its positions go on from the prompt. This is exact for models
whose every layer attends to all that came before, and takes about half of the time where prompts are long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from debate_rl.errors import UserError
from debate_rl.trainers.binary import pad_rows
from debate_rl.trainers.rows import PreferenceRow
from debate_rl.trainers.settings import Objective
from debate_rl.trainers.tokens import Encoder

PROMPT, CHOSEN, REJECTED = 0, 1, 2
"""What a token of a row belongs to; padding counts as prompt."""


def encode_pairs(tokenizer: Any, rows: Sequence[PreferenceRow], objective: Objective) -> list[dict[str, Any]]:
    """Token ids of each pair, and the probability that the chosen speech is the better one.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    from debate_rl.trainers.losses import preference_target

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

    A batch holds `input_ids`, `attention_mask`, `part` (what each token belongs to) and `target` (pairs,); apart, the
    rows of chosen speeches come first, then those of rejected ones.
    """

    pad_id: int
    share_prompt: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch of some pairs."""
        batch = self._shared(examples) if self.share_prompt else self._apart(examples)
        batch["target"] = torch.tensor([float(example["target"]) for example in examples])
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in examples[0]:
                batch[name] = torch.tensor([example[name] for example in examples])
        return batch

    def _apart(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """(2 pairs, width): a row for each speech."""
        rows, parts = [], []
        for name, part in (("chosen_ids", CHOSEN), ("rejected_ids", REJECTED)):
            for example in examples:
                rows.append(example["prompt_ids"] + example[name])
                parts.append([PROMPT] * len(example["prompt_ids"]) + [part] * len(example[name]))
        ids, mask = pad_rows(rows, self.pad_id, left=False)
        return {"input_ids": ids, "attention_mask": mask, "part": pad_rows(parts, PROMPT, left=False)[0]}

    def _shared(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """(pairs, width), with a (pairs, 1, width, width) mask, True where a position may look."""
        rows, parts, positions = [], [], []
        for example in examples:
            prompt, chosen, rejected = example["prompt_ids"], example["chosen_ids"], example["rejected_ids"]
            n = len(prompt)
            # The prompt's last token stands a second time, so that each speech follows it.
            rows.append(prompt + chosen + prompt[-1:] + rejected)
            parts.append([PROMPT] * n + [CHOSEN] * len(chosen) + [PROMPT] + [REJECTED] * len(rejected))
            positions.append([*range(n + len(chosen)), *range(n - 1, n + len(rejected))])
        ids, _ = pad_rows(rows, self.pad_id, left=False)
        width = ids.shape[1]
        mask = torch.ones(width, width, dtype=torch.bool).tril().repeat(len(rows), 1, 1)
        for row, example in enumerate(examples):
            n, end = len(example["prompt_ids"]), len(example["prompt_ids"]) + len(example["chosen_ids"])
            mask[row, end:, n - 1 : end] = False
        return {
            "input_ids": ids,
            "attention_mask": mask[:, None],
            "position_ids": pad_rows(positions, 0, left=False)[0],
            "part": pad_rows(parts, PROMPT, left=False)[0],
        }


def check_shareable(config: Any) -> None:
    """Make sure that a model can read a shared prompt.

    Raises:
        UserError: some layer does not attend to everything before, or attention is not computed by SDPA.
    """
    text = config.get_text_config()
    layers = set(getattr(text, "layer_types", None) or ["full_attention"])
    if layers != {"full_attention"} or getattr(text, "sliding_window", None) is not None:
        raise UserError(
            f"share_prompt needs full attention in every layer, which {text.model_type} has not; set it false"
        )
    if text._attn_implementation != "sdpa":
        raise UserError(
            "share_prompt needs model_init_kwargs.attn_implementation 'sdpa'; set that, or share_prompt false"
        )
