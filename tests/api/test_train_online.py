"""Online training by function calls: rewards that are Python functions, for debaters and for judges."""

import pytest

import debate_rl as dr
from debate_rl.records import read_json

SMALL = {"max_steps": 1, "num_generations": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}


@pytest.fixture
def rules():
    return dr.load_protocol("debate", prompts="lab", max_new_tokens=8)


def history(folder):
    return read_json(folder / "history.json")[0]


@pytest.mark.slow
def test_a_debater_and_a_judge_learn_by_functions(tmp_path, rules, capsys):
    questions = dr.load_questions("lab", split="train", limit=4)
    base = dr.Debater("base", model="lab-small", temperature=1.0)
    judge = dr.Judge(model="lab-small")

    def short(speech, debate):
        assert debate.verdict is not None and speech in debate.transcript.speeches
        return -float(speech.origin.new_tokens)

    rewards = dr_rewards(truncated="keep")
    learnt = dr.train_grpo(
        base, questions, judge, tmp_path / "grpo", protocol=rules, reward=short, rewards=rewards, **SMALL
    )
    assert learnt.name == "grpo" and history(tmp_path / "grpo")["rewards/win/mean"] < -1
    assert "short#" in read_json(tmp_path / "grpo/job.json")["job"]["online"]["reward"]

    debates = dr.play(base, base, questions, None, rules)
    calls = []

    def half(judgement):
        calls.append(judgement)
        return float("nan") if len(calls) % 2 else judgement.p_correct

    stated = dr.StatedJudge(model="lab-small", max_new_tokens=4)
    silent = dr.train_judge_grpo(stated, debates, tmp_path / "judge", reward=half, **SMALL)
    assert silent.adapter.endswith("adapter") and silent.name == "judge"
    assert "none of the judge's 4 first answers states a probability" in capsys.readouterr().out
    assert not calls and history(tmp_path / "judge")["rollout/unstated"] == 4
    assert history(tmp_path / "judge")["rewards/rule/mean"] == -1


def test_a_debater_learns_from_a_judge_that_is_a_function(tmp_path, rules):
    questions = dr.load_questions("lab", split="train", limit=4)
    base = dr.Debater("base", model="lab-small", temperature=1.0)
    seen = []

    def side_a(games):
        seen.extend(games)
        return [0.75 for _ in games]

    judge = dr.FunctionJudge(name="side_a", decide=side_a)
    learnt = dr.train_grpo(base, questions, judge, tmp_path / "grpo", protocol=rules,
                           rewards=dr_rewards(truncated="keep"), **SMALL)  # fmt: skip
    assert seen and learnt.adapter.endswith("adapter")
    assert history(tmp_path / "grpo")["rollout/side_a_wins"] == 1
    decide = read_json(tmp_path / "grpo/job.json")["job"]["online"]["judge"]["decide"]
    assert "side_a#" in decide
    # Named by its code: the same script finds its finished training, another function is another training.
    assert dr.train_grpo(base, questions, judge, tmp_path / "grpo", protocol=rules,
                         rewards=dr_rewards(truncated="keep"), **SMALL) == learnt  # fmt: skip
    other = dr.FunctionJudge(name="side_a", decide=lambda games: [0.25 for _ in games])
    with pytest.raises(dr.UserError, match="holds another training job"):
        dr.train_grpo(base, questions, other, tmp_path / "grpo", protocol=rules, **SMALL)


def dr_rewards(**fields):
    from debate_rl.trainers.grpo.settings import Rewards

    return Rewards(**fields)


def test_mistakes_are_a_line(tmp_path, rules):
    questions = dr.load_questions("lab", split="train", limit=2)
    base = dr.Debater("base", model="lab-small", temperature=1.0)

    def broken(speech, debate):
        raise RuntimeError("no such table")

    with pytest.raises(dr.UserError, match="broken raised RuntimeError: no such table, as in all of its"):
        dr.train_grpo(base, questions, dr.Judge(model="lab-small"), tmp_path / "a", protocol=rules, reward=broken,
                      **SMALL)  # fmt: skip
    debates = dr.play(base, base, questions, None, rules)
    judge = dr.StatedJudge(model="lab-small")
    with pytest.raises(dr.UserError, match="rule"):
        dr.train_judge_grpo(judge, debates, tmp_path / "b", reward="brie", **SMALL)
    with pytest.raises(dr.UserError, match="nowhere"):
        dr.train_judge_grpo(judge, debates, tmp_path / "c", reward="nowhere:pay", **SMALL)
    unknown = [leg.transcript.question.model_copy(update={"correct": None}) for leg in debates]
    games = [leg.transcript.model_copy(update={"question": q}) for leg, q in zip(debates, unknown, strict=True)]
    with pytest.raises(dr.UserError, match="no game can be judged"):
        dr.train_judge_grpo(judge, games, tmp_path / "d", **SMALL)
