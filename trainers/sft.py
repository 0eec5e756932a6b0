"""SFT on transcripts with TRL's trainer; the loss is on the speech and its end of turn only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from debate_rl.errors import UserError
from debate_rl.trainers.common.logprobs import token_logprobs
from debate_rl.trainers.common.micro_batches import InParts
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.tokens import Encoder


class DebateSFTTrainer(InParts, SFTTrainer):
    """TRL's SFTTrainer on encoded rows.

    On a CPU the language-model head skips the prompts. With `packing` it is checked that packed rows do not see each
    other.
    """

    _checked = False

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss over the labelled tokens of all processes and accumulated micro-batches, a scalar.

        Raises:
            UserError: rows are packed, and the model's attention lets a row see the one before it.
        """
        if self.args.packing and not self._checked:
            self._check_packing(model)
        if return_outputs or not self._skips_prompts(inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        model_inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        vocabulary = self.model.config.get_text_config().vocab_size
        logprobs = token_logprobs(model, model_inputs, labels, vocabulary)
        count = (labels[:, 1:] != -100).sum()
        if num_items_in_batch is None:
            loss = -logprobs.values.sum() / count * self.share
        else:
            loss = -logprobs.values.sum() / num_items_in_batch
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # the count is over processes, gradients are averaged
        mode = "train" if self.model.training else "eval"
        self.note(self._metrics[mode]["mean_token_accuracy"], (logprobs.top1.sum() / count).item())
        return loss

    def _skips_prompts(self, inputs: dict[str, Any]) -> bool:
        """Whether the loss is the plain one of a padded batch on a CPU, whose prompts need no logits."""
        if "attention_mask" not in inputs or inputs["labels"].device.type != "cpu":
            return False
        return self.args.loss_type == "nll" and self.label_smoother is None and not self.aux_loss_enabled

    def _check_packing(self, model: Any) -> None:
        """Compare the last row of a packed one with the same row alone.

        Raises:
            UserError: the model gives its tokens other probabilities.
        """
        self._checked = True
        packed = next((row for row in self.train_dataset if len(row["seq_lengths"]) > 1), None)
        if packed is None:
            return  # nothing was short enough to share a row
        # The last row, because only rows before it can leak into it.
        start = sum(packed["seq_lengths"][:-1])
        alone = {name: packed[name][start:] for name in ("input_ids", "labels")}
        alone["seq_lengths"] = packed["seq_lengths"][-1:]
        learnt_count = sum(label != -100 for label in alone["labels"])
        was_training = model.training
        model.eval()
        logprobs_packed = self._label_logprobs(model, packed)[-learnt_count:]
        logprobs_alone = self._label_logprobs(model, alone)[-learnt_count:]
        model.train(was_training)
        # Wide enough for bfloat16 and another attention kernel; a row that sees another differs by far more.
        if not torch.allclose(logprobs_packed, logprobs_alone, rtol=0.02, atol=0.05):
            kind = getattr(self.model.config, "_attn_implementation", "its attention")
            raise UserError(
                f"train.packing: in this model ({self.model.config.model_type}, {kind}) a packed row sees the one "
                "before it; set train.packing false, or another attn_implementation in train.model_init_kwargs"
            )

    def _label_logprobs(self, model: Any, row: dict[str, Any]) -> Tensor:
        """Log-probabilities of the labelled tokens of one row of the data set, (k,)."""
        batch = self._prepare_inputs(self.data_collator([row]))
        labels = batch.pop("labels")[:, 1:]
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
        learnt = labels != -100
        return torch.log_softmax(logits[learnt], -1).gather(1, labels[learnt][:, None])[:, 0]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting walks over all parameters, which costs more than a step of a small model."""
        return 0


def encode_speeches(tokenizer: Any, rows: Sequence[SftRow]) -> list[dict[str, Any]]:
    """Encode rows; labels are -100 on the prompt, so the loss is on speech and end of turn.

    Returns:
        A row's `input_ids` and `labels`, both of the same length.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    encoder = Encoder(tokenizer)
    encoded = []
    for row in rows:
        prompt, (speech,) = encoder.encode(row.prompt, row.completion)
        encoded.append({"input_ids": prompt + speech, "labels": [-100] * len(prompt) + speech})
    return encoded


def sft_trainer(
    model: Any, tokenizer: Any, rows: Dataset, config: SFTConfig, peft_config: Any = None, **options: Any
) -> DebateSFTTrainer:
    """Build a trainer that is ready to train.

    Args:
        model: a causal language model, or a PeftModel whose adapter is to be trained on.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: a Dataset of the output of `encode_speeches`.
        config: TRL's SFTConfig; with `max_length` None no row is cut or left out.
        peft_config: LoRA settings of a new adapter.
        options: further arguments of SFTTrainer, such as `eval_dataset` or `callbacks`.

    Raises:
        UserError: packing has no length, or a strategy that cuts rows.
    """
    if config.packing and config.max_length is None:
        raise UserError("train.packing needs train.max_length: the tokens of a packed row")
    if config.packing and config.packing_strategy == "wrapped":
        raise UserError("train.packing_strategy 'wrapped' cuts rows and lets them see each other; use 'bfd'")
    return DebateSFTTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft_config, **options
    )
