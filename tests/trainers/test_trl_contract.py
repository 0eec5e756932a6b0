"""What our trainers take for granted of TRL: private methods and names. A new TRL that breaks one fails here first.

First GRPO, tried on TRL alone with a rollout that is written down; then DPO, SFT and the reward trainer, mostly without
training.
"""

import inspect
from typing import ClassVar

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.trainer.utils import RepeatSampler, use_adapter

from debate_rl.trainers.common.settings import Objective
from debate_rl.trainers.dpo import DebateDPOTrainer, dpo_trainer
from debate_rl.trainers.reward import PairRewardTrainer, reward_trainer

G = 3
PROMPT, COMPLETION = [5, 9, 11], [12, 13, 14, 5]


class Spy(GRPOTrainer):
    """Keeps the batches that come out of scoring."""

    scored: ClassVar[list] = []

    def _generate_and_score_completions(self, inputs):
        found = super()._generate_and_score_completions(inputs)
        type(self).scored.append({name: value.clone() for name, value in found.items() if torch.is_tensor(value)})
        return found


class Script:
    """A rollout and rewards that are written down, and what TRL handed over."""

    def __init__(self, rewards, mask=(1, 1, 1, 1), second=0.0):
        self.rewards, self.mask, self.second = rewards, list(mask), second
        self.prompts, self.columns, self.trainers = [], [], []

    def roll(self, prompts, trainer):
        self.prompts.append(list(prompts))
        self.trainers.append(trainer)
        many = range(len(prompts))
        # The last token differs, so that rows can be told apart.
        return {
            "prompt_ids": [PROMPT] * len(prompts), "completion_ids": [[*COMPLETION, 15 + row] for row in many],
            "logprobs": None, "env_mask": [[*self.mask, 1] if any(self.mask) else [0] * 5 for _ in many],
            "earned": [self.rewards[row % len(self.rewards)] for row in many], "step": {"number": 7},
        }  # fmt: skip

    def first(self, **columns):
        self.columns.append(columns)
        columns["log_metric"]("rollout/games", 4.0)
        return columns["earned"]

    def other(self, **columns):
        return [None if one is None else self.second for one in columns["earned"]]


@pytest.fixture
def train(base, tmp_path):
    def run(script, model=None, rows=("0/A/0", "0/B/0"), steps=1, **options):
        Spy.scored = []
        settings = {
            "max_steps": steps, "num_generations": G, "per_device_train_batch_size": 2 * G, "logging_steps": 1,
            "shuffle_dataset": False, "learning_rate": 0.1, "max_grad_norm": 0.0,
            "lr_scheduler_type": "constant", **options,
        }  # fmt: skip
        config = GRPOConfig(
            output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, gradient_checkpointing=False,
            report_to="none", save_strategy="no", disable_tqdm=True, **settings,
        )  # fmt: skip
        model = model or AutoModelForCausalLM.from_pretrained(base)
        trainer = Spy(
            model=model, args=config, train_dataset=Dataset.from_list([{"prompt": row} for row in rows]),
            processing_class=AutoTokenizer.from_pretrained(base), rollout_func=script.roll,
            reward_funcs=[script.first, script.other],
        )  # fmt: skip
        before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        moved = max(float((w.detach() - before[name]).abs().max()) for name, w in trainer.model.named_parameters())
        return trainer, moved

    return run


def test_a_rollout_is_given_each_prompt_num_generations_times_in_a_row_and_the_trainer(train):
    script = Script([0.0, 1.0, 2.0])
    trainer, moved = train(script)
    assert script.prompts == [["0/A/0"] * G + ["0/B/0"] * G]
    assert script.trainers == [trainer]
    assert trainer.state.global_step == 1 and moved > 0


def test_the_tokens_of_a_rollout_are_the_ones_trained_on(train):
    train(Script([0.0, 1.0, 2.0]))
    (scored,) = Spy.scored
    assert scored["prompt_ids"].tolist() == [PROMPT] * 2 * G
    assert scored["completion_ids"].tolist() == [[*COMPLETION, 15 + row] for row in range(2 * G)]


def test_further_columns_reach_the_rewards_and_numbers_reach_the_log(train):
    script = Script([0.0, 1.0, 2.0])
    trainer, _ = train(script)
    (columns,) = script.columns
    assert columns["earned"] == [0.0, 1.0, 2.0] * 2
    assert columns["step"] == [{"number": 7}] * 2 * G
    logged = trainer.state.log_history[0]
    assert logged["rollout/games"] == 4.0
    assert logged["rewards/first/mean"] == pytest.approx(1.0) and logged["rewards/other/mean"] == 0.0


