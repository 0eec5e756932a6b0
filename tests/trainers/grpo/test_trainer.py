"""Online training on a tiny model: what is sampled is learnt, kills lose nothing, mistakes are said in a line."""

import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import TrainerCallback

from debate_rl.engines.local.engine import TransformersEngine, uniforms
from debate_rl.engines.local.sampling import draw
from debate_rl.errors import UserError
from debate_rl.game.quote_grammar import QuoteRules
from debate_rl.judges.judge import Judge
from debate_rl.players.debater import Debater, PlayerSettings
from debate_rl.records import read_json, read_log, write, write_json
from debate_rl.trainers.common.arguments import training_arguments
from debate_rl.trainers.common.build_trainer import build_trainer, prepare
from debate_rl.trainers.common.job import job_name, run_job
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.common.settings import Job, Lora
from debate_rl.trainers.grpo import trainer
from debate_rl.trainers.grpo.eval_metrics import Measured, Point
from debate_rl.trainers.grpo.groups import arguments_of
from debate_rl.trainers.grpo.opponent_pool import Member
from debate_rl.trainers.grpo.settings import Alarms, Online, Opponents, Rewards, Watch
from debate_rl.trainers.grpo.trainer import Blocks
from tests import forked
from tests.trainers.games import question, questions, rules

TRAIN = {"max_steps": 3, "num_generations": 2, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 8,
         "learning_rate": 1e-2, "beta": 0.1}  # fmt: skip
KEEP = Rewards(truncated="keep")
KL_ROUNDING = 1e-5
"""Log-probabilities of some -50 in float32, summed in another order."""
ELO_ROUNDING = 1e-2
"""Elo a probability is 400 / ln 10 * 4 at one half: float32 verdicts differ by about 1e-6 between kernels."""
"""A model without training seldom ends its speech by itself."""


@pytest.fixture
def make(tmp_path, base, other_base):
    """Makes a small online job."""

    def job(out="out", count=6, train=None, watch=None, asked=None, lora=None, **fields) -> Job:
        rows, kept = tmp_path / f"questions-{count}.jsonl", tmp_path / "watch.jsonl"
        write(rows, asked or questions(count))
        write(kept, questions(10)[6:])
        whole = {"full": None}.get(lora, lora or Lora(r=4, alpha=8))
        of_job = {key: fields.pop(key) for key in ("adapter",) if key in fields}
        settings = {"protocol": rules(max_new_tokens=8), "judge": Judge(model=other_base), "rewards": KEEP, **fields}
        if watch is not None:
            settings |= {"watch": Watch(**watch), "watch_questions": str(kept)}
        return Job(
            kind="grpo", model=base, rows=str(rows), out=str(tmp_path / out), lora=whole, online=Online(**settings),
            train={**TRAIN, **(train or {})}, **of_job,
        )  # fmt: skip

    return job


@pytest.fixture
def start(make_job):
    """An adapter to start from."""
    return run_job(make_job("sft", out="sft"), quiet=True).path


def built(job: Job):
    """The trainer of a job, ready to train."""
    config = training_arguments(
        "grpo", job.train, Path(job.out) / "checkpoints", 0, arguments_of(job.online, job.train)
    )
    tokenizer = load_tokenizer(job.model)
    return build_trainer(job, tokenizer, prepare(job, tokenizer), config, [])


def weights(result):
    return next(Path(result.path).glob("*.safetensors")).read_bytes()


def test_tokens_learnt_are_those_that_the_policy_drew_as_it_stood(make, monkeypatch):
    """Every token is drawn once more, by a plain forward pass of the model in training over the trained sequence."""
    trainer = built(make(temperature=0.8))
    asked, rolled = {}, trainer.roll
    generate = TransformersEngine.generate

    def remember(self, requests):
        answers = generate(self, requests)
        asked.update((answer.tokens, request) for request, answer in zip(requests, answers, strict=True))
        return answers

    found = []

    def check(keys):
        columns = rolled(keys)
        trainer.model.eval()
        for prompt, completion in zip(columns["prompt_ids"], columns["completion_ids"], strict=True):
            request = asked[tuple(completion)]
            assert request.model == f"policy@{trainer.state.global_step}"
            with torch.no_grad():
                logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            drawn = draw(logits, [request.sampling] * len(completion), uniforms(request)[: len(completion)])
            found.append(drawn.tolist() == completion)
        trainer.model.train()
        return columns

    monkeypatch.setattr(TransformersEngine, "generate", remember)
    monkeypatch.setattr(trainer, "roll", check)
    trainer.train()
    assert len(found) == 3 * 8 and all(found)


