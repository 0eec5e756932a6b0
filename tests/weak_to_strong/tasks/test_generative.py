"""Generative tasks: the supervisor's move is the label, exact match counts, illegal moves are no labels."""

import pytest

from debate_rl.data.tasks.chess_puzzles import Puzzle
from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.request import Completion
from debate_rl.errors import UserError
from debate_rl.records import read
from debate_rl.trainers.common.rows import SftRow
from debate_rl.trainers.common.settings import Result
from debate_rl.weak_to_strong import training_cache
from debate_rl.weak_to_strong.results.results import results
from debate_rl.weak_to_strong.tasks import generative
from debate_rl.weak_to_strong.tasks.generative import generative_task, of_puzzle, run_generative
from debate_rl.weak_to_strong.training_cache import Settings

pytest.importorskip("chess", reason="needs the extra `chess`")

BACK = Puzzle(id="p", fen="6k1/5ppp/8/8/8/8/8/R5K1 w - - 0 1", kind="mate", moves=("a1a8",), group="g")


@pytest.fixture(scope="module")
def task():
    return generative_task("chess-mate", 6, 8, 10, seed=3)


class World:
    """Models by name: how many of the texts they were asked they solve, and what they write else."""

    def __init__(self, task, monkeypatch):
        self.items = {item.text: (place, item) for part in task.parts.values() for place, item in enumerate(part)}
        self.jobs, self.asked = [], 0
        monkeypatch.setattr(training_cache, "launch", self.launch)
        monkeypatch.setattr(
            training_cache, "job_name", lambda job: f"{job.model}-{len(read(job.rows, SftRow))}-{job.seed}"
        )

    def launch(self, job, *options, quiet=False):
        self.jobs.append(job)
        return Result(kind="sft", path=job.out, base="b", rows=1, steps=1, loss=0.0, seconds=0.0)

    def revision(self, model, adapter):
        return model

    def generate(self, requests):
        self.asked += len(requests)
        return [
            Completion(text=self.say(r), prompt_tokens=1, new_tokens=1, finish="stop", revision="") for r in requests
        ]

    def say(self, request):
        place, item = self.items[request.messages[0].content]
        name = request.model.rsplit("/", 1)[-1]
        if name.startswith("strong-6") or name == "strong" or (name.startswith("weak") and place % 2):
            return "pass" if place % 4 == 1 else "Ka1 a1a1"
        return f"I play {item.answer}!"


def settings(**options):
    return Settings(weak="weak", strong="strong", seeds=2, **options)


def test_the_supervisor_s_moves_are_the_student_s_labels(task, tmp_path, monkeypatch):
    world = World(task, monkeypatch)
    found = run_generative(task, settings(), lambda: world, tmp_path)
    # weak, strong on D1, student of the half that is legal, ceiling
    assert [(job.model, len(read(job.rows, SftRow)), job.seed) for job in world.jobs[:4]] == [
        ("weak", 6, 0), ("strong", 6, 0), ("strong", 4, 0), ("strong", 8, 0),
    ]  # fmt: skip
    taught = {row.question: row.completion for row in read(world.jobs[2].rows, SftRow)}
    assert taught == {item.id: item.answer for item in task.parts["student"][::2]}
    assert found.label_counts["single"] == ({"items": 8, "illegal": 4, "kept": 4},) * 2
    assert found.right("weak").mean() == 0.5 and found.right("ceiling").mean() == 1.0
    assert found.labels_right("single").tolist() == [[1, 0] * 4] * 2
    said = results(found)
    assert said.methods[0].student.value == 1.0 and said.scores["weak"].auroc is None


def test_what_is_done_is_not_done_again(task, tmp_path, monkeypatch):
    world = World(task, monkeypatch)
    first = run_generative(task, settings(), lambda: world, tmp_path)
    asked = world.asked
    assert run_generative(task, settings(), lambda: world, tmp_path, {"single": 1}) == first and world.asked == asked


def test_members_vote_and_illegal_texts_have_no_vote():
    item = of_puzzle(BACK)
    assert item.label(["Ra7", "a1a8", "nothing", "Ra8#"]) == "a1a8"
    assert item.label(["Ra7", "Ra8"]) == "a1a7"
    assert item.label(["e4", ""]) is None
    assert item.answer == "Ra8" and item.show("a1a7") == "Ra7"


def test_parts_share_no_game(task):
    clusters = [{item.cluster for item in part} for part in task.parts.values()]
    assert sum(map(len, clusters)) == len(set().union(*clusters)) == 24
    assert [len(part) for part in task.parts.values()] == [6, 8, 10]


def test_mistakes_are_said_in_a_line(task, tmp_path, monkeypatch):
    world = World(task, monkeypatch)
    with pytest.raises(UserError, match="9 supervisors; give 1 to 8"):
        run_generative(task, settings(), lambda: world, tmp_path, {"many": 9})
    world.say = lambda request: "pass"
    with pytest.raises(UserError, match="wrote no legal answer to any of 8 items"):
        run_generative(task, settings(), lambda: world, tmp_path / "mute")
    puzzles = tmp_path / "p.csv"
    puzzles.write_text(
        "PuzzleId,FEN,Moves,Rating,RatingDeviation,Popularity,NbPlays,Themes,GameUrl,OpeningTags\n"
        "abc,6k1/5ppp/8/8/8/8/r7/R5K1 b - - 0 1,a2f2 a1a8,812,75,90,9,mateIn1,https://lichess.org/xyz#4,\n"
    )
    with pytest.raises(UserError, match="1 puzzles of kind 'mate', and 6 are wanted"):
        generative_task("chess-mate", 2, 2, 2, path=puzzles)


def test_real_trainings_on_a_tiny_model(task, tmp_path):
    """Two models that learn a few mates by heart: every step is real, only the scale is not."""
    from debate_rl.data.tiny import build

    text = tmp_path / "text.txt"
    text.write_text("\n".join(item.text for part in task.parts.values() for item in part))
    models = [str(build(tmp_path / name, text, hidden=size, seed=size)) for name, size in (("w", 48), ("s", 64))]
    train = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 1e-2}
    same = task.parts["student"]
    heart = generative.GenerativeTask("chess-mate", dict.fromkeys(task.parts, same), 8)
    found = run_generative(
        heart, Settings(weak=models[0], strong=models[1], seeds=1, train=train),
        lambda: TransformersEngine(device="cpu"), tmp_path / "out",
    )  # fmt: skip
    assert found.right("weak").mean() > 0.5 and found.right("single/student").mean() > 0.5
    assert found.right("ceiling").mean() >= 0.75 and found.right("untrained").mean() == 0.0
