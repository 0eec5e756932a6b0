import pytest

from debate_rl.config.tree import parse_config
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import read, read_json
from debate_rl.runs.execute import needed, run_stages
from debate_rl.runs.run import Run
from debate_rl.stages.weak_to_strong import _items
from debate_rl.trainers.common import job as jobs
from debate_rl.trainers.common.rows import JudgeRow, RewardRow
from debate_rl.weak_to_strong.results.predictions import Hits

SIZES = {"supervisor": 12, "student": 12, "test": 12, "seeds": 1, "lora": None, "debater": "base"}
TRAIN = {"num_train_epochs": 1, "per_device_train_batch_size": 12, "disable_tqdm": True}


def config(folder, **tables):
    """A run of tables; settings of a table over small sizes."""
    stages = {name: {"kind": "weak_to_strong", **SIZES, "train": TRAIN, **table} for name, table in tables.items()}
    return parse_config(
        {
            "name": "r", "runs": str(folder), "questions": {"train": 4, "test": 4}, "stages": stages,
            "models": {"weak": "lab-small", "strong": "lab-base", "judge": "lab-small"},
            "protocol": {"prompts": "lab", "max_new_tokens": 12}, "tracking": {"mode": "disabled"},
        }
    )  # fmt: skip


def test_tables_of_a_run_share_games_supervisors_and_ceiling(tmp_path, monkeypatch):
    first = {"methods": {"none": {"members": 1}, "debate": {"context": "debate", "members": 2}}}
    second = {
        "methods": {"four": {"context": "debate", "members": 1}, "market": {"context": "market_making", "members": 1}}
    }
    found = config(tmp_path, main=first, more=second)
    trained = []
    train = jobs._train
    monkeypatch.setattr(jobs, "_train", lambda job, *rest: trained.append(job) or train(job, *rest))
    run = Run(found, say=lambda _: None)
    metrics = run_stages(run)
    assert [row["name"] for row in metrics["main"]["methods"]] == ["none", "debate"]
    # main: weak, 2 supervisors with debates, 2 students, strong on D1, ceiling; more: a supervisor and two students.
    assert len(trained) == 7 + 3
    games = {line.name for line in (tmp_path / "r/transfer/games").glob("*.jsonl")}
    assert len(games) == 3  # two draws of the debate, market-making
    hits = [Hits.model_validate(read_json(tmp_path / f"r/{name}/trainings/hits.json")) for name in ("main", "more")]
    assert hits[0].test["ceiling"] == hits[1].test["ceiling"] and hits[0].test["weak"] == hits[1].test["weak"]
    index = [read_json(tmp_path / f"r/{name}/trainings/index.json") for name in ("main", "more")]
    assert index[0]["seed0/debate/supervisor0"] == index[1]["seed0/debate/supervisor0"]
    folder = tmp_path / "r/transfer" / index[1]["seed0/market_making/supervisor0"]
    prompt = read(read_json(folder / "job.json")["job"]["rows"], JudgeRow)[0].prompt
    assert sum(message["content"].count("\nfor ") for message in prompt) == 1
    assert (tmp_path / "r/main/debates.jsonl").is_file()


def test_a_table_names_its_players_and_what_it_builds_on(tmp_path):
    contexts = {"bon": {"debater": "dpo@4", "turns": 3}, "two": {"debater": "sft", "opponent": "weak"}}
    table = {"context": ["none", "bon", "two", "explanations"], "contexts": contexts, "ensemble": 3}
    stages = {
        "sft": {}, "preferences": {"player": "sft"}, "dpo": {"start": "sft"}, "judge": {"players": ["sft"]},
        "weak_to_strong": table, "plain": {"kind": "weak_to_strong", "context": ["none"]},
    }  # fmt: skip
    found = parse_config({"stages": stages})
    stage = found.stages["weak_to_strong"]
    assert stage.players == {"dpo@4", "sft", "weak", "strong"} and stage.named_stages == {"dpo", "sft"}
    assert stage.draws == {"bon": 3, "two": 3, "explanations": 3} and stage.asks_judge
    assert "judge" in needed(found, "weak_to_strong") and not found.stages["plain"].named_stages
    assert not found.stages["plain"].asks_judge and found.stages["plain"].draws == {}
    run = Run(found)
    strong, weak = (stage.speaker(run, name) for name in ("strong", "weak@2"))
    assert (strong.model, weak.model, weak.best_of) == ("lab-base", "lab-small", 2)


