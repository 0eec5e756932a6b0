"""Finetune a language model as a judge: it learns the probabilities that `choose` will read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from debate_rl.engines.chat import candidate_ids
from debate_rl.trainers.common.binary_trainer import BinaryTrainer, Loss, in_lines, token_budget, xent
from debate_rl.trainers.common.packing import back_in_order, body_of, deal, make_line, pad_rows, read_line
from debate_rl.trainers.common.rows import JudgeRow
from debate_rl.trainers.common.tokens import Encoder


@dataclass(frozen=True)
class JudgeCollator:
    """Makes a batch of encoded judge rows.

    Candidates of one token need one row a prompt: both probabilities stand at its last position. Longer candidates
    need a row each. Rows are laid in lines without padding, or dealt into chunks by `pack` and padded on the left, so
    that what is scored ends every row.
    """

    pad_id: int
    token_budget: int | None = None
    """Most tokens of a chunk or line; None keeps one chunk in the order given."""
    in_lines: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: `chunks` of rows, `order` (n or 2n,) that puts them back in place, `target` and `weight` (n,).

        A chunk's `wanted` is (rows, 2), the two tokens of each prompt, or (rows, longest), one candidate with -1
        before it; `long` says which. It holds a `line`, or padded rows.
        """
        pairs = [example["candidates"] for example in examples]
        longest = max(len(ids) for pair in pairs for ids in pair)
        rows = [example["input_ids"] for example in examples]
        if longest > 1:
            rows = [row + ids[:-1] for row, pair in zip(rows, pairs, strict=True) for ids in pair]
            wanted = torch.tensor([[-1] * (longest - len(ids)) + list(ids) for pair in pairs for ids in pair])
        else:
            wanted = torch.tensor([[ids[0] for ids in pair] for pair in pairs])
        chunks = deal([len(row) for row in rows], self.token_budget, self.in_lines)
        return {
            "target": torch.tensor([float(example["target"]) for example in examples]),
            "weight": torch.tensor([float(example["weight"]) for example in examples]),
            "order": back_in_order(chunks),
            "long": longest > 1,
            "chunks": [
                {**self._read([rows[index] for index in chunk], longest), "wanted": wanted[chunk]} for chunk in chunks
            ],
        }

    def _read(self, rows: list[list[int]], longest: int) -> dict[str, Any]:
        """What the model reads of a chunk or line."""
        if self.in_lines:
            return {"line": make_line(rows, longest)}
        input_ids, mask = pad_rows(rows, self.pad_id, left=True)
        return {
            "input_ids": input_ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        }


class JudgeTrainer(BinaryTrainer):
    """Cross entropy between the target and the probabilities over the two candidates, as `choose` normalises them."""

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Log-probability of each candidate after the prompt, summed over its tokens, (n, 2)."""
        found = torch.cat([wanted_logits(model, chunk, inputs["long"]) for chunk in inputs["chunks"]])[inputs["order"]]
        return found.unflatten(0, (-1, 2)) if inputs["long"] else found


def wanted_logits(model: Any, chunk: dict[str, Any], long: bool) -> Tensor:
    """Of each row of a chunk both candidates' logits, (rows, 2); where they are long its one's log-probability."""
    rows = dict(chunk)
    wanted = rows.pop("wanted")
    if "line" in rows:
        network, body = body_of(model)
        logits = network.lm_head(read_line(body, rows["line"])).unflatten(0, (len(wanted), -1)).float()
    else:
        if long:
            wanted = wanted[:, -rows["input_ids"].shape[1] :]  # the longest candidate may be in another chunk
        logits = model(**rows, logits_to_keep=wanted.shape[-1] if long else 1, use_cache=False).logits.float()
    if not long:
        # The normaliser over the vocabulary is the same for both, so it cancels between them.
        return logits[:, -1].gather(1, wanted)
    seen = torch.log_softmax(logits, dim=-1).gather(2, wanted.clamp(min=0)[..., None])[..., 0]
    return seen.masked_fill(wanted < 0, 0.0).sum(-1)


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
            "weight": row.weight,
        }
        for row in rows
    ]


def judge_trainer(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: Any, loss: Loss = xent, **options: Any
) -> JudgeTrainer:
    """A trainer ready to train.

    Args:
        model: a causal language model, or a PeftModel of one.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: what `encode_judge_rows` gave.
        config: transformers TrainingArguments, `remove_unused_columns` off.
        loss: what to minimise, given logits of the candidates and P(candidate 0).
        options: further arguments of the Trainer, such as `eval_dataset` or `callbacks`.
    """
    return JudgeTrainer(
        model=model, args=config, train_dataset=list(rows), processing_class=tokenizer,
        loss=loss, **options,
        data_collator=JudgeCollator(tokenizer.pad_token_id, token_budget(config), in_lines(model, config)),
    )  # fmt: skip
