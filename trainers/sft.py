"""SFT on transcripts: TRL's trainer, with the loss on the speech and the end of its turn only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from debate_rl.errors import UserError
from debate_rl.trainers.common.logprobs import token_logprobs
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.tokens import Encoder


class DebateSFTTrainer(SFTTrainer):
    """TRL's SFTTrainer on encoded rows; on a CPU the head skips the prompts, and packed rows can not see each other."""

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
        ours = self.args.loss_type == "nll" and self.label_smoother is None and not self.aux_loss_enabled
        if return_outputs or not ours or "attention_mask" not in inputs or inputs["labels"].device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        reads = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        found = token_logprobs(model, reads, labels, self.model.config.get_text_config().vocab_size)
        count = (labels[:, 1:] != -100).sum()
        loss = -found.values.sum() / (count if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes  # the count is over processes, gradients are averaged
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["mean_token_accuracy"].append((found.top1.sum() / count).item())
        return loss

    def _check_packing(self, model: Any) -> None:
        """Compare the last row of a packed one with the same row alone.

        Raises:
            UserError: the model gives its tokens other probabilities.
        """
        self._checked = True
        packed = next((row for row in self.train_dataset if len(row["seq_lengths"]) > 1), None)
        if packed is None:
            return  # nothing was short enough to share a row
        start = sum(packed["seq_lengths"][:-1])
        alone = {name: packed[name][start:] for name in ("input_ids", "labels")}
        alone["seq_lengths"] = packed["seq_lengths"][-1:]
        training = model.training
        model.eval()
        found = []
        for row in (packed, alone):
            batch = self._prepare_inputs(self.data_collator([row]))
            labels = batch.pop("labels")[:, 1:]
            with torch.no_grad(), self.compute_loss_context_manager():
                logits = model(**batch, use_cache=False).logits[:, :-1].float()
            learnt = labels != -100
            values = torch.log_softmax(logits[learnt], -1).gather(1, labels[learnt][:, None])[:, 0]
            found.append(values[-sum(label != -100 for label in alone["labels"]) :])
        model.train(training)
        if not torch.allclose(found[0], found[1], rtol=0.02, atol=0.05):
            kind = getattr(self.model.config, "_attn_implementation", "its attention")
            raise UserError(
                f"train.packing: in this model ({self.model.config.model_type}, {kind}) a packed row sees the one "
                "before it; set train.packing false, or another attn_implementation in train.model_init_kwargs"
            )

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: the walk over all parameters costs more than a step of a small model."""
        return 0


def encode_speeches(tokenizer: Any, rows: Sequence[SftRow]) -> list[dict[str, Any]]:
    """Token ids and labels of each row; labels are -100 on the prompt, so the loss is on speech and end of turn.

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
    """A trainer ready to train.

    Args:
        model: a causal language model, or a PeftModel whose adapter is to be trained on.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: a Dataset of what `encode_speeches` gave.
        config: TRL's SFTConfig; with `max_length` None no row is cut or dropped.
        peft_config: LoRA settings of a new adapter.
        options: further arguments of SFTTrainer, such as `eval_dataset` or `callbacks`.

    Raises:
        UserError: rows are to be packed without a length, or in a way that cuts them.
    """
    if config.packing and config.max_length is None:
        raise UserError("train.packing needs train.max_length: the tokens of a packed row")
    if config.packing and config.packing_strategy == "wrapped":
        raise UserError("train.packing_strategy 'wrapped' cuts rows and lets them see each other; use 'bfd'")
    return DebateSFTTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft_config, **options
    )
