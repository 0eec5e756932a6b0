"""DPO on judge preferences: TRL's numbers where the maths is TRL's, ours by hand where it is not."""

import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from debate_rl.errors import UserError
from debate_rl.records import read_json
from debate_rl.trainers.common.job import run_job
from debate_rl.trainers.common.pairs import encode_pairs
from debate_rl.trainers.common.settings import Lora, Objective
from tests.trainers.tiny import make_tokenizer, pair_examples

PLAIN = Objective(target="binary", sft_weight=0, normalise=False)


@pytest.fixture
def config(tmp_path):
    from trl import DPOConfig

    def make(**fields):
        settings = {
            "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "gradient_checkpointing": False,
            "max_length": None, "logging_steps": 1, "max_steps": 5, "per_device_train_batch_size": 4,
            "learning_rate": 5e-3, "save_strategy": "no", "beta": 0.3, "disable_tqdm": True, **fields,
        }  # fmt: skip
        return DPOConfig(**settings)

    return make


def load(base):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ours(base, config, objective, rows=None, model=None, **options):
    from debate_rl.trainers.dpo import dpo_trainer

    tokenizer = make_tokenizer("chatml")
    encoded = Dataset.from_list(encode_pairs(tokenizer, rows or pair_examples(12), objective))
    return dpo_trainer(model or load(base), tokenizer, encoded, config, objective, **options)


@pytest.mark.parametrize("full", [False, True])
def test_certain_targets_and_sums_give_trl_sigmoid_losses(base, config, full):
    from trl import DPOTrainer

    rows = [
        {
            "prompt": row.prompt,
            "chosen": [{"role": "assistant", "content": row.chosen}],
            "rejected": [{"role": "assistant", "content": row.rejected}],
        }
        for row in pair_examples(12)
    ]
    peft = None if full else Lora(r=4, alpha=8).config("CAUSAL_LM")
    theirs = DPOTrainer(
        model=load(base), args=config(), train_dataset=Dataset.from_list(rows),
        processing_class=make_tokenizer("chatml"), peft_config=peft,
    )  # fmt: skip
    expected = losses(theirs)
    peft = None if full else Lora(r=4, alpha=8).config("CAUSAL_LM")
    trainer = ours(base, config(), PLAIN, peft_config=peft)
    found = losses(trainer)
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found)) == 5  # the losses move, so five steps were compared, not one
    logged = [(a["rewards/margins"], a["logps/chosen"]) for a in trainer.state.log_history if "loss" in a]
    trl = [(a["rewards/margins"], a["logps/chosen"]) for a in theirs.state.log_history if "loss" in a]
    assert logged == [pytest.approx(pair, abs=1e-5) for pair in trl]


def sequence_logprob(model, prompt, completion):
    ids = torch.tensor([prompt + completion])
    logp = torch.log_softmax(model(ids).logits[0, :-1].double(), -1)
    return logp.gather(1, ids[0, 1:, None])[len(prompt) - 1 :].sum()


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("kind", ["dpo", "ipo"])
def test_first_loss_after_a_step_by_hand(base, config, normalise, kind):
    """The loss of a batch under weights other than the reference's, from the formulas of FACTS 1."""
    objective = Objective(loss=kind, target="prob", gamma=7, sft_weight=0.2, normalise=normalise)
    rows = pair_examples(4)
    model, reference = load(base), load(base)
    with torch.no_grad():
        model.lm_head.weight.add_(0.05 * torch.randn_like(model.lm_head.weight))
    beta, expected = 0.3, []
    for row, pair in zip(rows, encode_pairs(make_tokenizer("chatml"), rows, objective), strict=True):
        won, lost = pair["chosen_ids"], pair["rejected_ids"]
        pi = [sequence_logprob(model, pair["prompt_ids"], ids) for ids in (won, lost)]
        ref = [sequence_logprob(reference, pair["prompt_ids"], ids) for ids in (won, lost)]
        n = (len(won), len(lost)) if normalise else (1, 1)
        h = ((pi[0] - ref[0]) / n[0] - (pi[1] - ref[1]) / n[1]).item()
        p = 1 / (1 + math.exp(-7 * (row.p_chosen - row.p_rejected)))
        sigma = 1 / (1 + math.exp(-beta * h))
        soft = -p * math.log(sigma) - (1 - p) * math.log(1 - sigma)
        main = soft if kind == "dpo" else (h - p / (2 * beta)) ** 2
        expected.append(0.8 * main - 0.2 * pi[0].item() / n[0])
    trainer = ours(base, config(max_steps=1), objective, rows, model, ref_model=reference)
    assert losses(trainer)[0] == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_soft_targets_pull_the_margin_to_the_judges_odds(base, config):
    """Trained long on one pair, sigma(beta h) settles at P instead of running to 1."""
    rows = [pair_examples(1)[0].model_copy(update={"p_chosen": 0.6, "p_rejected": 0.5})] * 4
    objective = Objective(target="prob", gamma=7, sft_weight=0, normalise=False)
    trainer = ours(base, config(max_steps=60, learning_rate=1e-2), objective, rows)
    trainer.train()
    margin = next(e["rewards/margins"] for e in reversed(trainer.state.log_history) if "rewards/margins" in e)
    assert 1 / (1 + math.exp(-margin)) == pytest.approx(1 / (1 + math.exp(-0.7)), abs=0.02)


