"""SFT on transcripts: TRL's trainer, with the loss on the speech and the end of its turn only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from debate_rl.trainers.logprobs import token_logprobs
from debate_rl.trainers.rows import SftRow
from debate_rl.trainers.tokens import Encoder


class DebateSFTTrainer(SFTTrainer):
    """TRL's SFTTrainer on encoded rows; on a CPU the head skips the prompts."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss over the labelled tokens of all processes and accumulated micro-batches, a scalar."""
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
    """
    return DebateSFTTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, peft_config=peft_config, **options
    )
