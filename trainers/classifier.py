"""Binary classifier of weak-to-strong: reads a text and returns the probability that it is correct.

Class 1 is "correct". Labels are probabilities. A text is tokenized with the tokenizer's own special tokens. A prompt of
messages is tokenized with the chat template, so that the head reads where a chat model is about to answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debate_rl.engines.marks import marks_of, neutral
from debate_rl.errors import UserError
from debate_rl.trainers.common.binary_trainer import BinaryTrainer, Loss, in_lines, token_budget, xent
from debate_rl.trainers.common.load import load_model, load_tokenizer
from debate_rl.trainers.common.packing import Line, back_in_order, body_of, deal, make_line, pad_rows, read_line
from debate_rl.trainers.common.rows import ClassifierRow
from debate_rl.trainers.common.tokens import Encoder


@dataclass(frozen=True)
class ClassifierCollator:
    """Makes a batch of encoded texts, dealt into padded chunks by `pack`, or laid in lines without padding."""

    pad_id: int
    token_budget: int | None = None
    """Most tokens of a chunk or line; None keeps one chunk in the order given."""
    in_lines: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: `chunks`, the `order` (n,) that sorts their rows back, `target` and `weight` (n,)."""
        rows = [example["input_ids"] for example in examples]
        dealt = deal([len(row) for row in rows], self.token_budget, self.in_lines)
        chunks = []
        for indices in dealt:
            chunks.append(self._chunk([rows[index] for index in indices]))
        return {
            "target": torch.tensor([float(example["target"]) for example in examples]),
            "weight": torch.tensor([float(example["weight"]) for example in examples]),
            "order": back_in_order(dealt),
            "chunks": chunks,
        }

    def _chunk(self, rows: list[list[int]]) -> Line | dict[str, Tensor]:
        """Input of one forward pass."""
        if self.in_lines:
            return make_line(rows)
        # Padded on the right: transformers' classifiers look for the last token that is not padding.
        ids, mask = pad_rows(rows, self.pad_id, left=False)
        return {"input_ids": ids, "attention_mask": mask}


