"""Finetunes a language model as a judge: it learns the probabilities of the answers, as `Engine.choose` reads them."""

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

    Candidates of one token need one row per prompt: both probabilities stand at its last position. Longer candidates
    need a row each. Rows are laid in lines without padding, or dealt into chunks by `pack` and padded on the left, so
    that the scored tokens end every row.
    """

    pad_id: int
    token_budget: int | None = None
    """Most tokens of a chunk or line; None keeps one chunk in the order given."""
    in_lines: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: `chunks` of rows, the `order` (n or 2n,) that sorts them back, `target` and `weight` (n,).

        `lengths` (n, 2) divides the candidates' scores: their tokens in rows that are compared by the token, else 1.
        `long` says whether a candidate has more than one token. A chunk's `wanted` holds the scored token ids: with
        `long` false (rows, 2), both candidates of each prompt; else (rows, longest), one candidate with -1 before it.
        A chunk also holds a `line`, or padded rows.
        """
        longest = 1
        for example in examples:
            longest = max(longest, *(len(ids) for ids in example["candidates"]))
        rows, token_ids = self._scored_rows(examples, longest)
        dealt = deal([len(row) for row in rows], self.token_budget, self.in_lines)
        chunks = []
        for indices in dealt:
            chunk = self._chunk([rows[index] for index in indices], longest)
            chunk["wanted"] = token_ids[indices]
            chunks.append(chunk)
        # `target` comes first: the Trainer takes the number of examples from the first tensor of a batch.
        return {
            "target": torch.tensor([float(example["target"]) for example in examples]),
            "weight": torch.tensor([float(example["weight"]) for example in examples]),
            "lengths": torch.tensor([_divisors(example) for example in examples]),
            "order": back_in_order(dealt),
            "long": longest > 1,
            "chunks": chunks,
        }

    def _scored_rows(self, examples: list[dict[str, Any]], longest: int) -> tuple[list[list[int]], Tensor]:
        """Input ids of each row, and the scored token ids of all rows (`wanted`)."""
        rows = []
        token_ids = []
        for example in examples:
            prompt = example["input_ids"]
            candidates = example["candidates"]
            if longest == 1:
                rows.append(prompt)
                token_ids.append([ids[0] for ids in candidates])
                continue
            for ids in candidates:
                # A token is scored at the position before it, so the last token of a candidate is never read.
                rows.append([*prompt, *ids[:-1]])
                token_ids.append([*[-1] * (longest - len(ids)), *ids])
        return rows, torch.tensor(token_ids)

    def _chunk(self, rows: list[list[int]], longest: int) -> dict[str, Any]:
        """Input of one forward pass."""
        if self.in_lines:
            return {"line": make_line(rows, longest)}
        input_ids, mask = pad_rows(rows, self.pad_id, left=True)
        # Positions count real tokens only: a prompt is encoded as without the padding before it.
        position_ids = (mask.cumsum(1) - 1).clamp(min=0)
        return {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}


def _divisors(example: dict[str, Any]) -> list[float]:
    """What the score of each candidate is divided by."""
    if not example["per_token"]:
        return [1.0, 1.0]
    return [float(len(ids)) for ids in example["candidates"]]


class JudgeTrainer(BinaryTrainer):
    """Trains the probabilities of the two candidates, normalised as `choose` does, by cross entropy or another loss."""

    def row_tokens(self, example: dict[str, Any]) -> int:
        """Tokens that the model reads of an encoded row: its prompt, once for each candidate of several tokens."""
        longest = max(len(ids) for ids in example["candidates"])
        prompt = len(example["input_ids"])
        return prompt if longest == 1 else 2 * (prompt + longest - 1)

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Log-probability of each candidate, summed or by the token, up to a constant per row, (n, 2)."""
        chunks = [wanted_logits(model, chunk, inputs["long"]) for chunk in inputs["chunks"]]
        logits = torch.cat(chunks)[inputs["order"]]
        if inputs["long"]:
            return logits.unflatten(0, (-1, 2)) / inputs["lengths"]
        # Each candidate is one token, so that sum and mean are the same.
        return logits


def wanted_logits(model: Any, chunk: dict[str, Any], long: bool) -> Tensor:
    """Score the candidates of a chunk of `JudgeCollator`.

    Returns:
        With `long` false (rows, 2), the logits of both candidates; else (rows,), the log-probability of each row's
        candidate.
    """
    rows = dict(chunk)
    token_ids = rows.pop("wanted")
    if "line" in rows:
        network, body = body_of(model)
        logits = network.lm_head(read_line(body, rows["line"])).unflatten(0, (len(token_ids), -1)).float()
    else:
        if long:
            token_ids = token_ids[:, -rows["input_ids"].shape[1] :]  # the longest candidate may be in another chunk
        scored = token_ids.shape[-1] if long else 1
        logits = model(**rows, logits_to_keep=scored, use_cache=False).logits.float()
    if not long:
        # The normaliser over the vocabulary is the same for both, so it cancels between them.
        return logits[:, -1].gather(1, token_ids)
    log_probs = torch.log_softmax(logits, dim=-1)
    token_log_probs = log_probs.gather(2, token_ids.clamp(min=0)[..., None])[..., 0]
    return token_log_probs.masked_fill(token_ids < 0, 0.0).sum(-1)


def encode_judge_rows(tokenizer: Any, rows: Sequence[JudgeRow]) -> list[dict[str, Any]]:
    """Encode prompts and candidates as an engine's `choose` does.

    Returns:
        A row's `input_ids`, `candidates` (token ids of each), `target`, `weight` and `per_token`.

    Raises:
        UserError: the tokenizer has no chat template, or a candidate no tokens.
    """
    encoder = Encoder(tokenizer)
    encoded = []
    for row in rows:
        candidates = [list(candidate_ids(tokenizer, candidate)) for candidate in row.candidates]
        prompt = encoder.prompt(row.prompt)
        encoded.append(
            {
                "input_ids": prompt,
                "candidates": candidates,
                "target": row.target,
                "weight": row.weight,
                "per_token": row.per_token,
            }
        )
    return encoded


def judge_trainer(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: Any, loss: Loss = xent, **options: Any
) -> JudgeTrainer:
    """Build a trainer that is ready to train.

    Args:
        model: a causal language model, or a PeftModel of one.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: output of `encode_judge_rows`.
        config: transformers TrainingArguments, `remove_unused_columns` off.
        loss: function of the logits of the candidates and P(candidate 0).
        options: further arguments of the Trainer, such as `eval_dataset` or `callbacks`.
    """
    return JudgeTrainer(
        model=model,
        args=config,
        train_dataset=list(rows),
        processing_class=tokenizer,
        loss=loss,
        data_collator=JudgeCollator(tokenizer.pad_token_id, token_budget(config), in_lines(model, config)),
        **options,
    )