def test_the_baseline_is_the_mean_of_the_group_and_rewards_are_added_up(train):
    train(Script([0.0, 1.0, 2.0, 5.0, 5.0, 8.0], second=3.0), scale_rewards="none")
    assert Spy.scored[0]["advantages"].tolist() == pytest.approx([-1, 0, 1, -1, -1, 2])


def test_advantages_are_divided_by_the_spread_of_the_group(train):
    train(Script([0.0, 1.0, 2.0, 0.0, 10.0, 20.0]), scale_rewards="group")
    assert Spy.scored[0]["advantages"].tolist() == pytest.approx([-1, 0, 1, -1, 0, 1], abs=1e-3)


def test_a_speech_without_a_reward_is_no_part_of_the_baseline_and_has_no_advantage(train):
    train(Script([0.0, None, 2.0]), scale_rewards="none")
    assert Spy.scored[0]["advantages"].tolist() == pytest.approx([-1, 0, 1] * 2)
    train(Script([None, None, None]))
    assert Spy.scored[0]["advantages"].tolist() == [0.0] * 2 * G


def test_masked_tokens_are_not_learnt(train, base):
    _, moved = train(Script([0.0, 1.0, 2.0], mask=(0, 0, 0, 0)))
    assert moved == 0.0
    _, moved = train(Script([0.0, 1.0, 2.0], mask=(0, 1, 0, 0)))
    scored = Spy.scored[0]
    assert moved > 0
    assert scored["tool_mask"].tolist() == [[0, 1, 0, 0, 1]] * 2 * G
    assert float(scored["num_items_in_batch"]) == 2 * 2 * G


def test_masked_rows_do_not_pull_towards_the_reference_either(train, base):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))
    _, moved = train(Script([0.0, 1.0, 2.0], mask=(0, 0, 0, 0)), model=model, beta=1.0, steps=2)
    assert moved == 0.0


def test_the_reference_of_an_adapter_is_a_copy_of_it_and_not_the_base(train, base, tmp_path):
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "adapter")
    start = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter", is_trainable=True
    )
    trainer, moved = train(Script([0.0, 1.0, 2.0]), model=start, beta=0.1, steps=2, learning_rate=0.01)
    assert moved > 0
    kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert kl[0] == pytest.approx(0, abs=1e-5) and kl[1] > 0
    reference = {n: w for n, w in trainer.model.named_parameters() if ".ref." in n}
    saved = {n: w for n, w in model.named_parameters() if "lora" in n}
    assert reference and not any(w.requires_grad for w in reference.values())
    assert all(torch.equal(w, saved[n.replace(".ref.", ".default.")]) for n, w in reference.items())


def test_log_probabilities_are_those_of_the_sampling_temperature(train, base):
    script = Script([0.0, 1.0, 2.0])
    trainer, _ = train(script, learning_rate=0.0, temperature=0.5)
    scored = Spy.scored[0]
    ids = torch.cat([scored["prompt_ids"], scored["completion_ids"]], 1)
    plain = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        logits = plain(ids).logits[:, :-1] / 0.5
        expected = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][:, -5:]
        found, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, torch.ones_like(ids), 5)
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_sampler_repeats_whole_batches():
    rows = list(RepeatSampler(range(5), mini_repeat_count=1, batch_size=2, repeat_count=2, shuffle=False, seed=0))
    assert rows == [0, 1, 0, 1, 2, 3, 2, 3]


