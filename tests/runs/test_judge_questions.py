"""Runs in which the judge asks: every stage plays it, a plan counts it, a stopped run ends the same, it is shown."""

import csv
import json
import shutil

import pytest

from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.game.prompts import SHIPPED
from debate_rl.game.protocol import load_protocol
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.judge import Judge
from debate_rl.plan.plan import plan
from debate_rl.records import digest, read
from debate_rl.report.debate_rows import debate_rows
from debate_rl.runs.execute import run_stages
from debate_rl.runs.run import Run
from debate_rl.stages.habits import first_prompts
from debate_rl.trainers.common.rows import PreferenceRow
from debate_rl.trainers.grpo.settings import Online
from tests.command import mistake
from tests.runs.test_run import results, small

STAGES = {
    "preferences": {"player": "base", "method": "full", "questions": 2},
    "tournament": {"players": ["base", "base@2"], "resamples": 20, "opponents": 1},
    "oversight": {"players": ["base"], "protocols": ["debate_questions", "single", "debate"]},
    "report": {},
}


def config(folder, stages=STAGES, **changes):
    """A run under debate_questions, with the judge another model than the debater."""
    rules = {"name": "debate_questions", "prompts": "lab", "max_new_tokens": 24}
    models = {"debater": "lab-base", "judge": "lab-small", "weak": "lab-base"}
    return small(folder, own=dict(stages), protocol=rules, models=models, **changes)


def write_text(request):
    """Different words for different prompts; the judge's are a question."""
    if request.model == "lab-small":
        return f"why {digest(request)[:5]} ?"
    return f"it is so {digest(request)[:5]} <quote>the</quote>"


def score(choice):
    """Log-probabilities drawn by the prompt."""
    return [-1 - int(digest([digest(choice), candidate]), 16) % 100 / 100 for candidate in choice.candidates]


def quiet(found, engine):
    return Run(found, say=lambda line: None, engine=engine)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and the requests that it made."""
    folder = tmp_path_factory.mktemp("asked")
    engine = ScriptedEngine(write_text, score)
    run_stages(quiet(config(folder), engine))
    return folder / "small", engine


def legs(folder, stage):
    return read(folder / stage / "debates.jsonl", JudgedDebate)


def test_every_stage_plays_the_questions_of_the_protocol_and_of_no_other(finished):
    folder, _ = finished
    asked = {"debate_questions": 1, "debate": 0, "single": 0}
    for stage in ("tournament", "oversight"):
        found = legs(folder, stage)
        assert found and all(leg.failure is None for leg in found)
        for leg in found:
            assert len(leg.transcript.asked) == asked[leg.transcript.protocol.name]
    for line in (folder / "oversight" / "debates.jsonl").read_text().splitlines():
        rules = json.loads(line)["transcript"]["protocol"]
        assert ("judge_questions" in rules) == (rules["name"] == "debate_questions")
    later = [row for row in read(folder / "preferences" / "rows.jsonl", PreferenceRow) if row.turn == 1]
    assert later and all("asked : why " in row.prompt[-1]["content"] for row in later)


def test_a_plan_counts_the_questions_and_shows_their_prompt(tmp_path):
    only = {"oversight": {"players": ["base"], "protocols": ["debate_questions"]}}
    (planned,) = plan(Run(config(tmp_path, only)))
    by_model = {share.model: share.texts for share in planned.shares}
    # Six games of self-play: a question to each, and two rounds of both sides.
    assert by_model == {"lab-base": 6 * 4, "lab-small": 6}
    seats = first_prompts(Run(config(tmp_path)))
    assert [seat for seat, _ in seats][2] == "judge, question after turn 1" and len(seats) == 6
    assert "(question of the judge)" in seats[3][1][-1]["content"]


def test_a_run_stopped_at_a_question_ends_like_one_that_was_not(finished, tmp_path):
    folder, _ = finished

    class Dying(ScriptedEngine):
        """Ends the process at a call for questions, after some of them."""

        calls_for_questions = 0
        answered = 0

        def generate(self, requests):
            if any(request.model == "lab-small" for request in requests):
                self.calls_for_questions += 1
                if self.calls_for_questions > self.answered:
                    raise KeyboardInterrupt
            return super().generate(requests)

    # In the trees of the preferences, then in the tournament: what was asked before is in the store.
    for Dying.answered in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            run_stages(quiet(config(tmp_path), Dying(write_text, score)))
    run_stages(quiet(config(tmp_path), ScriptedEngine(write_text, score)))
    expected, found = results(folder), results(tmp_path / "small")
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_the_exports_hold_the_questions(finished, tmp_path, call):
    folder, _ = finished
    code, _, err = call("export", folder, "--to", "csv", "--out", tmp_path / "out")
    assert code == 0, err
    with (tmp_path / "out" / "debates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with_questions = [row for row in rows if row["protocol"] == "debate_questions"]
    (asked,) = json.loads(with_questions[0]["judge_questions"])
    assert asked["turn"] == 0 and asked["text"].startswith("why ") and asked["judge"]
    assert all(not row["judge_questions"] for row in rows if row["protocol"] == "debate")


def test_a_row_of_a_table_of_debates_shows_them_as_words(finished):
    folder, _ = finished
    leg = legs(folder, "tournament")[0]
    asked = leg.transcript.asked[0].model_copy(update={"text": "why <script> ?"})
    hostile = leg.model_copy(update={"transcript": leg.transcript.model_copy(update={"asked": (asked,)})})
    ((*_, page),) = debate_rows([hostile], 1)
    assert "asks</p>" in page and "why \u2039script\u203a ?" in page and "<script>" not in page
    assert page.index("turn 1") < page.index("asks</p>") < page.index("turn 2")


def test_an_inspect_log_has_the_questions_as_messages(finished, tmp_path, call):
    inspect_log = pytest.importorskip("inspect_ai.log", reason="needs the extra `inspect`")
    folder, _ = finished
    code, _, err = call("export", folder, "--to", "inspect", "--out", tmp_path / "out")
    assert code == 0, err
    (path,) = (tmp_path / "out").glob("*tournament*")
    sample = inspect_log.read_eval_log(str(path)).samples[0]
    assert [message.role for message in sample.messages][1:] == [
        "assistant",
        "assistant",
        "user",
        "assistant",
        "assistant",
    ]
    assert "asks**" in sample.messages[3].content and "why " in sample.messages[3].content


def test_what_can_not_be_asked_is_said_before_anything_runs(tmp_path, call):
    with pytest.raises(ValueError, match="judge_questions are not asked in online training"):
        Online(protocol=load_protocol("debate_questions"), judge=Judge(model="m"))
    path = tmp_path / "c.yaml"
    path.write_text(
        "stages: {oversight: {players: [base], protocols: [debate_questions]}}\nquestions: {test: 4, train: 4}\n"
    )
    words = ("run", path, "--dry-run", f"runs={tmp_path}", "protocol.prompts=lab")
    assert "two rounds or more" in mistake(call(*words, "protocol.name=debate_questions", "protocol.turns=1"))
    code, out, _ = call(*words)
    assert code == 0 and "oversight" in out
    mine = tmp_path / "prompts"
    shutil.copytree(SHIPPED / "lab", mine)
    (mine / "question.j2").unlink()
    said = mistake(call("run", path, "--dry-run", f"runs={tmp_path}", f"protocol.prompts={mine}"))
    assert "has no question.j2" in said
