"""The stage of online training on the lab's small model: what it plays, what it leaves, adversarial rounds."""

import pytest

from debate_rl.config.tree import parse_config
from debate_rl.data.models import model_path
from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Message
from debate_rl.engines.server.budget import Paid
from debate_rl.errors import UserError
from debate_rl.game.question import Question
from debate_rl.game.verdict import JudgedDebate
from debate_rl.plan.plan import plan
from debate_rl.plan.training_cost import estimates
from debate_rl.records import read, read_json, read_log
from debate_rl.report.page import render
from debate_rl.report.run_folder import load_run
from debate_rl.runs.execute import needed, run_stages
from debate_rl.runs.run import Run
from debate_rl.stages import grpo
from debate_rl.trainers.common.load import load_tokenizer
from debate_rl.trainers.grpo.eval_metrics import Point
from tests.engines.wire import WireServer

LORA = {"r": 4, "alpha": 8}
TRAIN = {"max_steps": 2, "num_generations": 2, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
         "learning_rate": 4e-3}  # fmt: skip
GRPO = {"start": "base", "lora": LORA, "train": TRAIN, "questions": 6, "rewards": {"truncated": "keep"},
        "watch": {"every": 2, "questions": 4, "second": "lab-base"}}  # fmt: skip


def config(folder, stages, **changes):
    """A run that takes seconds."""
    return parse_config({
        "name": "on", "runs": str(folder), "questions": {"train": 16, "test": 6}, "tracking": {"mode": "disabled"},
        "protocol": {"prompts": "lab", "max_new_tokens": 12}, "engine": {"threads": 1, "temperature": 1.0},
        "models": {"debater": "lab-small", "judge": "lab-small"}, "stages": stages, **changes,
    })  # fmt: skip