def test_an_opening_is_part_of_the_prompt_and_only_what_the_policy_drew_is_learnt(make, monkeypatch):
    manner = PlayerSettings(opening="the answer is {answer} because", quotes=QuoteRules(constrained=True), top_p=0.9)
    trainer = built(make(players=manner, train={"max_steps": 1}))
    tokenizer, rolled, seen = trainer.processing_class, trainer.roll, []

    def check(keys):
        columns = rolled(keys)
        texts = [speech for leg in trainer.played.legs for speech in leg.transcript.speeches]
        seen.extend(zip(columns["prompt_ids"], columns["completion_ids"], strict=True))
        assert all(speech.origin.opening and speech.text.startswith(speech.origin.opening) for speech in texts)
        assert all(speech.origin.quotes == manner.quotes for speech in texts)
        return columns

    monkeypatch.setattr(trainer, "roll", check)
    trainer.train()
    assert len(seen) == 8
    for prompt, completion in seen:
        assert re.search(r"the answer is \w+ because$", tokenizer.decode(prompt))
        assert 0 < len(completion) <= 8


def test_the_loss_counts_learnt_speeches_and_the_weights_move(make, start):
    result = run_job(make(adapter=start), quiet=True)
    history = [entry for entry in read_json(Path(result.path).parent / "history.json") if "loss" in entry]
    assert [entry["step"] for entry in history] == [1, 2, 3]
    assert history[0]["kl"] == pytest.approx(0, abs=KL_ROUNDING) and history[-1]["kl"] > 0
    assert all(f"rewards/{term}/mean" in history[0] for term in ("win", "length", "invalid_quotes", "truncated"))
    assert history[0]["rollout/games"] == 4 and history[0]["rollout/groups"] == 4
    assert history[0]["rewards/win/mean"] == pytest.approx(0.5)
    before, after = (load_file(f"{path}/adapter_model.safetensors") for path in (start, result.path))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert set(before) == set(after)


def test_a_fully_trained_policy_starts_at_its_reference(make, start):
    job = make(adapter=start, lora="full")
    trainer = built(job)
    own, reference = (dict(m.named_parameters()) for m in (trainer.model, trainer.ref_model))
    assert all(torch.equal(weight, reference[name]) for name, weight in own.items())
    trainer.train()
    kl = [entry["kl"] for entry in trainer.state.log_history if "kl" in entry]
    assert kl[0] == pytest.approx(0, abs=KL_ROUNDING) and kl[-1] > 0


def test_the_engine_leaves_the_policy_as_it_was(make):
    trainer = built(make())
    kept = {name: weight.requires_grad for name, weight in trainer.model.named_parameters()}
    attention = trainer.model.config._attn_implementation
    trainer.model.train()
    trainer.roll(["0/A/0"] * 2 + ["0/B/0"] * 2)
    assert trainer.model.training and trainer.model.config._attn_implementation == attention
    assert {name: weight.requires_grad for name, weight in trainer.model.named_parameters()} == kept