class EncodedDPOTrainer(DPOTrainer):
    """TRL's trainer on rows that are encoded already, which TRL's own preparation would refuse."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


OFFLINE = {
    "sft": (SFTTrainer, SFTConfig),
    "dpo": (EncodedDPOTrainer, DPOConfig),
    "reward": (RewardTrainer, RewardConfig),
}
ENCODED = {
    "sft": {"input_ids": [5, 9, 11, 12, 5], "labels": [-100, -100, -100, 12, 5]},
    "dpo": {"prompt_ids": [5, 9, 11], "chosen_ids": [12, 13, 5], "rejected_ids": [14, 5], "target": 0.7},
    "reward": {"chosen_ids": [5, 9, 12, 5], "rejected_ids": [5, 9, 5], "target": 0.7, "weight": 1.0, "margin": 0.0},
}


def config_of(kind, folder, **fields):
    _, config = OFFLINE[kind]
    return config(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        max_length=None,
        per_device_train_batch_size=2,
        **fields,
    )


def model_of(kind, base):
    if kind == "reward":
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    return AutoModelForCausalLM.from_pretrained(base)


@pytest.fixture
def make_trainer(base, tmp_path):
    """Make TRL's own trainer of a kind, or a class derived from it, on four encoded rows."""

    def make(kind, trainer_class=None, model=None, config=None, **options):
        return (trainer_class or OFFLINE[kind][0])(
            model=model or model_of(kind, base),
            args=config_of(kind, tmp_path, **(config or {})),
            train_dataset=Dataset.from_list([ENCODED[kind]] * 4),
            processing_class=AutoTokenizer.from_pretrained(base),
            **options,
        )

    return make


