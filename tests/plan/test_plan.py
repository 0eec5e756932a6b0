"""A plan against what was measured: print the ratios with `pytest -s tests/plan/test_plan.py`."""

import json
from collections import Counter

import pytest

from debate_rl.config.tree import load_config, parse_config
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Completion, Request, Sampling
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.judges.attacks.suffix_search import Search
from debate_rl.plan.cost import bills
from debate_rl.plan.counting_engine import Habits
from debate_rl.plan.plan import plan
from debate_rl.records import digest
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from debate_rl.stages import adversarial, judge
from debate_rl.stages.habits import _learning, measured_habits
from debate_rl.trainers.common.memory import card_of
from tests.command import mistake


def config(folder, name, test=24, train=12, seed=0, **changes):
    tree = {
        "name": name, "runs": str(folder), "seed": seed, "questions": {"train": train, "test": test},
        "protocol": {"prompts": "lab", "max_new_tokens": 48}, "tracking": {"mode": "disabled"},
        "models": {"judge": "lab-small"},
        "stages": {
            "reading": {"models": ["lab-base"]},
            "preferences": {"best_of": 4, "opponents": 2, "questions": train, "player": "base"},
            "tournament": {"players": ["base", "base@2"], "resamples": 20},
            "oversight": {"players": ["base"], "protocols": ["debate", "sequential", "single", "blind"]},
        },
        **changes,
    }  # fmt: skip
    return parse_config(tree)


class Measured:
    """An engine with its tokens counted by the stage at work."""

    def __init__(self, engine):
        self.engine, self.run, self.tokens = engine, None, Counter()

    def generate(self, requests):
        return self._count("texts", self.engine.generate(requests))

    def choose(self, choices):
        return self._count("verdicts", self.engine.choose(choices))

    def revision(self, model, adapter):
        return self.engine.revision(model, adapter)

    def _count(self, what, answers):
        self.tokens[self.run.at, what] += len(answers)
        for answer in answers:
            self.tokens[self.run.at, "prompt_tokens"] += answer.prompt_tokens
            self.tokens[self.run.at, "new_tokens"] += answer.new_tokens if isinstance(answer, Completion) else 0
        return answers


def script(kinds):
    """An engine that writes so many different texts of five words."""
    return ScriptedEngine(
        lambda request: f"one two three four n{request.seed % kinds}",
        lambda choice: [-1.0, -int(digest(choice)[:2], 16)],
    )


def played(one, engine=None):
    """Run a config; its tokens by stage."""
    measured = Measured(engine)
    measured.run = Run(one, measured, say=lambda line: None)
    measured.engine = engine or TransformersEngine(measured.run.resolve, device="cpu")
    run_stages(measured.run)
    return measured


def test_a_plan_made_after_a_small_run_foretells_a_larger_one_within_a_fifth(tmp_path):
    played(config(tmp_path, "pilot", test=4, train=3, seed=9))
    large = config(tmp_path, "large")
    planned = plan(Run(large), like=tmp_path / "pilot")
    assert not (tmp_path / "large").exists()
    measured = played(large)
    total = Counter()
    for row in planned:
        assert row.speeches == measured.tokens[row.stage, "texts"]
        print(f"{row.stage:<12} {'verdicts':<14} {row.verdicts} of {measured.tokens[row.stage, 'verdicts']}")
        for name in ("prompt_tokens", "new_tokens"):
            found = measured.tokens[row.stage, name]
            total[name, "planned"] += getattr(row, name)
            total[name, "measured"] += found
            if found:
                print(f"{row.stage:<12} {name:<14} {getattr(row, name) / found:.3f} of {found:,} measured")
                assert getattr(row, name) == pytest.approx(found, rel=0.2)
    read = sum(row.read_tokens for row in planned) / measured.engine.usage.encoded_tokens
    for name in ("prompt_tokens", "new_tokens"):
        print(f"{'all':<12} {name:<14} {total[name, 'planned'] / total[name, 'measured']:.3f}")
    print(f"{'all':<12} {'read_tokens':<14} {read:.3f} of those that the engine encoded")
    assert 0.8 < read < 1.5  # from stage to stage the engine keeps 32,768 tokens, which is much of a run as small


def verdicts(measured, stage):
    return measured.tokens[stage, "verdicts"]


def test_readings_are_in_the_plan_and_do_not_grow_with_the_questions(tmp_path):
    players = {"players": ["base", "base@2"], "resamples": 20}
    without, with_some, more = (
        plan(Run(config(tmp_path, "x", test=test, stages={"tournament": {**players, "evidence_probes": readings}})))[0]
        for test, readings in ((24, 0), (24, 10), (240, 10))
    )
    # Ten of each player and side, in both orders; the two players give some speeches alike.
    assert 40 < with_some.verdicts - without.verdicts <= 2 * 2 * 2 * 10
    grown = plan(Run(config(tmp_path, "x", test=240, stages={"tournament": {**players, "evidence_probes": 0}})))[0]
    assert more.verdicts - grown.verdicts <= 2 * 2 * 2 * 10 + 10
    assert with_some.prompt_tokens > without.prompt_tokens