def test_questions_are_shuffled_with_all_their_sides_together(make):
    trainer = built(make(count=8, train={"per_device_train_batch_size": 8}))
    rows = list(trainer._get_train_sampler())
    assert isinstance(trainer._get_train_sampler(), Blocks) and len(rows) == len(trainer._get_train_sampler()) == 32
    blocks = [rows[at : at + 4] for at in range(0, 32, 4)]
    assert all(block == [block[0], block[0], block[0] + 1, block[0] + 1] and block[0] % 2 == 0 for block in blocks)
    assert sorted(block[0] // 2 for block in blocks) == list(range(8)) != [block[0] // 2 for block in blocks]


class Stop(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_a_broken_training_ends_as_one_that_was_not(make, start):
    """With a league, a curve and dropout: everything that is carried from step to step."""
    fields = {
        "adapter": start, "opponents": Opponents(kind="pool", snapshot=2), "watch": {"every": 2},
        "train": {"max_steps": 6, "save_steps": 3, "logging_steps": 1}, "count": 10,
    }  # fmt: skip
    whole = run_job(make("whole", **fields), quiet=True)
    with pytest.raises(KeyboardInterrupt):
        run_job(make("broken", **fields), [Stop(5)], quiet=True)
    resumed = run_job(make("broken", **fields), quiet=True)
    assert weights(resumed) == weights(whole)
    one, two = (Path(result.path).parent for result in (whole, resumed))
    assert read_json(one / "history.json") == read_json(two / "history.json")
    curves = [{point.step: point for point in read_log(folder / "curve.jsonl", Point)} for folder in (one, two)]
    assert curves[0] == curves[1] and sorted(curves[0]) == [0, 2, 4, 6]
    members = [sorted(m.step for m in read_log(f / "league/members.jsonl", Member)) for f in (one, two)]
    assert members == [[2, 4, 6]] * 2


def test_the_curve_holds_two_judges_sides_length_quotes_entropy_and_kl(make, start, base):
    watch = {"every": 2, "second": Judge(name="held out", model=base), "pool": (Debater(name="bare", model=base),)}
    result = run_job(make(adapter=start, watch=watch), quiet=True)
    out = Path(result.path).parent
    points = read_log(out / "curve.jsonl", Point)
    assert [point.step for point in points] == [0, 2, 3]
    assert points[0].elo.value == pytest.approx(0, abs=ELO_ROUNDING)  # before the first step the policy is the start
    for point in points:
        for name in ("wins", "side_a", "accuracy", "second", "judges_part", "valid", "tokens", "accuracy_change"):
            assert getattr(point, name) is not None, name
    assert points[-1].entropy > 0 and points[-1].kl > 0
    games = read_log(out / "watch/step-000003.jsonl", Measured)
    assert {tuple(sorted(set(game.leg.transcript.players.values()))) for game in games} == {
        ("policy", "start"), ("bare", "policy"), ("bare", "start"), ("policy",),
    }  # fmt: skip
    history = read_json(out / "history.json")
    assert [entry["step"] for entry in history if "watch/accuracy" in entry] == [0, 2, 3]
    assert not any("watch/accuracy" in entry and "loss" in entry for entry in history)


def test_an_alarm_can_end_training_early_and_keeps_what_was_learnt(make, start):
    alarms = Alarms(stop=True)
    job = make(adapter=start, watch={"every": 1, "alarms": alarms}, train={"max_steps": 5})
    import debate_rl.trainers.grpo.eval_metrics as curve

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve, "sounded", lambda measured, limits: ("one side",) if measured.step == 2 else ())
        result = run_job(job, quiet=True)
    assert result.steps == 2 and Path(result.path, "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("kind", ["start", "pool", "players"])
def test_other_opponents_speak_for_the_other_side(make, start, base, kind):
    named = (Debater(name="one", model=base), Debater(name="two", model=base, adapter=start))
    opponents = Opponents(kind=kind, snapshot=1, players=named if kind == "players" else ())
    trainer = built(make(adapter=start, opponents=opponents, train={"max_steps": 2, "learning_rate": 0.05}))
    met = set()
    rolled = trainer.roll

    def watch(keys):
        columns = rolled(keys)
        met.update(name for leg in trainer.played.legs for name in leg.transcript.players.values())
        return columns

    trainer.roll = watch
    trainer.train()
    expected = {"start": {"start"}, "pool": {"start", "step 1"}, "players": {"one", "two"}}[kind]
    assert "policy" in met and met - {"policy"} <= expected and len(met) > 1


@pytest.mark.parametrize("protocol", ["single", "double", "claim", "debate2"])
def test_other_protocols_and_several_turns(make, protocol):
    changes = {"turns": 2} if protocol == "debate2" else {}
    name = protocol.rstrip("2")
    asked = [question(n, correct=n % 2) for n in range(6)]
    per_question = {"single": 2, "double": 2, "claim": 3, "debate2": 4}[protocol] * 2
    found = rules(name, max_new_tokens=6, needs_passage=True, **changes)
    job = make(asked=asked, protocol=found, train={"per_device_train_batch_size": per_question, "max_steps": 1})
    trainer = built(job)
    trainer.train()
    assert len(trainer.played.sequences) == per_question
    assert sum(one.learnt for one in trainer.played.sequences) > 0


def test_a_slow_judge_is_skipped_counted_and_in_the_end_said(make, monkeypatch):
    import debate_rl.trainers.grpo.policy as policy

    judged = policy.judge_transcripts

    def slow(*args):
        time.sleep(0.5)
        return judged(*args)

    monkeypatch.setattr(policy, "judge_transcripts", slow)
    trainer = built(make(judge_seconds=0.05, train={"max_steps": 5}))
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    with pytest.raises(UserError, match=r"no verdict within 0.05 seconds in 3 steps in a row; raise judge_seconds"):
        trainer.train()
    late = [entry["rollout/judge_late"] for entry in trainer.state.log_history if "rollout/judge_late" in entry]
    assert len(late) == 2 and min(late) > 0
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.named_parameters())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train": {"per_device_train_batch_size": 6}}, r"takes 2 x 2 rows .* plays 6 at a time .* multiple of 4"),
        ({"train": {"num_generations": 3}}, r"takes 2 x 3 rows"),
        ({"train": {"generation_batch_size": 6, "per_device_train_batch_size": 6}}, r"multiple of 4"),
        ({"count": 1}, r"1 questions to play, and one batch takes 2"),
        ({"train": {"temperature": 0.3}}, "train.temperature has no effect here"),
        ({"train": {"use_vllm": True}}, "train.use_vllm has no effect here: the project's engine plays"),
        ({"train": {"max_completion_length": 9}}, "max_new_tokens"),
        ({"train": {"reward_weights": [1.0]}}, "rewards"),
        ({"opponents": Opponents(kind="pool"), "lora": "full"}, "set lora, or choose start"),
        ({"asked": [question(0, passage=False)]}, "no question can be played .no passage: 1"),
        ({"roles": "correct", "asked": [question(0, correct=None)]}, "answer unknown: 1"),
        ({"protocol": rules(max_new_tokens=400)}, "longer than the model's context: 6"),
    ],
)  # fmt: skip
def test_contradictions_are_one_clear_line(make, fields, said):
    with pytest.raises(UserError, match=said) as error:
        run_job(make(**fields), quiet=True)
    assert "\n" not in str(error.value)


