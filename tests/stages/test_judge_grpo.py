"""Judges that learn online in a run, and in turns with the debaters: what is trained, measured and named afterwards."""

import pytest
from pydantic import ValidationError

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import JudgedDebate
from debate_rl.intervals import Effect, Estimate
from debate_rl.judges.attacks.robustness import Trial
from debate_rl.judges.judge import StatedJudge
from debate_rl.plan.plan import plan
from debate_rl.records import read, read_json, read_log
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from debate_rl.stages import cotraining, judge_grpo
from debate_rl.stages.cotraining import CotrainingStage, Turn
from debate_rl.stages.judge_grpo import JudgeGrpoStage
from debate_rl.trainers.grpo.judge_metrics import JudgePoint

LORA = {"r": 4, "alpha": 8}
STATES = {"kind": "stating", "players": ["base"], "questions": 6, "max_new_tokens": 6, "lora": None,
          "train": {"max_steps": 6, "learning_rate": 3e-3, "per_device_train_batch_size": 12}}  # fmt: skip
RL = {"kind": "judge_grpo", "start": "states", "players": ["base"], "questions": 10, "max_new_tokens": 6,
      "watch": {"every": 2, "questions": 4}, "lora": None,
      "train": {"max_steps": 2, "num_generations": 4, "per_device_train_batch_size": 16,
                "gradient_accumulation_steps": 1}}  # fmt: skip
ROUNDS = {"kind": "cotraining", "start": "base", "judge": "states", "turns": 2, "paying_judges": 2, "questions": 4,
          "debater": {"questions": 4, "watch": None, "lora": LORA, "rewards": {"truncated": "keep"},
                      "advantages": "role",
                      "train": {"max_steps": 1, "num_generations": 1, "per_device_train_batch_size": 4,
                                "gradient_accumulation_steps": 1}},
          "judging": {**{key: value for key, value in RL.items() if key != "kind"}, "watch": None, "questions": 4,
                      "train": {**RL["train"], "max_steps": 1, "per_device_train_batch_size": 8}}}  # fmt: skip


def config(folder, stages, **changes):
    """A run that takes seconds."""
    return parse_config({
        "name": "on", "runs": str(folder), "questions": {"train": 16, "test": 6}, "tracking": {"mode": "disabled"},
        "protocol": {"prompts": "lab", "max_new_tokens": 12}, "engine": {"threads": 1, "temperature": 1.0},
        "models": {"debater": "lab-small", "judge": "lab-small"}, "stages": stages, **changes,
    })  # fmt: skip


def quiet(found, said=None):
    return Run(found, say=(lambda line: None) if said is None else said.append)