def test_replies_are_argued_about_and_weighed_by_rewards(tmp_path, shared_data):
    path = str(shared_data / "binary_tasks/hh_harmless_test.jsonl")
    methods = {"none": {"members": 1}, "debate": {"context": "debate", "members": 1}}
    sizes = {"supervisor": 6, "student": 6, "test": 6, "train": {**TRAIN, "max_length": 256}}
    table = {"task": "pairs", "path": path, "readout": "reward", "methods": methods, **sizes}
    run = Run(config(tmp_path, main=table), say=lambda _: None)
    run_stages(run)
    (log,) = (tmp_path / "r/transfer/games").glob("*.jsonl")
    game = read(log, JudgedDebate)[0].transcript
    assert game.protocol.name == "debate" and set(game.question.answers) != {"correct", "incorrect"}
    index = read_json(tmp_path / "r/main/trainings/index.json")
    row = rows_of(tmp_path, index["seed0/debate/supervisor0"], RewardRow)[0]
    shown = "\n".join(message["content"] for message in row.prompt)
    spoken = {leg.transcript.question.id: leg.transcript.speeches for leg in read(log, JudgedDebate)}[row.id]
    assert all(speech.text.split()[0] in shown for speech in spoken) and len({row.chosen, row.rejected}) == 2
    alone = rows_of(tmp_path, index["seed0/none/supervisor0"], RewardRow)[0]
    assert len(str(alone.prompt)) < len(str(row.prompt)) and (alone.chosen, alone.rejected) == (
        row.chosen,
        row.rejected,
    )


def test_chess_moves_are_questions_without_a_passage(tmp_path):
    pytest.importorskip("chess")
    found = config(tmp_path, main={"task": "chess-mate-moves", "context": ["none", "debate"], "ensemble": 1})
    games = found.stages["main"].games(Run(found))
    assert len(games) == 36 and {game.question.source for game in games} == {"chess/mate"}
    assert games[0].protocol.name == "debate" and not games[0].protocol.needs_passage
    with pytest.raises(UserError, match="puzzle file not found"):
        wrong = config(tmp_path, main={"task": "chess-best-moves", "path": str(tmp_path / "none.csv")})
        wrong.stages["main"].games(Run(wrong))


@pytest.mark.slow
def test_chess_moves_are_debated_and_learnt_by_the_methods_of_other_questions(tmp_path):
    """Losses, a chain through a third model, writing first and debates; lab models know no chess, so only the steps."""
    pytest.importorskip("chess")
    methods = {
        "confidence": {"members": 1, "loss": {"kind": "confidence"}},
        "chain": {"members": 1, "transfer": {"through": ["lab-small"]}},
        "written-first": {"members": 1, "transfer": {"generative": True}},
        "debate": {"context": "debate", "members": 1},
    }
    sizes = {"supervisor": 6, "student": 24, "test": 6}
    run = Run(config(tmp_path, main={"task": "chess-mate-moves", "methods": methods, **sizes}), say=lambda _: None)
    metrics = run_stages(run)
    assert [row["name"] for row in metrics["main"]["methods"]] == list(methods)
    (log,) = (tmp_path / "r/transfer/games").glob("*.jsonl")
    games = [leg.transcript for leg in read(log, JudgedDebate)]
    assert {game.question.source for game in games} == {"chess/mate"} and len(games) == 36
    assert games[0].protocol.name == "debate" and games[0].question.passage is None
    assert set(games[0].players) == {"A", "B"} and all(game.speeches for game in games)


def test_a_table_or_one_of_its_columns_can_be_asked_for(tmp_path):
    columns = {"one": {"table": "both"}, "two": {"table": "both"}}
    found = config(tmp_path, **columns)
    assert needed(found, "weak_to_strong", "both") == {"one", "two"}
    assert needed(found, "weak_to_strong", "two") == {"two"}
    with pytest.raises(UserError, match="no table 'oen'; did you mean 'one'"):
        needed(found, "weak_to_strong", "oen")


def rows_of(folder, training, kind):
    """Rows of a training of a run."""
    return read(read_json(folder / "r/transfer" / training / "job.json")["job"]["rows"], kind)


def test_how_a_binary_task_was_read_is_accounted(tmp_path, shared_data):
    path = str(shared_data / "binary_tasks/sciq_test.jsonl")
    said = []
    run = Run(
        config(tmp_path, main={"task": "sciq", "path": path, "methods": {"none": {"members": 1}}}), say=said.append
    )
    run_stages(run)
    source = read_json(tmp_path / "r/main/splits.json")["source"]
    assert source["read"] >= 36 and set(source) == {"read", "repeated", "unused", "dropped"}


