"""Adversarial rounds with a judge that falls for one word; that training resumes is tested in tests/trainers."""

import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.judges.attacks.edits import attacked_copies
from debate_rl.judges.attacks.suffix_search import Found, Search
from debate_rl.records import read_json, write_json
from debate_rl.runs.run import Run
from debate_rl.stages import adversarial, judge
from debate_rl.stages.adversarial import mixed
from debate_rl.stages.judge import JudgeStage, _attacked
from debate_rl.stages.workload import Rows
from tests.judges.attacks.test_robustness import debates, swayed
from tests.stages.test_attacks import config
from tests.stages.test_judge import JUDGE, TRAINED, ran


@pytest.fixture
def trainings(monkeypatch):
    """What each training was given; a round searches twice, in seconds."""
    seen = []

    def train(run, stage, kind, rows, out, base, start=None):
        seen.append((out.name, rows, base, start))
        return {**TRAINED, "rows": len(rows)}

    monkeypatch.setattr(adversarial, "train", train)
    monkeypatch.setattr(adversarial, "SEARCHES", (Search(length=1, pool=4000, trials=4, screen=1),) * 2)
    return seen


def rounds(tmp_path, engine, count=2, **stage):
    found = config(tmp_path, adversarial_rounds=count, **stage)
    one = Run(found, engine=engine, say=lambda line: None)
    return adversarial.adversarial_rounds(found.stages["judge"], one, tmp_path / "judge", debates(), JUDGE)


def test_each_round_searches_its_judge_and_learns_from_all_that_was_found(tmp_path, trainings, monkeypatch):
    attacked = []

    def copies(games, attacks, count):
        attacked.append((len(games), [one if isinstance(one, str) else one.words.lab for one in attacks], count))
        return attacked_copies(games, attacks, count)

    monkeypatch.setattr(adversarial, "attacked_copies", copies)
    after, found, finished = rounds(tmp_path, swayed("indeed"), train_attacks=["suffix_sure"], train_copies=2)
    assert [[one.text for one in each] for each in found] == [["indeed", "indeed"]] * 2
    assert attacked == [(3, ["suffix_sure", "indeed"], 2)] * 2  # a third of 8 games
    assert [(name, base, start) for name, _, base, start in trainings] == [
        ("round1", "m", None),
        ("round2", "m", str(tmp_path / "judge" / "round1" / "adapter")),
    ]
    assert after.adapter == str(tmp_path / "judge" / "round2" / "adapter") and after.name == JUDGE.name
    rows = trainings[0][1]
    assert len(rows) == 2 * 3 * 3 and any(row.prompt[-1]["content"].count("indeed") == 1 for row in rows)
    assert [training.rows for training in finished] == [18, 18]


def test_what_a_round_has_found_is_not_searched_again(tmp_path, trainings):
    engine = swayed("indeed")
    _, first, _ = rounds(tmp_path, engine)
    path = tmp_path / "judge" / "round1" / "found.json"
    assert read_json(path)[0]["text"] == "indeed" and engine.calls
    kept = [one.model_copy(update={"text": "now"}) for one in first[0]]
    write_json(path, [one.model_dump(mode="json") for one in kept])
    assert rounds(tmp_path, ScriptedEngine())[1] == [tuple(kept), first[1]]


def test_a_model_that_is_trained_whole_is_trained_further(tmp_path, trainings):
    after, *_ = rounds(tmp_path, swayed("indeed"), lora=None)
    assert [base for _, _, base, _ in trainings] == ["m", str(tmp_path / "judge" / "round1" / "model")]
    assert (after.model, after.adapter) == (str(tmp_path / "judge" / "round2" / "model"), None)


def test_found_and_named_attacks_take_turns():
    a, b, c = (Found(text=text, gain=1.0, tried=1, trials=1).attack for text in "abc")
    assert mixed(["x"], [a, b, c]) == ["x", a, "x", b, "x", c] and mixed(["x", "y"], [a]) == ["x", a, "y", a]
    assert mixed([], [a, b]) == [a, b] and mixed(["x"], []) == ["x"]


def test_the_last_rounds_judge_is_the_stages_and_its_rounds_are_told(tmp_path, trainings, monkeypatch):
    told, shown = [], []
    search = adversarial.search_suffix

    def searched(games, *rest):
        shown.append({game.question.cluster for game in games})
        return search(games, *rest)

    monkeypatch.setattr(adversarial, "search_suffix", searched)
    monkeypatch.setattr(
        judge, "compare_attacks", lambda games, _, after, *rest: told.append((games, after, rest)) or None
    )
    metrics, said = ran(tmp_path, monkeypatch, lambda request: "it was so", swayed("so")._score, adversarial_rounds=2)
    assert len(metrics["adversarial"]) == 2 and sum("round" in line for line in said) == 2
    games, after, rest = told[0]
    assert after.model.endswith("out/round2/model") and after.calibrator is not None and len(rest[-1]) == 2
    stories = {game.question.cluster for game in games}
    assert len(shown) == 4 and stories and not any(stories & one for one in shown)


def test_where_the_weights_are_and_what_is_refused(tmp_path):
    assert JudgeStage(adversarial_rounds=2).makes("judge") == {"judge": "judge/round2"}
    assert JudgeStage().makes("judge") == {"judge": "judge"}
    with pytest.raises(UserError, match="is for from: self_play"):
        config(tmp_path, adversarial_rounds=1, **{"from": "recorded"})


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 60), ({"train_attacks": ["tone_sure"], "train_copies": 2}, 180), ({"adversarial_rounds": 3}, 60 + 120)],
)
def test_what_the_judge_is_shown_more_often_is_estimated(settings, count):
    assert _attacked(JudgeStage(**settings), Rows(60, 600, 10, 2)) == Rows(count, 10 * count, 10, 2)
