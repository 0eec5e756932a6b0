import math

import pytest

from debate_rl import Debater, Judge, TournamentSettings, UserError, play_tournament
from debate_rl.arena.tournament import outcomes
from debate_rl.engines.scripted import ScriptedEngine


def strength(choice):
    """A judge that believes the stronger model, and the truth a little."""
    text = choice.messages[-1].content
    lines = [line for line in text.splitlines() if "power" in line]
    powers = [float(line.split("power")[1].split()[0]) for line in lines]
    shed = next((p for line, p in zip(_heads(text), powers, strict=False) if "shed" in line), 0.0)
    barn = next((p for line, p in zip(_heads(text), powers, strict=False) if "barn" in line), 0.0)
    return (
        [shed + 0.4, barn]
        if choice.candidates[0] == "A" and "(A) shed" in text
        else _by_label(choice, text, shed, barn)
    )


def _heads(text):
    return [line for line in text.splitlines() if line.startswith("<speech")]


def _by_label(choice, text, shed, barn):
    first_is_shed = text.index("shed") < text.index("barn")
    values = {"A": shed + 0.4 if first_is_shed else barn, "B": barn if first_is_shed else shed + 0.4}
    return [values[candidate] for candidate in choice.candidates]


@pytest.fixture
def result(question, tmp_path):
    engine = ScriptedEngine(lambda r: f"power {r.model[1:]}", strength)
    players = [Debater(name=n, model=m) for n, m in (("weak", "m0"), ("middle", "m1"), ("strong", "m2"))]
    asked = [question.model_copy(update={"id": f"q{i}", "group": f"g{i}"}) for i in range(8)]
    return play_tournament(
        players, asked, Judge(model="j"), engine=engine, folder=tmp_path, settings=TournamentSettings(resamples=100)
    )


def test_ratings_recover_what_the_judge_rewards(result):
    assert [row.player for row in result.ratings.standings] == ["strong", "middle", "weak"]
    elo = {row.player: row.rating.value for row in result.ratings.standings}
    assert elo["strong"] - elo["middle"] == pytest.approx(400 / math.log(10), rel=0.03)
    assert sum(elo.values()) / 3 == pytest.approx(1000)
    assert result.ratings.sides["correct"].value > 0


def test_judge_accuracy_comes_from_self_play_alone(result):
    assert set(result.judge_accuracy) == {"weak", "middle", "strong"}
    assert all(scores.n == 8 and scores.accuracy.value == 1 for scores in result.judge_accuracy.values())


def test_where_every_debate_fails_the_first_reason_is_given(question, tmp_path):
    players = [Debater(name=n, model=m) for n, m in (("weak", "m0"), ("strong", "m2"))]
    engine = ScriptedEngine(lambda request: "power 1", lambda choice: [math.nan] * 2)
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match=r"all 4 debates failed, the first with: .*nan"):
            play_tournament(players, [question], Judge(model="j"), engine=engine, folder=folder)
    assert (tmp_path / "debates.jsonl").read_text().count("failure") == 4


def test_a_tournament_that_goes_on_ends_as_one_that_was_not_stopped(question, tmp_path):
    def played(folder, engine):
        asked = [question.model_copy(update={"id": f"q{i}", "text": f"{i} {question.text}"}) for i in range(60)]
        players = [Debater(name=n, model=m) for n, m in (("weak", "m0"), ("strong", "m2"))]
        settings = TournamentSettings(resamples=20)
        return play_tournament(players, asked, Judge(model="j"), engine=engine, folder=folder, settings=settings)

    class Dying(ScriptedEngine):
        def choose(self, choices):
            if self.calls > 2:
                raise KeyboardInterrupt
            return super().choose(choices)

    def write(request):
        return f"power {request.model[1:]}"

    whole = played(tmp_path / "whole", ScriptedEngine(write, strength))
    with pytest.raises(KeyboardInterrupt):
        played(tmp_path / "stopped", Dying(write, strength))
    again = played(tmp_path / "stopped", ScriptedEngine(write, strength))
    assert again.ratings == whole.ratings and again.judge_accuracy == whole.judge_accuracy
    assert list(again.legs) == list(whole.legs) and again.failed == 0
    assert (tmp_path / "stopped/debates.jsonl").read_bytes() == (tmp_path / "whole/debates.jsonl").read_bytes()
    in_memory = played(None, ScriptedEngine(write, strength))
    assert in_memory.ratings == whole.ratings and list(in_memory.legs) == list(whole.legs)


def test_failed_legs_count_for_no_one(result):
    half = [leg if i % 2 else leg.model_copy(update={"verdict": None}) for i, leg in enumerate(result.legs)]
    assert len(outcomes(half).left) == len(result.legs) // 2


@pytest.mark.parametrize(
    ("names", "protocol", "count", "said"),
    [
        (["x"], "debate", 1, "at least two"),
        (["x", "x"], "debate", 1, "different names"),
        (["x", "y"], "single", 1, "no opponent"),
        (["x", "y"], "debate", 0, "at least one question"),
    ],
)
def test_mistakes(question, names, protocol, count, said):
    players = [Debater(name=name, model="m") for name in names]
    with pytest.raises(UserError, match=said):
        play_tournament(players, [question] * count, Judge(model="m"), protocol, engine=ScriptedEngine())