def test_online_training_is_not_cut_up_by_fsdp(make, monkeypatch):
    monkeypatch.setattr(trainer, "os", SimpleNamespace(environ={"ACCELERATE_USE_FSDP": "true"}))
    with pytest.raises(UserError, match=r"FSDP cuts up; launch it with multi_gpu.yaml"):
        built(make())


def test_settings_that_do_not_belong_together(make, base):
    with pytest.raises(ValidationError, match="players belong together"):
        Opponents(kind="players")
    with pytest.raises(ValidationError, match="'online' belong together"):
        Job(kind="grpo", model=base, rows="x", out="y")
    with pytest.raises(ValidationError, match="'eval_rows' is not for kind 'grpo'"):
        Job.model_validate({**make().model_dump(), "eval_rows": "x"})


def test_a_job_is_named_by_what_its_judge_is_and_not_by_where_it_lies(make, other_base, base, tmp_path):
    import shutil

    shutil.copytree(other_base, tmp_path / "moved")
    named = [job_name(make(judge=Judge(model=str(model)))) for model in (other_base, tmp_path / "moved", base)]
    assert named[0] == named[1] != named[2]


def test_a_killed_process_goes_on_and_ends_as_one_that_was_not(make, start, tmp_path):
    fields = {"adapter": start, "watch": {"every": 3}, "train": {"max_steps": 20, "save_steps": 3}, "count": 10}
    job = make("killed", **fields)
    write_json(tmp_path / "job.json", job.model_dump(mode="json"))
    process = forked.start("debate_rl.trainers.common.job", tmp_path / "job.json")
    checkpoints = Path(job.out) / "checkpoints"
    while process.is_alive() and not (checkpoints / "checkpoint-6/trainer_state.json").is_file():
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the process ended before it could be killed"
    assert not Path(job.out, "adapter").exists()
    resumed, whole = run_job(job, quiet=True), run_job(make("whole", **fields), quiet=True)
    assert weights(resumed) == weights(whole)
    curves = [
        {point.step: point for point in read_log(Path(result.path).parent / "curve.jsonl", Point)}
        for result in (whole, resumed)
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 8