@pytest.fixture
def adapted(base, tmp_path):
    """A model with a loaded adapter that changes its outputs."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(base)
    return PeftModel.from_pretrained(plain, tmp_path / "adapter", is_trainable=True)


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_rows_go_through_prepare_dataset_once_and_its_result_is_the_data_set(make_trainer, kind):
    calls = []

    class Recorder(OFFLINE[kind][0]):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            calls.append(dataset)
            return dataset

    rows = Dataset.from_list([ENCODED[kind]] * 2)
    trainer = make_trainer(kind, Recorder, eval_dataset=rows)
    assert [len(dataset) for dataset in calls] == [4, 2]
    assert trainer.train_dataset is calls[0] and trainer.eval_dataset is rows


def test_ours_replace_prepare_dataset_and_the_signature_columns_of_trl():
    for name in ("_prepare_dataset", "_set_signature_columns_if_needed"):
        for ours, theirs in ((DebateDPOTrainer, DPOTrainer), (PairRewardTrainer, RewardTrainer)):
            assert name in vars(theirs), f"TRL's {theirs.__name__} has no {name}: ours would never be called"
            assert name in vars(ours)


def test_sft_takes_encoded_rows_as_they_are(make_trainer):
    trainer = make_trainer("sft")
    assert [{name: row[name] for name in ENCODED["sft"]} for row in trainer.train_dataset] == [ENCODED["sft"]] * 4


def test_packed_sft_rows_have_the_lengths_of_the_rows_in_them(make_trainer, tmp_path, base):
    config = config_of("sft", tmp_path, packing=True)
    config.max_length = 12
    trainer = SFTTrainer(
        model=model_of("sft", base),
        args=config,
        train_dataset=Dataset.from_list([ENCODED["sft"]] * 4),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    assert trainer.train_dataset["seq_lengths"] == [[5, 5], [5, 5]]
    labels = trainer.train_dataset[0]["labels"]
    assert [labels[at] for at in (3, 4, 8, 9)] == [12, 5, 12, 5]


@pytest.mark.parametrize("kind", OFFLINE)
def test_signature_columns_are_a_list_that_is_made_on_demand(make_trainer, kind):
    trainer = make_trainer(kind)
    trainer._signature_columns = None
    trainer._set_signature_columns_if_needed()
    assert isinstance(trainer._signature_columns, list)
    columns = {
        "sft": {"input_ids", "labels", "seq_lengths"},
        "dpo": {"prompt_ids", "chosen_ids", "rejected_ids", "ref_chosen_logps", "ref_rejected_logps"},
        "reward": {"chosen_ids", "rejected_ids", "margin"},
    }
    assert columns[kind] <= set(trainer._signature_columns)


def test_targets_and_weights_reach_the_batch(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    pairs = Dataset.from_list([ENCODED["dpo"]] * 4)
    dpo = dpo_trainer(model_of("dpo", base), tokenizer, pairs, config_of("dpo", tmp_path), Objective())
    assert next(iter(dpo.get_train_dataloader()))["target"].tolist() == pytest.approx([0.7, 0.7])
    replies = Dataset.from_list([ENCODED["reward"]] * 4)
    reward = reward_trainer(model_of("reward", base), tokenizer, replies, config_of("reward", tmp_path))
    batch = next(iter(reward.get_train_dataloader()))
    assert batch["target"].tolist() == pytest.approx([0.7, 0.7]) and batch["weight"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("kind", OFFLINE)
def test_metrics_are_lists_by_mode_and_name_whose_means_are_logged_once(make_trainer, kind):
    trainer = make_trainer(kind)
    for mode, prefix in (("train", ""), ("eval", "eval_")):
        trainer.model.train(mode == "train")
        trainer._metrics[mode]["ours"].append(1.0)
        trainer._metrics[mode]["ours"].append(3.0)
        logs = {"loss": 0.5}
        trainer.log(logs)
        assert logs[f"{prefix}ours"] == 2.0
        again = {"loss": 0.5}
        trainer.log(again)
        assert f"{prefix}ours" not in again


def test_a_loaded_adapter_is_copied_under_the_name_ref_and_frozen(make_trainer, adapted):
    trainer = make_trainer("dpo", model=adapted)
    # If this fails, `compute_ref_log_probs` of `debate_rl.trainers.dpo` looks for the wrong adapter, and the base would
    # silently become the reference of every DPO run that continues from an adapter.
    assert set(trainer.model.peft_config) == {"default", "ref"}
    assert trainer.ref_model is None
    weights = dict(trainer.model.named_parameters())
    copies = {name: weight for name, weight in weights.items() if ".ref." in name}
    assert copies and not any(weight.requires_grad for weight in copies.values())
    for name, weight in copies.items():
        assert torch.equal(weight, weights[name.replace(".ref.", ".default.")])


def test_the_reference_is_the_adapter_that_training_starts_from_and_not_the_base(base, adapted, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = Dataset.from_list([ENCODED["dpo"]] * 4)
    trainer = dpo_trainer(adapted, tokenizer, rows, config_of("dpo", tmp_path), Objective())
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    network = trainer.model
    chosen, rejected = trainer.compute_ref_log_probs(network, batch)
    with torch.no_grad():
        start, _ = trainer._logps(network, batch)
        with use_adapter(network, adapter_name=None):
            without, _ = trainer._logps(network, batch)
    assert torch.allclose(chosen, start.chosen, atol=1e-5) and torch.allclose(rejected, start.rejected, atol=1e-5)
    assert (chosen - without.chosen).abs().min() > 0.01
    assert network.active_adapter == "default"

    # The reference stays where it is when the policy moves.
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B.default" in name:
                weight.add_(0.1)
    again, _ = trainer.compute_ref_log_probs(network, batch)
    assert torch.allclose(again, chosen, atol=1e-5)
    with torch.no_grad():
        moved, _ = trainer._logps(network, batch)
    assert (moved.chosen - chosen).abs().min() > 0.01


def test_a_new_adapter_has_no_copy_and_its_reference_is_the_base(make_trainer):
    trainer = make_trainer("dpo", peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert set(trainer.model.peft_config) == {"default"} and trainer.ref_model is None


def test_a_reference_model_that_is_given_is_used(make_trainer, base):
    reference = model_of("dpo", base)
    trainer = make_trainer("dpo", ref_model=reference)
    assert trainer.accelerator.unwrap_model(trainer.ref_model) is reference


def test_log_probabilities_computed_before_training_come_from_compute_ref_log_probs(make_trainer):
    class Constant(EncodedDPOTrainer):
        def compute_ref_log_probs(self, model, inputs):
            count = len(inputs["input_ids"]) // 2
            return torch.full((count,), -1.5), torch.full((count,), -2.5)

    trainer = make_trainer("dpo", Constant, config={"precompute_ref_log_probs": True})
    trainer.get_train_dataloader()
    assert trainer.train_dataset["ref_chosen_logps"] == [-1.5] * 4
    assert trainer.train_dataset["ref_rejected_logps"] == [-2.5] * 4


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("sft", ("aux_loss_enabled", "label_smoother", "data_collator")),
        ("dpo", ("aux_loss_enabled", "router_aux_loss_coef", "beta", "ref_model", "data_collator")),
        ("reward", ("data_collator", "model_accepts_loss_kwargs")),
    ],
)
def test_trainers_have_the_attributes_that_ours_read_or_set(make_trainer, kind, names):
    trainer = make_trainer(kind)
    missing = [name for name in names if not hasattr(trainer, name)]
    assert not missing


@pytest.mark.parametrize("trainer_class", [SFTTrainer, DPOTrainer, RewardTrainer])
def test_compute_loss_has_the_parameters_that_ours_take(trainer_class):
    parameters = list(inspect.signature(trainer_class.compute_loss).parameters)
    assert parameters == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
