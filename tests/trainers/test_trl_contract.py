"""What online training takes for granted of TRL's experimental hooks. A new TRL that breaks it fails here first.

Everything that `debate_rl.trainers.grpo.trainer` leans on is tried on TRL alone, with a rollout that is written down.
"""

from typing import ClassVar

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler

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
