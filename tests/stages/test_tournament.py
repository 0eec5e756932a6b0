"""A tournament's schedule in a config: refused early, planned with as many games as it plays, and rated."""

import pytest
from pydantic import ValidationError

from debate_rl.config.tree import parse_config
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.records import digest
from debate_rl.runs.run import Run
from debate_rl.stages.tournament import TournamentStage

PLAYERS = ("base", "base@2", "base@3", "base@4", "base@5", "base@6")


@pytest.fixture
def tree(tmp_path, question):
    every = [
        question.model_copy(update={"id": f"q{at}", "group": f"g{at}", "passage": f"{question.passage} day {at}."})
        for at in range(12)
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(one.model_dump_json() for one in every))
    return {
        "name": "r",
        "runs": str(tmp_path / "runs"),
        "questions": {"source": "file", "path": str(tmp_path / "q.jsonl"), "train": 2, "test": 4},
        "models": {"debater": "owner/small", "judge": "owner/small"},
        "protocol": {"prompts": "lab"},
        "tracking": {"mode": "disabled"},
    }


def test_swiss_rounds_are_planned_with_as_many_games_as_are_played(tree, tmp_path):
    settings = {"players": PLAYERS, "schedule": "swiss", "rounds": 3, "resamples": 10, "evidence_probes": 0}
    config = parse_config({**tree, "stages": {"tournament": {"opponents": 0, **settings}}})
    said = []
    engine = ScriptedEngine(
        lambda request: f"the shed {int(digest(request), 16) % 97}",
        lambda choice: [int(digest([choice.messages[-1].content, text]), 16) % 7 / 7 for text in choice.candidates],
    )
    run = Run(config, engine, say=said.append)
    stage = config.stages["tournament"]
    planned = stage.games(run)
    result = stage.execute(run, tmp_path / "out")
    assert result.legs == len(planned) and len(result.ratings.standings) == 6
    assert sum(row.won + row.tied + row.lost for row in result.matches.players) == 2 * 3 * 3 * len(
        run.questions("test")
    )
    assert any("matches won against, %" in line for line in said)
    assert any("honest side wins where" in line for line in said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "swiss"}, "schedule: swiss and rounds belong together"),
        ({"rounds": 2}, "schedule: swiss and rounds belong together"),
        ({"players": PLAYERS[:3], "schedule": "swiss", "rounds": 2}, "needs 4 players or more, got 3"),
        ({"players": PLAYERS, "schedule": "swiss", "rounds": 2}, "6 players need 3 Swiss rounds or more"),
        ({"players": PLAYERS, "schedule": "swiss", "rounds": 6}, "play 3 Swiss rounds without meeting twice"),
        ({"schedule": "swis", "rounds": 2}, "round_robin"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused_when_the_config_is_read(tree, settings, said):
    with pytest.raises(ValidationError, match=said):
        TournamentStage.model_validate(settings)
    with pytest.raises(UserError, match=said) as error:
        parse_config({**tree, "stages": {"tournament": settings}})
    assert "\n" not in str(error.value)
