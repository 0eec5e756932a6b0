"""Finetune a language model as a judge: it learns the probabilities that `choose` will read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from debate_rl.engines.chat import candidate_ids
from debate_rl.trainers.binary import BinaryTrainer, pad_rows
from debate_rl.trainers.rows import JudgeRow
from debate_rl.trainers.tokens import Encoder


@dataclass(frozen=True)
class JudgeCollator:
    """Makes a batch of encoded judge rows.

    Candidates of one token need one row a prompt: both probabilities stand at its last position. Longer candidates
    need a row each. Rows are padded on the left, so that what is scored ends every row.
    """

    pad_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch: rows (n or 2n, width), candidates (n, 2, longest) with -1 before them, targets (n,)."""
        pairs = [example["candidates"] for example in examples]
        longest = max(len(ids) for pair in pairs for ids in pair)
        rows = [example["input_ids"] for example in examples]
        if longest > 1:
            rows = [row + ids[:-1] for row, pair in zip(rows, pairs, strict=True) for ids in pair]
        input_ids, mask = pad_rows(rows, self.pad_id, left=True)
        wanted = [[[-1] * (longest - len(ids)) + list(ids) for ids in pair] for pair in pairs]
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "wanted": torch.tensor(wanted),
            "target": torch.tensor([float(example["target"]) for example in examples]),
        }


class JudgeTrainer(BinaryTrainer):
    """Cross entropy between the target and the probabilities over the two candidates, as `choose` normalises them."""

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Log-probability of each candidate after the prompt, summed over its tokens, (n, 2)."""
        wanted = inputs.pop("wanted")
        logits = model(**inputs, logits_to_keep=wanted.shape[-1], use_cache=False).logits.float()
        if wanted.shape[-1] == 1:
            # The normaliser over the vocabulary is the same for both, so it cancels between them.
            return logits[:, -1].gather(1, wanted[..., 0])
        tokens = wanted.flatten(0, 1)
        seen = torch.log_softmax(logits, dim=-1).gather(2, tokens.clamp(min=0)[..., None])[..., 0]
        return seen.masked_fill(tokens < 0, 0.0).sum(-1).unflatten(0, (-1, 2))


def encode_judge_rows(tokenizer: Any, rows: Sequence[JudgeRow]) -> list[dict[str, Any]]:
    """Token ids of prompts and candidates, as an engine's `choose` encodes them.

    Raises:
        UserError: the tokenizer has no chat template, or a candidate no tokens.
    """
    encoder = Encoder(tokenizer)
    return [
        {
            "input_ids": encoder.prompt(row.prompt),
            "candidates": [list(candidate_ids(tokenizer, candidate)) for candidate in row.candidates],
            "target": row.target,
        }
        for row in rows
    ]


def judge_trainer(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: Any, **options: Any
) -> JudgeTrainer:
    """A trainer ready to train.

    Args:
        model: a causal language model, or a PeftModel of one.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: what `encode_judge_rows` gave.
        config: transformers TrainingArguments, `remove_unused_columns` off.
        options: further arguments of the Trainer, such as `eval_dataset` or `callbacks`.
    """
    return JudgeTrainer(
        model=model, args=config, train_dataset=list(rows), processing_class=tokenizer,
        data_collator=JudgeCollator(tokenizer.pad_token_id), **options,
    )  # fmt: skip
