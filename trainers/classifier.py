"""The binary classifier of weak-to-strong: a text goes in, the probability that it is correct comes out.

Class 1 is "correct". Labels are probabilities. A text is tokenized with the tokenizer's own special tokens; a prompt of
messages with its chat template, so that the head reads where a chat model is about to answer.
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
        """The batch: `chunks`, `order` (n,) of their rows' places, `target` and `weight` (n,)."""
        rows = [example["input_ids"] for example in examples]
        places = deal([len(row) for row in rows], self.token_budget, self.in_lines)
        return {
            "target": torch.tensor([float(example["target"]) for example in examples]),
            "weight": torch.tensor([float(example["weight"]) for example in examples]),
            "order": back_in_order(places),
            "chunks": [self._chunk([rows[index] for index in chunk]) for chunk in places],
        }

    def _chunk(self, rows: list[list[int]]) -> Line | dict[str, Tensor]:
        """What the model reads at once."""
        if self.in_lines:
            return make_line(rows)
        ids, mask = pad_rows(rows, self.pad_id, left=False)
        return {"input_ids": ids, "attention_mask": mask}


class ClassifierTrainer(BinaryTrainer):
    """Cross entropy, or another loss, on the two classes."""

    def outcome_logits(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Logits of (correct, incorrect), (n, 2)."""
        return class_logits(model, inputs).flip(-1)


def class_logits(model: Any, batch: dict[str, Any]) -> Tensor:
    """Logits of (incorrect, correct) for a collated batch, (n, 2), rows in the order of the examples."""
    return torch.cat([_logits(model, chunk) for chunk in batch["chunks"]])[batch["order"]]


def _logits(model: Any, chunk: Line | dict[str, Tensor]) -> Tensor:
    """Logits of (incorrect, correct) for the rows of a chunk or line, (rows, 2)."""
    if isinstance(chunk, Line):
        network, body = body_of(model)
        return network.score(read_line(body, chunk))
    return model(**chunk).logits


def encode_texts(tokenizer: Any, rows: Sequence[ClassifierRow]) -> list[dict[str, Any]]:
    """Token ids and target of each text or prompt.

    Raises:
        UserError: a text has no tokens.
    """
    chat, marks = Encoder(tokenizer), marks_of(tokenizer)
    ids = [
        chat.encode(row.prompt)[0] if row.prompt else list(tokenizer(neutral(row.text, marks))["input_ids"])
        for row in rows
    ]
    encoded = [
        {"input_ids": one, "target": row.target, "weight": row.weight} for one, row in zip(ids, rows, strict=True)
    ]
    for row, example in zip(rows, encoded, strict=True):
        if not example["input_ids"]:
            raise UserError(f"row {row.id!r}: the text has no tokens; fix or remove it")
    return encoded


def cut_texts(tokenizer: Any, encoded: Sequence[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """All texts, those over the limit without their beginning: question and answer stand at the end.

    A special token that opens a text (BOS, CLS) is kept.
    """
    special = set(tokenizer.all_special_ids)
    rows = []
    for example in encoded:
        ids = example["input_ids"]
        if max_length is not None and len(ids) > max_length:
            start = ids[:1] if ids[0] in special else []
            ids = start + ids[len(ids) - max_length + len(start) :]
        rows.append({**example, "input_ids": ids})
    return rows


def free_pad_id(tokenizer: Any, *encoded: Sequence[dict[str, Any]]) -> int:
    """A token id to pad with that no row holds: the tokenizer's own, else another special token, else any.

    Decoders classify by the last token that is not padding, so padding with a token that can end a text (0 in one
    published implementation, the end of sequence in others) reads the wrong position.
    """
    used = {token for rows in encoded for row in rows for token in row["input_ids"]}
    for token in [tokenizer.pad_token_id, *tokenizer.all_special_ids]:
        if token is not None and token not in used:
            return int(token)
    return next(token for token in range(len(tokenizer)) if token not in used)


def classifier_trainer(
    model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], config: Any, loss: Loss = xent, **options: Any
) -> ClassifierTrainer:
    """A trainer ready to train.

    Args:
        model: a sequence classifier with two classes, or a PeftModel of one.
        tokenizer: its tokenizer.
        rows: what `encode_texts` gave.
        config: transformers TrainingArguments, `remove_unused_columns` off.
        loss: what to minimise, given logits of (correct, incorrect) and P(correct).
        options: further arguments of the Trainer, such as `eval_dataset` or `callbacks`.
    """
    pad_id = free_pad_id(tokenizer, rows, options.get("eval_dataset") or [])
    model.config.pad_token_id = pad_id
    return ClassifierTrainer(
        model=model, args=config, train_dataset=list(rows), processing_class=tokenizer, loss=loss,
        data_collator=ClassifierCollator(pad_id, token_budget(config), in_lines(model, config)), **options,
    )  # fmt: skip


def freeze_body(model: Any) -> None:
    """Leave only the classification head to train (a linear probe)."""
    body = getattr(model, model.base_model_prefix)
    body.requires_grad_(False)


def predict(
    rows: Sequence[ClassifierRow],
    model: str,
    adapter: str | None = None,
    max_length: int | None = None,
    batch_tokens: int = 8192,
) -> np.ndarray:
    """P(correct) of each row, by a finetuned classifier.

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
    """P(correct) of each row by a classifier in memory, (n,); see `predict`."""
    if not rows:
        return np.zeros(0)
    encoded = cut_texts(tokenizer, encode_texts(tokenizer, rows), max_length)
    network.config.pad_token_id = free_pad_id(tokenizer, encoded)
    batch = ClassifierCollator(network.config.pad_token_id, batch_tokens)(encoded)
    found = []
    with torch.inference_mode():
        for chunk in batch["chunks"]:
            logits = network(**{name: tensor.to(network.device) for name, tensor in chunk.items()}).logits
            found.append(torch.softmax(logits.float(), dim=-1)[:, 1].cpu())
    return torch.cat(found)[batch["order"]].numpy().astype(np.float64)