@pytest.mark.parametrize(
    ("transfer", "times"), [({}, 1), ({"generative": True}, 2), ({"rounds": 2, "refine": "labels"}, 4)]
)
def test_trainings_that_a_transfer_adds_are_estimated(tmp_path, transfer, times):
    context = {"context": "debate"} if "rounds" in transfer else {}
    plain, more = (
        config(tmp_path, main={"methods": {"m": {"members": 1, "transfer": one, **context}}}) for one in ({}, transfer)
    )
    counts = [_items(found.stages["main"], Run(found)).count for found in (plain, more)]
    rounds = transfer.get("rounds", 1)
    assert counts[1] - counts[0] == 12 * (times - 1) + 12 * (rounds - 1)


def test_games_are_planned_by_context_and_draw(tmp_path):
    table = {"context": ["debate", "consultancy"], "ensemble": 2, "task": "claims"}
    found = config(tmp_path, main=table)
    run = Run(found)
    games = found.stages["main"].games(run)
    assert len(games) == 36 * 2 * 2 and len({game.id for game in games}) == len(games)
    names = {game.protocol.name for game in games}
    assert names == {"claim", "claim_single"} and {game.protocol.turns for game in games} == {3, 1}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"context": ["debat"]}, "no context 'debat'; did you mean 'debate'"),
        ({"naive": "debate"}, "naive is none or a context of kind recorded"),
        ({"readout": "probe", "lora": {"r": 4}}, "readout: probe trains a head on frozen weights"),
        ({"contexts": {"x": {"kind": "recorded"}}}, "belong together"),
        ({"methods": {"m": {"transfer": {"rounds": 2}}}}, "need a context"),
        (
            {"contexts": {"x": {"kind": "recorded", "path": "p"}}, "methods": {"m": {"context": "x", "members": 2}}},
            "holds labels and no games",
        ),
    ],
)
def test_mistakes_in_a_table_end_in_one_line(tmp_path, table, said):
    with pytest.raises(UserError, match=said):
        config(tmp_path, main=table)


def test_written_answers_go_their_own_way(tmp_path, monkeypatch):
    pytest.importorskip("chess")
    sizes = {"supervisor": 3, "student": 4, "test": 5}
    found = config(
        tmp_path, chess={"task": "chess-mate", "methods": {"one": {"members": 1}, "two": {"members": 2}}, **sizes}
    )
    asked = []

    def run_generative(task, settings, open_engine, folder, methods):
        asked.append((task, folder, methods))
        one = {name: [[1.0, 0.0, 1.0, 1.0, 0.0]] for name in ("weak", "strong", "ceiling", "untrained")}
        both = {f"{name}/{who}": [[1.0] * 5] for name in methods for who in ("supervisor", "student")}
        return Hits(
            test_items=tuple("abcde"), test_clusters=tuple("abcde"), test_truth=(1,) * 5, label_items=tuple("wxyz"),
            label_clusters=tuple("wxyz"), label_truth=(1,) * 4, test={**one, **both},
            labels={name: [[1.0, 1.0, 0.0, 1.0]] for name in methods},
        )  # fmt: skip

    monkeypatch.setattr("debate_rl.weak_to_strong.tasks.generative.run_generative", run_generative)
    run = Run(found, say=lambda _: None)
    metrics = run_stages(run)
    ((task, folder, methods),) = asked
    assert [len(task.parts[part]) for part in ("supervisor", "student", "test")] == [3, 4, 5]
    assert folder == tmp_path / "r/transfer" and methods == {"one": 1, "two": 2}
    assert [row["student"]["value"] for row in metrics["chess"]["methods"]] == [1.0, 1.0]
    assert (tmp_path / "r/chess/trainings/hits.json").is_file()


def test_models_that_cannot_write_moves_are_an_error(tmp_path):
    pytest.importorskip("chess")
    found = config(tmp_path, chess={"task": "chess-mate", "context": ["none"], "ensemble": 1})
    with pytest.raises(UserError, match="no legal answer to any of 12 items"):
        run_stages(Run(found, say=lambda _: None))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"context": ["none", "debate"]}, "members alone"),
        ({"context": ["none"], "readout": "head"}, "leave out readout"),
    ],
)
def test_methods_that_do_not_go_with_written_answers(tmp_path, table, said):
    with pytest.raises(UserError, match=said):
        config(tmp_path, chess={"task": "chess-best", **table})