def train(folder, stages):
    """A finished run: its config, what was measured, its folder, and what it said."""
    found = config(folder, stages)
    said: list[str] = []
    return found, run_stages(quiet(found, said)), folder / "on", said


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The form, then online training."""
    return train(tmp_path_factory.mktemp("runs"), {"states": STATES, "rl": RL})


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """The form, then debaters and judge in turns, then a comparison."""
    judges = {"judges": ["base", "states", "turns.judge"], "players": ["turns.1"], "questions": 4,
              "attacks": ["suffix_sure"], "attack_games": 4}  # fmt: skip
    return train(tmp_path_factory.mktemp("runs"), {"states": STATES, "turns": ROUNDS, "judges": judges})


def test_the_form_is_taught_without_right_answers(finished):
    _, metrics, folder, _ = finished
    rows = [row["completion"] for row in map(dict, _lines(folder / "states/rows.jsonl"))]
    assert metrics["states"]["games"] == 6 and len(rows) == 12
    assert all(row.endswith(" %") and int(row.split()[-2]) % 5 == 0 for row in rows)


def _lines(path):
    import json

    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_judge_learns_from_games_that_it_is_not_watched_on(finished):
    _, metrics, folder, _ = finished
    learnt, watched = read(folder / "rl/rows.jsonl", Transcript), read(folder / "rl/watch.jsonl", Transcript)
    assert (len(learnt), len(watched)) == (6, 4)
    assert not {game.question.id for game in learnt} & {game.question.id for game in watched}
    points = read_log(folder / "rl/curve.jsonl", JudgePoint)
    assert [point.step for point in points] == [0, 2]
    result = metrics["rl"]
    assert result["counts"]["answers"] == 2 * 16 and result["reward"] == "correctness+brier"
    assert result["before"]["games"] == result["after"]["games"] == 6
    assert result["curve"] == [point.model_dump(mode="json") for point in points]
    job = read_json(folder / "rl/job.json")["job"]
    assert job["model"].endswith("states/model") and job["judging"]["rewards"]["rule"] == "correctness+brier"


def test_later_stages_are_judged_by_its_statements(finished):
    found, _, _, _ = finished
    run = quiet(found)
    run.at = None  # after all stages
    judge = run.judge()
    assert isinstance(judge, StatedJudge) and judge.model == "rl/model" and judge.max_new_tokens == 6
    assert not isinstance(run.judge_named("base"), StatedJudge)


def test_a_plan_counts_the_games_and_the_answers(finished):
    found, _, _, _ = finished
    rows = {row.stage: row for row in plan(quiet(found), {"states", "rl"})}
    assert rows["rl"].debates == 10 + 6 and rows["rl"].note == "trains"


@pytest.mark.slow
def test_turns_train_both_and_measure_each(turned):
    found, metrics, folder, _ = turned
    result = metrics["turns"]
    assert [turn["debater"] for turn in result["turns"]] == ["base", "turns.1", "turns.2"]
    assert [turn["judge"] for turn in result["turns"]] == ["states", "turns.judge.1", "turns.judge.2"]
    assert result["turns"][0]["proxy"] is None and result["turns"][1]["held_out"]["n"] == 4
    first, second = (read_json(folder / f"turns/debater{turn}/job.json")["job"] for turn in (1, 2))
    assert second["adapter"].endswith("turns/debater1/adapter")
    assert first["online"]["judge"]["model"].endswith("states/model")
    assert len(second["online"]["judge"]["members"]) == 2
    assert quiet(found).judge_named("turns.judge.1").model == "turns/judge1/model"
    assert (folder / "turns/debater1/baselines.jsonl").is_file()  # one game a question, compared by side
    played = read(folder / "turns/games2.jsonl", JudgedDebate)
    assert {name for leg in played for name in leg.transcript.players.values()} == {"turns.1", "turns.2"}


@pytest.mark.slow
def test_judges_are_compared_on_the_same_games(turned):
    _, metrics, _, said = turned
    rows = metrics["judges"]["rows"]
    assert [row["judge"] for row in rows] == ["base", "states", "turns.judge"]
    assert rows[0]["change"] is None and {row["games"] for row in rows} == {4}
    assert any("accuracy" in line and "Brier" in line for line in said)


@pytest.mark.slow
def test_judges_trained_by_reinforcement_are_attacked_as_the_others_are(turned):
    _, metrics, folder, said = turned
    trials = read(folder / "judges/attacks.jsonl", Trial)
    assert {trial.judge for trial in trials} <= {"base", "states", "turns.judge"}
    assert sum(trial.judge == "base" for trial in trials) == 2 * 4
    for row in metrics["judges"]["rows"]:
        # A judge that states nothing has no verdict to attack, which is said.
        told = row["attacks"] is not None or any("not attacked" in line for line in said)
        assert told and (row["attacks"] is None or row["attacks"]["games"] == 4)


@pytest.mark.slow
def test_a_finished_run_does_nothing_again(turned):
    found, metrics, _, _ = turned
    said: list[str] = []
    again = run_stages(quiet(found, said))
    assert again["turns"] == metrics["turns"] and all("done before" in line for line in said if ":" in line)


@pytest.mark.slow
def test_a_plan_counts_the_turns(turned):
    found, _, _, _ = turned
    rows = {row.stage: row for row in plan(quiet(found), {"states", "turns", "judges"})}
    assert rows["turns"].debates > 3 * 4 and rows["turns"].note == "trains" and rows["judges"].verdicts > 0


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({**RL, "reward": "brie"}, "reward 'brie' is none of"),
        ({**RL, "watch": {"questions": 1}}, "greater than or equal to 2"),
        ({**ROUNDS, "debater": {"start": "dpo", "watch": None}}, "set by the turns"),
        ({**ROUNDS, "debater": {}}, "leave out debater.watch"),
        ({"kind": "judges", "judges": ["base", "base"]}, "names one twice"),
        ({"kind": "judges", "attacks": ["sufix"]}, "sufix"),
        ({"kind": "grpo", "train": {"num_generations": 1}}, "advantages: role"),
    ],
)
def test_mistakes_in_a_config_are_a_line(tmp_path, stage, message):
    with pytest.raises((UserError, ValidationError), match=message):
        config(tmp_path, {"sft": {}, "states": STATES, "rl": stage})


def test_a_reward_that_can_not_be_imported_and_too_few_games_are_said_before_a_run(tmp_path):
    found = config(tmp_path, {"rl": {**RL, "start": "base", "reward": "nowhere:reward"}})
    with pytest.raises(UserError, match="nowhere:reward"):
        plan(quiet(found))
    half = config(tmp_path, {"states": STATES, "rl": {**RL, "lora": LORA}})
    with pytest.raises(UserError, match="set lora: null where it goes on"):
        plan(quiet(half))
    unknown = config(tmp_path, {"states": STATES, "judges": {"judges": ["base", "state"], "players": ["base"]}})
    with pytest.raises(UserError, match="'state' is no stage that trains a judge.*did you mean 'states'"):
        plan(quiet(unknown))
    stage = JudgeGrpoStage(watch={"questions": 4})
    with pytest.raises(UserError, match="leaves 0 games"):
        judge_grpo.learnt_and_watched(stage, [], quiet(found).questions("train")[:4])


def test_win_rate_and_truth_part_where_both_are_beyond_their_intervals():
    def turn(number, wins, change):
        return Turn(
            turn=number, debater="d", judge="j",
            proxy=Estimate(value=wins, low=wins - 0.05, high=wins + 0.05, n=9, clusters=9),
            paying_change=Effect(value=change, low=change - 0.05, high=change + 0.05, n=9, clusters=9, p=0.5),
        )  # fmt: skip

    assert cotraining.parted([turn(1, 0.7, -0.02), turn(2, 0.52, -0.3), turn(3, 0.6, -0.1)]) == 3
    assert cotraining.parted([turn(1, 0.7, 0.1)]) is None


def test_turns_play_on_questions_of_their_own():
    assert [cotraining.share(4, 16, turn, 3) for turn in (1, 2, 3)] == [(0, 4), (4, 4), (8, 4)]
    assert cotraining.share(None, 12, 2, 3) == (4, 4) and cotraining.share(20, 10, 2, 3) == (0, 10)
    assert CotrainingStage(turns=2, debater={"watch": None}).makes("x") == {
        "x": "x/debater2", "x.1": "x/debater1", "x.2": "x/debater2", "x.judge": "x/judge2", "x.judge.1": "x/judge1",
        "x.judge.2": "x/judge2",
    }  # fmt: skip