def test_continuing_from_an_adapter_takes_its_copy_as_reference(make_job):
    sft = run_job(make_job("sft", out="sft", train={"max_steps": 8, "learning_rate": 1e-2}), quiet=True)
    job = make_job("dpo", adapter=sft.path, objective=PLAIN, train={"logging_steps": 1})
    result = run_job(job, quiet=True)
    history = read_json(f"{job.out}/history.json")
    # Only where policy and reference are the same does the first step show no margin at all.
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[0]["rewards/chosen"] == 0
    assert history[-1]["loss"] < math.log(2)
    assert sorted(path.name for path in Path(result.path).iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base.json", "sha256.json",
    ]  # fmt: skip


def test_training_every_weight_after_sft_keeps_sft_as_reference(make_job):
    sft = run_job(make_job("sft", out="sft", train={"max_steps": 8, "learning_rate": 1e-2}), quiet=True)
    job = make_job("dpo", adapter=sft.path, lora=None, objective=PLAIN, train={"logging_steps": 1})
    run_job(job, quiet=True)
    history = read_json(f"{job.out}/history.json")
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[0]["rewards/chosen"] == 0


@pytest.mark.parametrize("fields", [{}, {"lora": None}])
def test_precomputed_reference_gives_the_same_losses(make_job, fields):
    plain = run_job(make_job("dpo", out="a", **fields), quiet=True)
    before = run_job(make_job("dpo", out="b", train={"precompute_ref_log_probs": True}, **fields), quiet=True)
    assert before.loss == pytest.approx(plain.loss, abs=1e-6)


@pytest.mark.parametrize("precompute", [False, True])
def test_a_shared_prompt_changes_nothing_but_the_time(make_job, precompute):
    train = {"max_steps": 6, "learning_rate": 1e-2, "logging_steps": 1, "precompute_ref_log_probs": precompute}
    jobs = [make_job("dpo", out=f"{shared}", share_prompt=shared, train=train) for shared in (False, True)]
    apart, shared = (read_json(Path(run_job(job, quiet=True).path).parent / "history.json") for job in jobs)
    assert len({entry["loss"] for entry in apart}) == 6
    for logs in (apart, shared):
        logs[0].pop("rewards/accuracies")  # policy and reference are still the same: rounding decides
    for one, other in zip(apart, shared, strict=True):
        assert other == pytest.approx(one, abs=2e-5)


def test_a_shared_prompt_stands_once_and_hides_the_chosen_speech_from_the_rejected_one():
    """Token by token, two pairs of different lengths: the second part's mask, positions and labels."""
    from debate_rl.trainers.common.pairs import PairCollator

    pairs = [
        {"prompt_ids": [5, 6, 7], "chosen_ids": [8, 9], "rejected_ids": [10], "target": 1.0},
        {"prompt_ids": [5, 6], "chosen_ids": [11], "rejected_ids": [12, 13], "target": 0.5},
    ]
    batch = {key: value.tolist() for key, value in PairCollator(0, share_prompt=True)(pairs).items()}
    assert batch["input_ids"] == [[5, 6, 7, 8, 9, 7, 10, 0], [5, 6, 11, 0, 0, 6, 12, 13]]
    assert batch["part"] == [[0, 0, 0, 1, 1, 0, 2, 0], [0, 0, 1, 0, 0, 0, 2, 2]]
    assert [row[:7] for row in batch["position_ids"]] == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 2, 3, 4, 1, 2]]
    seen = [["".join("x" if look else "." for look in line) for line in rows[0]] for rows in batch["attention_mask"]]
    assert seen == [["xx...x..", "xx...xx.", "xx...xxx"], ["x....x..", "x....xx.", "x....xxx"]]


def test_models_that_can_not_share_a_prompt_are_refused(base, config, tmp_path):
    model = load(base)
    model.config.sliding_window = 64
    with pytest.raises(UserError, match="in every layer, which llama has not; set share_prompt false"):
        ours(base, config(), PLAIN, model=model, share_prompt=True)
    model = load(base)
    model.config.output_router_logits = True
    with pytest.raises(UserError, match="share_prompt can not balance experts"):
        ours(base, config(), PLAIN, model=model, share_prompt=True)
    model = load(base)
    model.config._attn_implementation = "eager"
    with pytest.raises(UserError, match="'sdpa'"):
        ours(base, config(), PLAIN, model=model, share_prompt=True)
    trainer = ours(base, config(), PLAIN, share_prompt=True, ref_model=load(base))
    read = trainer.model.forward
    trainer.model.forward = lambda position_ids=None, **inputs: read(**inputs)  # a model that counts for itself
    with pytest.raises(UserError, match="reads a shared prompt otherwise"):
        trainer.train()
