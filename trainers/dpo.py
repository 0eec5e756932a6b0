"""DPO on judge preferences: TRL's trainer with soft targets, an SFT term, and summed or length-normalised log-ratios.

Arnesen, Rein and Michael 2024 (arXiv 2409.16636) divide every log-probability by its completion's token count, so
their beta of 0.5 on 200-token speeches acts like 0.0025 on sums. `Objective.normalise` chooses between the two.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from debate_rl.errors import UserError
from debate_rl.trainers.common.attention import share_prompts
from debate_rl.trainers.common.logprobs import PairLogprobs, pair_logprobs
from debate_rl.trainers.common.losses import log_ratio_gap, soft_dpo, soft_ipo, with_sft
from debate_rl.trainers.common.micro_batches import InParts
from debate_rl.trainers.common.pairs import PairCollator
from debate_rl.trainers.common.settings import Objective

_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "nll/chosen",
)
"""Logged means, in the order in which `_note` stacks them."""


class DebateDPOTrainer(InParts, DPOTrainer):
    """TRL's DPOTrainer on encoded rows, with the losses of `debate_rl.trainers.common.losses`.

    With a target of 1, `sft_weight` 0 and sums the loss is TRL's `sigmoid`. The reference is TRL's: the base with the
    adapter off, or a frozen copy of the adapter if training continues from one.

    Args:
        objective: the loss.
    """

    data_collator: Any
    _signature_columns: Any

    def __init__(self, *args: Any, objective: Objective, **kwargs: Any) -> None:
        self.objective = objective
        self._checked = False
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Return the rows as they are.

        `encode_pairs` has encoded them as engines encode a prompt. TRL would encode prompt and answer together, and cut
        where the two encodings differ.
        """
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # The Trainer drops columns that it does not list before the collator sees them.
        if "target" not in self._signature_columns:
            self._signature_columns.append("target")

    def row_tokens(self, example: dict[str, Any]) -> int:
        """Tokens that the model reads of an encoded pair."""
        prompt = len(example["prompt_ids"])
        speeches = [len(example["chosen_ids"]), len(example["rejected_ids"])]
        return prompt + sum(speeches) + 1 if self.data_collator.share_prompt else 2 * (prompt + max(speeches))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean loss of a micro-batch of pairs, a scalar; with the model's outputs if `return_outputs`."""
        if self.data_collator.share_prompt and not self._checked:
            self._check_shared(model)
        # TRL adds these columns with `precompute_ref_log_probs`.
        if "ref_chosen_logps" in inputs:
            reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            reference = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        policy, outputs = self._logps(model, inputs, aux=self.aux_loss_enabled)
        loss = self._loss(policy, reference, inputs["target"]).mean().float() * self.share
        if self.aux_loss_enabled:  # mixture of experts: TRL's load-balancing term
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss * self.share
        self._note(policy, reference)
        return (loss, outputs) if return_outputs else loss

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Summed log-probabilities of chosen and rejected under TRL's choice of reference, (pairs,) each."""
        adapter: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.ref_model is None and is_peft_model(self.model):
            network = self.accelerator.unwrap_model(self.model)
            # TRL keeps a frozen copy "ref" of an adapter that training continues from; else the base is the reference.
            adapter = use_adapter(network, adapter_name="ref" if "ref" in network.peft_config else None)
        no_checkpointing = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), no_checkpointing, adapter, self.accelerator.autocast():
            logps, _ = self._logps(model, inputs)
        return logps.chosen, logps.rejected

    def _logps(self, model: Any, inputs: dict[str, Any], aux: bool = False) -> tuple[PairLogprobs, Any]:
        """Log-probabilities of a batch of pairs, and the model's outputs."""
        vocabulary = self.model.config.get_text_config().vocab_size
        options = {"output_router_logits": True} if aux else {}
        return pair_logprobs(model, inputs, vocabulary, self.data_collator.share_prompt, **options)

    def _loss(self, policy: PairLogprobs, reference: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """Losses of pairs, (pairs,)."""
        objective = self.objective
        lengths = None
        if objective.normalise:
            lengths = (policy.chosen_length, policy.rejected_length)
        gap = log_ratio_gap(policy.chosen, policy.rejected, *reference, lengths)
        if objective.loss == "dpo":
            losses = soft_dpo(gap, target, self.beta)
        else:
            losses = soft_ipo(gap, target, self.beta)
        return with_sft(losses, policy.chosen, objective.sft_weight, lengths[0] if lengths else None)

    def _check_shared(self, model: Any) -> None:
        """Encode the first pairs with and without a shared prompt and compare.

        Raises:
            UserError: the model gives a speech another probability after a shared prompt.
        """
        collator: PairCollator = self.data_collator
        was_training = model.training
        rows = [self.train_dataset[index] for index in range(min(2, len(self.train_dataset)))]
        logprobs = []
        model.eval()
        for shared in (True, False):
            self.data_collator = PairCollator(collator.pad_id, shared)
            batch = self._prepare_inputs(self.data_collator(rows))
            with torch.no_grad(), self.compute_loss_context_manager():
                logps, _ = self._logps(model, batch)
            logprobs.append(torch.cat([logps.chosen, logps.rejected]).float())
        self.data_collator = collator
        model.train(was_training)
        # Wide enough for bfloat16; a speech that sees the other one differs by far more.
        if not torch.allclose(logprobs[0], logprobs[1], rtol=0.02, atol=0.05):
            raise UserError("share_prompt: this model reads a shared prompt otherwise than its own; set it to false")
        self._checked = True

    def _note(self, policy: PairLogprobs, reference: tuple[Tensor, Tensor]) -> None:
        """Keep a step's metrics as one tensor, so that nothing waits for the device until `log`."""
        with torch.no_grad():
            chosen_ratio = policy.chosen - reference[0]
            rejected_ratio = policy.rejected - reference[1]
            metrics = [
                self.beta * chosen_ratio,
                self.beta * rejected_ratio,
                (chosen_ratio > rejected_ratio).float(),
                policy.chosen,
                policy.rejected,
                -policy.chosen / policy.chosen_length.clamp(min=1),
            ]
            means = torch.stack(metrics).mean(1).float()
        self.note(self._metrics["train" if self.model.training else "eval"]["row"], means)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add TRL's reward metrics (of summed log-ratios), averaged since the last log and over processes."""
        mode = "train" if self.model.training else "eval"
        rows = self._metrics[mode].pop("row", [])
        if rows:
            means = self.accelerator.reduce(torch.stack(rows).mean(0), "mean").tolist()
            for name, value in zip(_METRICS, means, strict=True):
                self._metrics[mode][name].append(value)
            self._metrics[mode]["rewards/margins"].append(means[0] - means[1])
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: counting walks over all parameters, which costs more than a step of a small model."""
        return 0


def dpo_trainer(
    model: Any,
    tokenizer: Any,
    rows: Dataset,
    config: DPOConfig,
    objective: Objective,
    peft_config: Any = None,
    share_prompt: bool = False,
    **options: Any,
) -> DebateDPOTrainer:
    """Build a trainer that is ready to train.

    Args:
        model: a causal language model, or a PeftModel whose adapter is to be trained on.
        tokenizer: its tokenizer, with a chat template and a padding token.
        rows: a Dataset of the output of `encode_pairs`; `precompute_ref_log_probs` with several processes needs it
            loaded from disk.
        config: TRL's DPOConfig. Its `loss_type` is not used; every other field is.
        objective: the loss.
        peft_config: LoRA settings of a new adapter.
        share_prompt: encode each prompt once for its two speeches (see `debate_rl.trainers.common.pairs`).
        options: further arguments of DPOTrainer, such as `ref_model`, `eval_dataset` or `callbacks`.

    Raises:
        UserError: the model can not share prompts.
    """
    if share_prompt:
        # The reference reads the same batches, so it has to read shared prompts as well.
        for network in (model, options.get("ref_model")):
            if network is not None:
                share_prompts(network)
    return DebateDPOTrainer(
        model=model,
        args=config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=peft_config,
        objective=objective,
        data_collator=PairCollator(tokenizer.pad_token_id, share_prompt),
        **options,
    )
