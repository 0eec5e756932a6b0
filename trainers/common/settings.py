"""Records of a training job. They import no torch, so that a config is read quickly."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.records import Record
from debate_rl.trainers.grpo.judge_settings import Judging
from debate_rl.trainers.grpo.settings import Online

Kind = Literal["sft", "dpo", "grpo", "judge", "classifier", "reward"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Target = Literal["prob", "logprob", "logit", "sigmoid", "binary"]


class Lora(Record):
    """Settings of a low-rank adapter. Published: r 64 for SFT; r 128, alpha 16 for DPO (Arnesen et al. 2024)."""

    r: int = Field(default=64, ge=1)
    """Rank."""
    alpha: int = Field(default=64, ge=1)
    """Updates are scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout of the adapter's input while it is trained."""
    target_modules: str | list[str] = "all-linear"
    """Layers that are adapted; `all-linear` is every linear layer except the head."""

    def config(self, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> Any:
        """The peft config; for SEQ_CLS peft also trains and saves the new head (`score` or `classifier`) itself."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            task_type=task,
        )


class Objective(Record):
    """The loss of DPO; its beta is a field of `train`.

    Example (the published runs on debates):
        Objective(target="prob", gamma=7, sft_weight=0.005, normalise=True)
    Example (plain DPO of Rafailov et al. 2023):
        Objective(target="binary", sft_weight=0, normalise=False)
    """

    loss: Literal["dpo", "ipo"] = "dpo"
    """dpo: soft DPO. ipo: soft IPO."""
    target: Target = "prob"
    """How the judge's two probabilities give the probability that the chosen speech is better."""
    gamma: float | None = Field(default=None, gt=0)
    """Sharpness of `prob` and `logprob`; None is the published 5.75 and 2.25."""
    m: float = Field(default=5.0, gt=0)
    """Largest reward of `sigmoid`."""
    t: float = Field(default=0.125, gt=0)
    """Width of `sigmoid`."""
    sft_weight: float = Field(default=0.005, ge=0, le=1)
    """Weight a of the SFT term; the preference loss has weight 1 - a."""
    normalise: bool = True
    """Divide log-probabilities by the tokens of their completion; False sums them, as TRL does."""


class DpoComparison(Record):
    """What two DPO trainings share or differ in, written with their results: those that differ in the target alone are
    compared with each other.

    Example:
        DpoComparison(start="sft", preferences="preferences", loss="ce", target="prob")
    """

    start: str
    """Player that was trained further."""
    preferences: str
    """Stage that made the rows."""
    loss: str
    target: str


class StudentLoss(Record):
    """The loss of a judge, classifier or reward model on soft labels w of a weaker model (Burns et al. 2023, sec. 4.3).

    Example:
        StudentLoss(kind="confidence", weight=0.75)
    """

    kind: Literal["xent", "confidence", "product", "entropy"] = "xent"
    """xent: CE(p, w). confidence: CE(p, (1 - c) w + c y) with the model's own hard label y. product: CE(p, t) with
    t ~ p^b w^a. entropy: (1 - c) CE(p, w) + c H(p), the model's own soft label. c rises from 0 to `weight`."""
    weight: float = Field(default=0.5, ge=0, le=1)
    """Largest c of confidence and entropy; 0.75 is published for the largest students."""
    warmup: float = Field(default=0.2, ge=0, le=1)
    """Share of the training over which c rises."""
    label_power: float = Field(default=1.0, gt=0)
    """a of product."""
    own_power: float = Field(default=1.0, ge=0)
    """b of product; 0 with a = 1 is xent."""


class Weights(Record):
    """A model with an optional LoRA adapter.

    Example:
        Weights(model="meta-llama/Meta-Llama-3-8B-Instruct", adapter="runs/x/sft/adapter")
    """

    model: str
    adapter: str | None = None


class Job(Record):
    """One training run.

    Example:
        Job(kind="dpo", model="meta-llama/Meta-Llama-3-8B-Instruct", adapter="runs/x/sft/adapter",
            rows="runs/x/preferences/rows.jsonl", out="runs/x/dpo", objective=Objective(gamma=7),
            train={"learning_rate": 1e-4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 16})
    """

    kind: Kind
    model: str
    """Base model: a folder or a hub name."""
    rows: str
    """JSON-lines file of SftRow, PreferenceRow, JudgeRow, ClassifierRow or RewardRow; for kind grpo, of Question or,
    where a judge learns, of Transcript."""
    out: str
    """Folder for `adapter/` (or `model/`), `history.json`, `result.json` and, while it runs, `checkpoints/`."""
    adapter: str | None = None
    """LoRA adapter to continue from; in DPO and GRPO a frozen copy of it is the reference. With `lora` null it is
    merged into the base first."""
    reference: Weights | None = None
    """DPO's reference, if it differs from the start of the training. With `lora` it must be an adapter of the same base
    and rank as `adapter`, or the base itself."""
    lora: Lora | None = Lora()
    """Settings of a new adapter; null trains every weight. With `adapter`, that adapter's own settings hold."""
    probe: bool = False
    """Train only the classifier's head (a linear probe); needs `lora` null."""
    quantize: Literal["nf4"] | None = None
    """Hold the base's weights in 4 bits; needs `lora`."""
    dtype: Dtype = "auto"
    """Type of the base's weights: `auto` is bfloat16 for LoRA on a GPU that has it, else float32."""
    objective: Objective = Objective()
    """Loss of kind dpo; ignored by the others."""
    loss: StudentLoss = StudentLoss()
    """Loss of kinds judge, classifier and reward; ignored by the others."""
    online: Online | None = None
    """Rules, judge, rewards and opponents of kind grpo, where a debater learns."""
    judging: Judging | None = None
    """Rewards and form of the answers of kind grpo, where a judge learns; the rows are transcripts."""
    share_prompt: bool = False
    """Encode each prompt once for the two speeches of a DPO pair: the same numbers in about half the time, for models
    with full attention in every layer (Llama, Qwen 2 and 3, Mixtral)."""
    eval_rows: str | None = None
    """Rows to evaluate on after each epoch, or as `eval_strategy` says."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Fields of TRL's SFTConfig, DPOConfig, GRPOConfig or RewardConfig, or of transformers' TrainingArguments, passed
    on unchanged. Besides them `model_init_kwargs` (passed to from_pretrained) and, except for grpo, `max_length`
    (tokens of a row)."""
    seed: int = 0
    """Seed of new weights, the order of the rows and dropout."""

    @model_validator(mode="after")
    def _check_together(self) -> Job:
        # A probe is a head on a frozen body; any adapter would change the body.
        if self.probe and (self.kind != "classifier" or self.lora is not None or self.adapter is not None):
            raise ValueError("'probe' is for kind 'classifier' with 'lora' null and no 'adapter'")
        if self.quantize is not None and self.lora is None:
            raise ValueError("'quantize' needs 'lora': 4-bit weights can not be trained")
        if self.online is not None and self.judging is not None:
            raise ValueError("a debater learns by 'online', a judge by 'judging'; set one of them")
        if (self.kind == "grpo") != (self.online is not None or self.judging is not None):
            raise ValueError("kind 'grpo' and 'online' belong together (for a judge, 'judging')")
        # Online training plays games of its own to evaluate, which no file of rows can hold.
        if self.kind == "grpo" and self.eval_rows is not None:
            raise ValueError("'eval_rows' is not for kind 'grpo'; set 'online.watch'")
        if self.reference is not None:
            # An adapter and its reference share one base in memory, so with LoRA both must stand on the same model.
            if self.kind != "dpo" or (self.lora is not None and self.reference.model != self.model):
                raise ValueError("'reference' is for kind 'dpo', and with 'lora' on the same base model")
            if self.lora is not None and self.adapter is None:
                raise ValueError("'reference' needs 'adapter' to start from; without one the base is the reference")
        return self


class Result(Record):
    """The outcome of a job.

    Example:
        Result(kind="sft", path="runs/x/sft/adapter", base="9f86d081884c7d65", rows=4290, too_long=3, steps=537,
               loss=1.82, seconds=5210.4)
    """

    kind: Kind
    path: str
    """Folder of the adapter, or of the model where every weight was trained."""
    base: str
    """Fingerprint of the base model."""
    rows: int
    """Rows in the file."""
    too_long: int = 0
    """Rows over `max_length`: left out, or for a classifier or reward model cut at their beginning."""
    steps: int
    loss: float
    """Mean over the training."""
    warnings: tuple[str, ...] = ()
    """Signs that it taught nothing (see `warning_signs`)."""
    seconds: float
    """Wall time of the last part: from the start, or from the checkpoint that it resumed from."""