def quiet(found):
    return Run(found, say=lambda line: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Adversarial rounds: the debater learns, the judge is refitted on its debates, and so once more."""
    folder = tmp_path_factory.mktemp("runs")
    judge = {"kind": "judge", "protocols": ["debate"], "questions": 8, "calibrate": "none", "lora": LORA,
             "train": {"max_steps": 2, "per_device_train_batch_size": 4}}  # fmt: skip
    found = config(folder, {
        "grpo": GRPO, "judge": {**judge, "players": ["base", "grpo"]},
        "again": {**GRPO, "kind": "grpo", "start": "grpo", "skip": 6, "watch": None, "opponent": "players",
                  "players": ["base"]},
        "tournament": {"players": ["base", "grpo", "again"], "resamples": 20, "evidence_probes": 0},
    })  # fmt: skip
    return found, run_stages(quiet(found)), folder / "on"


def test_watched_games_name_weights_as_the_run_does_and_not_by_their_place_on_this_machine(finished):
    _, _, folder = finished
    games = read(folder / "grpo" / "debates.jsonl", JudgedDebate)
    origins = [speech.origin for game in games for speech in game.transcript.speeches]
    assert {origin.model for origin in origins if origin.player == "start"} == {"lab-small"}


def test_the_debater_is_a_player_of_later_stages_and_the_judge_learns_from_its_debates(finished):
    _, metrics, folder = finished
    assert {row["player"] for row in metrics["tournament"]["ratings"]["standings"]} == {"base", "grpo", "again"}
    assert metrics["grpo"]["steps"] == metrics["again"]["steps"] == 2
    assert metrics["grpo"]["judge"] == "base judge" and metrics["again"]["judge"] == "judge"
    assert read_json(folder / "again/job.json")["job"]["adapter"].endswith("grpo/adapter")


def test_what_is_measured_is_not_played(finished):
    found, _, folder = finished
    played, watched = read(folder / "grpo/rows.jsonl", Question), read(folder / "grpo/watch.jsonl", Question)
    again = read(folder / "again/rows.jsonl", Question)
    names = [{question.id for question in group} for group in (played, watched, again)]
    assert [len(group) for group in names] == [6, 4, 6]
    assert not (names[0] & names[1] or names[1] & names[2] or names[0] & names[2])
    assert [len(part) for part in grpo.shares(found.stages["grpo"], quiet(found))] == [6, 4]


def test_the_stage_leaves_a_curve_counts_and_cards(finished):
    _, metrics, folder = finished
    points = read_log(folder / "grpo/curve.jsonl", Point)
    assert [point.step for point in points] == [0, 2] and metrics["grpo"]["second"] == "lab-base"
    assert metrics["grpo"]["curve"] == [point.model_dump(mode="json") for point in points]
    assert points[-1].second is not None
    assert metrics["grpo"]["skipped"]["groups"] == 2 * 2 * 2
    assert 0 < metrics["grpo"]["generated_tokens"] <= 2 * 8 * 12
    assert metrics["again"]["curve"] == [] and not metrics["again"]["stopped"]
    card = (folder / "grpo/adapter/README.md").read_text()
    assert "truncated keep" in card and "base judge" in card
    assert "| questions | 6 |" in (folder / "grpo/data_card.md").read_text()


def test_the_page_shows_the_curve(finished):
    _, _, folder = finished
    page = render(load_run(folder))
    assert '<section id="online">' in page and "held out" in page and "Elo over base" in page


def test_the_plan_counts_rollouts_measurements_and_what_is_learnt_from(finished):
    """Against what was measured: two steps of two questions, and the curve's games before and after."""
    found, metrics, folder = finished
    (row,) = plan(quiet(found), {"grpo"})
    watched = sum(1 for path in (folder / "grpo/watch").glob("*.jsonl") for _ in path.open())
    assert row.debates == 2 * 4 + watched == 8 + 2 * 12
    assert row.speeches == 2 * 8 + 2 * 4 * 2 * 2 and row.note == "trains"
    assert row.new_tokens == pytest.approx(metrics["grpo"]["generated_tokens"] + 32 * 12, rel=0.2)
    (training,) = estimates(quiet(found), {"grpo"})
    tokens = read_json(folder / "grpo/tokens.json")
    assert training.rows == 2 * 8 and training.gib > 0
    prompts = tokens["tokens"]["prompt"]["sum"] / tokens["trained"]
    assert training.tokens == pytest.approx(16 * (prompts + 12), rel=0.2)


def test_verdicts_are_of_the_whole_matrix_where_speeches_meet_each_other(tmp_path):
    grpo = {**GRPO, "watch": None}
    one = plan(quiet(config(tmp_path, {"grpo": grpo})))[0]
    assert (one.debates, one.speeches, one.verdicts) == (2 * 4, 2 * 8, 2 * 2 * (2 * 2) * 2)
    alone = plan(quiet(config(tmp_path, {"grpo": {**grpo, "protocol": "single"}})))[0]
    assert (alone.debates, alone.verdicts) == (2 * 8, 2 * 8 * 2)
    rival = plan(quiet(config(tmp_path, {"grpo": {**grpo, "opponent": "start"}})))[0]
    assert (rival.debates, rival.speeches) == (2 * 8, 2 * 2 * 8)


@pytest.mark.parametrize(
    ("train", "questions", "sequences"),
    [
        ({"max_steps": 3}, 6, 24),
        ({"max_steps": 3, "gradient_accumulation_steps": 2}, 12, 48),
        ({"max_steps": 4, "num_iterations": 2}, 4, 32),
        ({"max_steps": -1, "num_train_epochs": 2}, 12, 48),
        ({"max_steps": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4}, 16, 64),
    ],
)
def test_volume_follows_trls_batches(tmp_path, train, questions, sequences):
    run = quiet(config(tmp_path, {"grpo": {**GRPO, "train": {**TRAIN, **train}}}))
    stage = run.config.stages["grpo"]
    found = grpo.volume(stage, run, grpo.planned(stage, run, run.judge("grpo")))
    assert (found.questions, found.sequences) == (questions, sequences)


def test_online_training_needs_the_judge_before_it():
    stages = {"sft": {}, "judge": {"players": ["sft"]}, "grpo": {"start": "sft"}}
    assert needed(parse_config({"stages": stages}), "grpo") == {"sft", "judge", "grpo"}


def test_the_runs_server_writes_the_speeches_and_keeps_no_policy(tmp_path):
    """Its engine is a tiny model's, which is sent the adapter; the judge stays in the training process."""
    path = model_path("lab-small")
    writer = TransformersEngine(lambda name: path if name == "lab-small" else name, device="cpu", keep_tokens=True)
    tokenizer = load_tokenizer(path)

    def ids(messages):
        return prompt_ids(tokenizer, [Message(**message) for message in messages])

    server = WireServer(writer, served=("lab-small",), adapters="lab-small", ids=True, prompt=ids)
    engine = {"kind": "server", "url": server.url, "temperature": 1.0, "threads": 1}
    grpo = {**GRPO, "server_roles": "speeches", "watch": None}
    found = run_stages(quiet(config(tmp_path, {"grpo": grpo}, engine=engine)))["grpo"]
    server.close()
    assert found["steps"] == 2 and found["retokenized"] == 0 and found["skipped"]["failed_games"] == 0
    assert [name.rpartition("-")[0] for name in server.unloaded] == ["policy-step0", "policy-step1"]
    assert server.loaded == {} and not list((tmp_path / "on/grpo").glob("policy*"))
    assert sum(Paid.model_validate_json(line).count for line in (tmp_path / "on/paid.jsonl").open()) > 0


@pytest.mark.parametrize("served", ["all", "speeches", "none"])
def test_models_are_named_as_who_answers_knows_them(tmp_path, served):
    engine = {"kind": "server", "url": "http://localhost:9/v1", "budget": {"tokens": 7}}
    found = config(tmp_path, {"grpo": {**GRPO, "server_roles": served, "watch": None}}, engine=engine)
    settings = grpo.settings(found.stages["grpo"], quiet(found), tmp_path)
    folder = str(model_path("lab-small"))
    assert settings.judge.model == ("lab-small" if served == "all" else folder)
    assert (settings.server is None) == (served == "none")
    if settings.server is not None:
        assert (settings.server.model, settings.server.tokens) == ("lab-small", 7)
        assert settings.server.ledger == str(tmp_path / "on/paid.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"questions": 13}, "plays 13 training questions after 0 and keeps 4 for watch, and there are 16"),
        ({"skip": 12}, "plays 6 training questions after 12"),
        ({"protocol": "blind"}, "grpo: .*nobody speaks"),
        ({"protocol": "market_making"}, "does not say beforehand who speaks"),
        ({"watch": {"questions": 4, "second": "base"}}, "watch.second: .* is the judge that training uses"),
        ({"opponent": "players", "players": ["base@4"]}, "draws one speech; name it without @N"),
        ({"train": {**TRAIN, "use_vllm": True}}, "train.use_vllm has no effect here"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_said_in_a_line(tmp_path, changes, said):
    found = config(tmp_path, {"grpo": {**GRPO, **changes}})
    with pytest.raises(UserError, match=said) as error:
        run_stages(quiet(found))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"opponent": "players"}, "players belong together"),
        ({"players": ["base"]}, "players belong together"),
        ({"start": "dop"}, "builds on 'dop'"),
        ({"watch": {"pool": ["later"]}}, "builds on 'later'"),
        ({"rewards": {"win": "logits"}}, "rewards.win"),
        ({"quantize": "nf4", "lora": None}, "quantize needs lora"),
    ],
)
def test_settings_that_contradict_each_other(stage, said):
    with pytest.raises(UserError, match=said):
        parse_config({"stages": {"grpo": {"start": "base", **stage}}})