def quoting(passages):
    """An engine whose speeches quote some words of their passage, others for each seed."""

    def speech(request):
        shown = " ".join(message.content for message in request.messages)
        words = next(passage for passage in passages if passage in shown).split()
        start, length = request.seed % (len(words) - 9), 4 + request.seed // 100 % 5
        return f"<quote>{' '.join(words[start : start + length])}</quote> n{request.seed % 1000}"

    return ScriptedEngine(speech, lambda choice: [-1.0, -int(digest(choice)[:2], 16)])


def test_readings_of_players_that_quote_are_those_that_a_run_asks_for(tmp_path):
    planned, measured = [], []
    for readings in (0, 10):
        stages = {"tournament": {"players": ["base", "base@2"], "resamples": 20, "evidence_probes": readings}}
        one = config(tmp_path, f"r{readings}", test=24, stages=stages)
        planned.append(plan(Run(one))[0].verdicts)
        passages = [question.passage for question in Run(one).questions("test")]
        measured.append(verdicts(played(one, quoting(passages)), "tournament"))
    assert measured[1] - measured[0] > 30
    assert planned[1] - planned[0] == pytest.approx(measured[1] - measured[0], rel=0.3)


TRAINED = {"rows": 0, "left_out": {}, "too_long": 0, "steps": 0, "train_loss": 0.0}
"""What a training leaves that does nothing."""
JUDGE = {"players": ["base"], "protocols": ["debate"], "calibrate": "platt"}


def judged(folder, monkeypatch, train=24, **settings):
    """A judge stage planned, and played with a scripted engine and trainings that do nothing: verdicts of both."""
    one = config(folder, "judged", test=12, train=train, stages={"judge": {**JUDGE, **settings}})
    (planned,) = plan(Run(one))
    for module in (judge, adversarial):
        monkeypatch.setattr(module, "train", lambda *args, **kwargs: dict(TRAINED))
    return planned, verdicts(played(one, script(1000)), "judge")


@pytest.mark.parametrize(
    "settings",
    [
        {"calibrate": "none"},
        {"calibrate_lone": False},
        {},
        {"protocols": ["debate", "single"]},
        {"attacks": ["suffix_sure", "quotes_repeated"], "attack_games": 6},
    ],
    ids=["no calibration", "one map", "lone speakers", "consultancies", "attacks"],
)
def test_verdicts_of_a_judge_stage_are_those_that_it_asks_for(tmp_path, monkeypatch, settings):
    planned, measured = judged(tmp_path, monkeypatch, **settings)
    assert planned.verdicts == pytest.approx(measured, rel=0.1)


def test_adversarial_rounds_are_in_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(adversarial, "SEARCHES", (Search(length=1, pool=30), Search(length=2, pool=10)))
    none, _ = judged(tmp_path / "a", monkeypatch)
    planned, measured = judged(tmp_path / "b", monkeypatch, adversarial_rounds=2)
    assert planned.verdicts > 2 * none.verdicts
    assert planned.verdicts == pytest.approx(measured, rel=0.15)
    adapters = {share.adapter: share.verdicts for share in planned.shares}
    assert adapters["judge/adapter"] > 0 and adapters["judge/round1/adapter"] > 0
    assert adapters["judge/round2/adapter"] > 0, "the last judge is calibrated and measured"


def test_hours_like_an_earlier_run_scale_with_its_work(tmp_path):
    small = config(tmp_path, "small", test=6)
    played(small, script(100))
    for name in small.stages:
        path = tmp_path / "small" / name / "timing.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 3600}))
    rows = plan(Run(small), like=tmp_path / "small")
    again = bills(Run(small), rows, like=tmp_path / "small", hourly=2.0)
    assert [bill.hours for bill in again] == pytest.approx([1.0] * 4, rel=0.02)
    assert sum(bill.cost for bill in again) == pytest.approx(8.0, rel=0.02)
    twice = config(tmp_path, "twice", test=12)
    rows = plan(Run(twice), like=tmp_path / "small")
    hours = {bill.stage: bill.hours for bill in bills(Run(twice), rows, like=tmp_path / "small")}
    assert hours["tournament"] == pytest.approx(2, rel=0.1) and hours["preferences"] == pytest.approx(1, rel=0.1)


def test_questions_are_sampled_and_counts_scaled(tmp_path):
    whole = config(tmp_path, "whole", test=400, stages={"tournament": {"players": ["base", "base@4"]}})
    (row,) = plan(Run(whole))
    assert row.debates == 400 * 4
    assert row.speeches == pytest.approx(400 * (2 * 4 + 4), rel=0.01)  # four candidates, the first as base's; 2 rivals
    assert row.new_tokens == pytest.approx(row.speeches * 48, rel=0.01)


