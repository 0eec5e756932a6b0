"""DPO whose reference is not what the training starts from: the very first policy of several trainings in a row."""

import pytest
import torch
from pydantic import ValidationError

from debate_rl.errors import UserError
from debate_rl.records import read_json
from debate_rl.trainers.common.job import job_name, run_job
from debate_rl.trainers.common.pairs import encode_pairs
from debate_rl.trainers.common.settings import Lora, Objective, Weights
from tests.trainers.test_dpo import load, sequence_logprob
from tests.trainers.tiny import make_tokenizer, pair_examples

SUMS = Objective(target="binary", sft_weight=0, normalise=False)
ONCE = {"max_steps": 1, "per_device_train_batch_size": 8, "logging_steps": 1}
FAR = {"max_steps": 8, "learning_rate": 1e-2}


def reward(base, start, reference):
    """Mean of log pi(chosen) - log ref(chosen) over the pairs, each model loaded and asked alone."""
    from peft import PeftModel

    found = []
    with torch.no_grad():
        for adapter in (start, reference):
            model = load(base) if adapter is None else PeftModel.from_pretrained(load(base), adapter)
            pairs = encode_pairs(make_tokenizer("chatml"), pair_examples(8), SUMS)
            found.append([sequence_logprob(model, pair["prompt_ids"], pair["chosen_ids"]).item() for pair in pairs])
    return sum(one - two for one, two in zip(*found, strict=True)) / 8


@pytest.fixture
def policies(make_job):
    """An SFT adapter, and one that was trained further from it."""
    sft = run_job(make_job("sft", out="sft", train=FAR), quiet=True).path
    return sft, run_job(make_job("dpo", out="first", adapter=sft, objective=SUMS, train=FAR), quiet=True).path


def first_reward(job):
    run_job(job, quiet=True)
    return read_json(f"{job.out}/history.json")[0]["rewards/chosen"]


@pytest.mark.parametrize("precompute", [False, True])
def test_training_goes_on_from_the_last_and_is_held_to_the_first(make_job, base, policies, precompute):
    sft, last = policies
    train = {**ONCE, "beta": 1.0, "precompute_ref_log_probs": precompute}
    for name, reference in (("sft", sft), ("base", None)):
        job = make_job(
            "dpo",
            out=f"to-{name}",
            adapter=last,
            reference=Weights(model=base, adapter=reference),
            objective=SUMS,
            train=train,
        )
        expected = reward(base, last, reference)
        assert abs(expected) > 0.05
        assert first_reward(job) == pytest.approx(expected, abs=1e-4)


def test_every_weight_trained_is_held_to_the_first(make_job, base, policies):
    sft, last = policies
    other = Weights(model=base, adapter=sft)
    job = make_job(
        "dpo", out="full", adapter=last, lora=None, reference=other, objective=SUMS, train={**ONCE, "beta": 1}
    )
    assert first_reward(job) == pytest.approx(reward(base, last, sft), abs=1e-4)


def test_the_same_reference_named_or_not_trains_the_same(make_job, base, policies):
    _, last = policies
    found = []
    for out, reference in (("a", None), ("b", Weights(model=base, adapter=last))):
        job = make_job("dpo", out=out, adapter=last, reference=reference, objective=SUMS, train={"logging_steps": 1})
        run_job(job, quiet=True)
        found.append([entry.get("loss") for entry in read_json(f"{job.out}/history.json")])
    assert found[0] == found[1] and len(found[0]) >= 3


def test_another_reference_is_another_job(make_job, base, policies):
    sft, last = policies
    plain = make_job("dpo", adapter=last)
    held = plain.model_copy(update={"reference": Weights(model=base, adapter=sft)})
    assert job_name(plain) != job_name(held) != job_name(held.model_copy(update={"reference": Weights(model=base)}))


def test_adapters_that_differ_in_rank_are_refused(make_job, base, policies):
    _, last = policies
    wide = run_job(make_job("sft", out="wide", lora=Lora(r=8, alpha=8)), quiet=True).path
    job = make_job("dpo", out="no", adapter=last, reference=Weights(model=base, adapter=wide))
    with pytest.raises(UserError, match="give both the same rank"):
        run_job(job, quiet=True)


@pytest.mark.parametrize("fields", [{"kind": "sft"}, {"adapter": None}, {"model": "another"}])
def test_what_can_not_be_a_reference(make_job, base, fields):
    job = make_job("dpo", adapter="somewhere").model_dump()
    with pytest.raises(ValidationError, match="'reference'"):
        type(make_job("dpo")).model_validate({**job, "reference": {"model": base, "adapter": "x"}, **fields})


def test_adapters_that_differ_in_scale_are_refused(make_job, base, policies):
    _, last = policies
    job = make_job("dpo", out="no", adapter=last, reference=Weights(model=base), lora=Lora(r=4, alpha=32))
    with pytest.raises(UserError, match="lora_alpha 8 and the reference 32; give both the same rank, alpha"):
        run_job(job, quiet=True)


@pytest.mark.parametrize(("r", "warned"), [(4, False), (8, True)])
def test_lora_settings_that_an_adapter_overrules_are_named(make_job, policies, caplog, r, warned):
    _, last = policies
    own = make_job("dpo").lora.model_copy(update={"r": r})
    run_job(make_job("dpo", out=f"r{r}", adapter=last, objective=SUMS, train=ONCE, lora=own), quiet=True)
    assert ("are not used: an adapter keeps its rank" in caplog.text) == warned