class ClassifierTrainer(BinaryTrainer):
    """Trains the two classes by cross entropy or another loss."""

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Logits of (correct, incorrect), (n, 2)."""
        # The model's class 1 is "correct", and a target is the probability of column 0.
        return class_logits(model, inputs).flip(-1)


def class_logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """Logits of a collated batch, rows in the order of the examples.

    Returns:
        (n, classes); a classifier's classes are (incorrect, correct).
    """
    logits = [_chunk_logits(model, chunk) for chunk in batch["chunks"]]
    return torch.cat(logits)[batch["order"]]


def _chunk_logits(model: Any, chunk: Line | dict[str, Tensor]) -> Tensor:
    """Logits of the rows of a chunk or line, (rows, classes)."""
    if isinstance(chunk, Line):
        network, body = body_of(model)
        return network.score(read_line(body, chunk))
    return model(**chunk).logits


def encode_texts(tokenizer: Any, rows: Sequence[ClassifierRow]) -> list[dict[str, Any]]:
    """Encode texts or prompts.

    Returns:
        A row's `input_ids`, `target` and `weight`.

    Raises:
        UserError: a text has no tokens.
    """
    encoder = Encoder(tokenizer)
    marks = marks_of(tokenizer)
    encoded = []
    for row in rows:
        if row.prompt:
            input_ids, _ = encoder.encode(row.prompt)
        else:
            input_ids = list(tokenizer(neutral(row.text, marks))["input_ids"])
        if not input_ids:
            raise UserError(f"row {row.id!r}: the text has no tokens; fix or remove it")
        encoded.append({"input_ids": input_ids, "target": row.target, "weight": row.weight})
    return encoded


def cut_texts(tokenizer: Any, encoded: Sequence[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """Cut the beginning of texts over the limit: question and answer stand at the end.

    A special token that opens a text (BOS, CLS) is kept.

    Args:
        tokenizer: knows the special tokens.
        encoded: texts with `input_ids`.
        max_length: limit in tokens; None cuts nothing.

    Returns:
        All texts, in order.
    """
    special = set(tokenizer.all_special_ids)
    rows = []
    for example in encoded:
        ids = example["input_ids"]
        if max_length is not None and len(ids) > max_length:
            # Encoders classify by the opening token.
            opening = ids[:1] if ids[0] in special else []
            ids = opening + ids[len(ids) - max_length + len(opening) :]
        rows.append({**example, "input_ids": ids})
    return rows


def free_pad_id(tokenizer: Any, *encoded: Sequence[dict[str, Any]]) -> int:
    """A token id for padding that no row holds: the tokenizer's own, else another special token, else any token.

    Decoders classify by the last token that is not padding. Padding with a token that can end a text (0 in one
    published implementation, the end of sequence in others) reads the wrong position.
    """
    used: set[int] = set()
    for rows in encoded:
        for row in rows:
            used.update(row["input_ids"])
    for token in [tokenizer.pad_token_id, *tokenizer.all_special_ids]:
        if token is not None and token not in used:
            return int(token)
    return next(token for token in range(len(tokenizer)) if token not in used)


def classifier_trainer(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: Any, loss: Loss = xent, **options: Any
) -> ClassifierTrainer:
    """Build a trainer that is ready to train.

    Args:
        model: a sequence classifier with two classes, or a PeftModel of one.
        tokenizer: its tokenizer.
        rows: output of `encode_texts`.
        config: transformers TrainingArguments, `remove_unused_columns` off.
        loss: function of the logits of (correct, incorrect) and P(correct).
        options: further arguments of the Trainer, such as `eval_dataset` or `callbacks`.
    """
    # Rows of the evaluation count too: they are padded by the same collator.
    pad_id = free_pad_id(tokenizer, rows, options.get("eval_dataset") or [])
    # The model finds the last token of a text by this id, so it has to be the collator's.
    model.config.pad_token_id = pad_id
    return ClassifierTrainer(
        model=model,
        args=config,
        train_dataset=list(rows),
        processing_class=tokenizer,
        loss=loss,
        data_collator=ClassifierCollator(pad_id, token_budget(config), in_lines(model, config)),
        **options,
    )


def freeze_body(model: Any) -> None:
    """Train the classification head only (a linear probe)."""
    body = getattr(model, model.base_model_prefix)
    body.requires_grad_(False)


def predict(
    rows: Sequence[ClassifierRow],
    model: str,
    adapter: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = 8192,
) -> np.ndarray:
    """Compute P(correct) of each row with a finetuned classifier.

    Args:
        rows: the texts; their targets are not read.
        model: folder of a finetuned classifier, or the base of its adapter.
        adapter: folder of the adapter.
        max_length: cut texts as in training.
        batch_tokens: tokens in memory at once, padding included.

    Returns:
        (n,) probabilities.

    Raises:
        UserError: no such model or adapter.
    """
    tokenizer = load_tokenizer(model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_model(model, "classifier", adapter, trainable=False).to(device).eval()
    return predict_with(network, tokenizer, rows, max_length, batch_tokens)


def predict_with(
    network: Any, tokenizer: Any, rows: Sequence[ClassifierRow], max_length: int | None, batch_tokens: int = 8192
) -> np.ndarray:
    """Compute P(correct) of each row with a classifier in memory, (n,); see `predict`."""
    if not rows:
        return np.zeros(0)
    encoded = cut_texts(tokenizer, encode_texts(tokenizer, rows), max_length)
    network.config.pad_token_id = free_pad_id(tokenizer, encoded)
    batch = ClassifierCollator(network.config.pad_token_id, batch_tokens)(encoded)
    probabilities = []
    with torch.inference_mode():
        for chunk in batch["chunks"]:
            inputs = {name: tensor.to(network.device) for name, tensor in chunk.items()}
            logits = network(**inputs).logits.float()  # a softmax in bfloat16 has less than three digits
            probabilities.append(torch.softmax(logits, dim=-1)[:, 1].cpu())
    in_order = torch.cat(probabilities)[batch["order"]]
    return in_order.numpy().astype(np.float64)