def test_lengths_are_those_of_the_adapter_else_of_all_else_the_most(tmp_path):
    ask = Request(messages=(), model="m", sampling=Sampling(max_new_tokens=48))
    assert measured_habits(tmp_path).tokens(ask) == 48
    small = config(tmp_path, "small", test=4, train=12)
    played(small, script(3))
    habits = measured_habits(tmp_path / "small")
    assert habits.tokens(ask) == 5 == habits.tokens(ask.model_copy(update={"adapter": "dpo/adapter"}))
    assert habits.kinds in (2, 3, 4)
    assert Habits({"a": 7.4}, 9.0).tokens(ask.model_copy(update={"adapter": "a"})) == 7


def test_memory_and_hours_on_a_card(tmp_path):
    model = "meta-llama/Meta-Llama-3-8B-Instruct"
    one = config(
        tmp_path, "card", models=dict.fromkeys(("debater", "judge", "weak", "strong"), model),
        stages={"tournament": {"players": ["base", "base@4"]}},
        engine={"batch_tokens": 32768, "cache_tokens": 16384, "judge_dtype": "bfloat16"},
    )  # fmt: skip
    rows = plan(Run(one))
    (bill,) = bills(Run(one), rows, card_of("h100-80gb"), hourly=2.5)
    # 8.03e9 weights of 2 bytes are 15.0 GiB; a token's keys and values 2 x 1,024 x 32 x 2 bytes, 6.0 GiB for 49,152.
    assert "weights 15.0" in bill.parts and "cache 6.0" in bill.parts and 20 < bill.play_gib < 32
    assert bill.cost == pytest.approx(2.5 * bill.hours) and bill.hours > 0
    (slower,) = bills(Run(one), rows, card_of("l4-24gb"))
    (shared,) = bills(Run(one), rows, card_of("l4-24gb"), cards=4)
    assert slower.hours > bill.hours and shared.hours == pytest.approx(slower.hours / 4)
    (unknown,) = bills(Run(one), rows, card_of(80))
    assert unknown.hours is None and unknown.cost is None and unknown.play_gib == bill.play_gib
    # A judge in float32 is a second model in memory, with twice the bytes.
    engine = one.engine.model_copy(update={"judge_dtype": "float32"})
    (twice,) = bills(Run(one.model_copy(update={"engine": engine})), rows, card_of("h100-80gb"))
    assert "weights 15.0, weights read by judges 29.9" in twice.parts


def test_a_server_is_paid_by_its_tokens(tmp_path):
    engine = {"kind": "server", "url": "http://localhost:1/v1", "prices": {"*": {"prompt": 1.0, "new": 10.0}}}
    names = dict.fromkeys(("debater", "judge", "weak", "strong"), "gpt")
    one = config(
        tmp_path, "server", engine=engine, models=names, stages={"tournament": {"players": ["base", "base@2"]}}
    )
    (row,) = plan(Run(one))
    (bill,) = bills(Run(one), [row])
    assert bill.cost == pytest.approx((row.prompt_tokens + 10 * (row.new_tokens + row.verdicts)) / 1e6, rel=1e-3)
    assert bill.play_gib is None
    cheap = one.model_copy(update={"engine": one.engine.model_copy(update={"prices": {}})})
    assert bills(Run(cheap), [row])[0].cost is None


def test_the_command(tmp_path, call):
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(config(tmp_path, "c", test=4).model_dump(mode="json", by_alias=True)))
    assert load_config(path).name == "c"
    code, out, _ = call("plan", path, "--card", "h100-80gb", "--hourly", "2", "--json")
    stages = {row["stage"]: row for row in json.loads(out)["stages"]}
    assert code == 0 and stages["tournament"]["debates"] == 16 and stages["tournament"]["hours"] > 0
    code, out, _ = call("plan", path, "stages={reading: {models: [lab-small]}}")
    assert code == 0 and "playing" in out and "name a --card" in out and not (tmp_path / "c").exists()
    assert "no config.yaml there" in mistake(call("plan", path, "--like", tmp_path))
    assert "h100-80gb" in mistake(call("plan", path, "--card", "h100"))


def test_variety_of_online_training_is_read_from_its_history(tmp_path):
    """Of 8 draws from 4 texts 3.6 differ: of the 8 x 8 games of two sides 13 are judged, of 8 alone 3.6."""
    for name, asked, judged, games in (("grpo", 6400, 1296, 800), ("consultant", 800, 360, 800)):
        (tmp_path / name).mkdir()
        counts = {"rollout/asked": asked, "rollout/judged": judged, "rollout/games": games}
        (tmp_path / name / "history.json").write_text(json.dumps([{"loss": 0.1}, counts]))
        (tmp_path / name / "job.json").write_text(json.dumps({"job": {"train": {"num_generations": 8}}}))
    assert _learning(tmp_path) == 4 and _learning(tmp_path / "none") == 0
