import pytest
import torch

from debate_rl.data.lab import build as builder
from debate_rl.data.lab.build import SHAPES, Shape, Stage, build, loss_of, new_model, rate
from debate_rl.data.lab.documents import Batch
from debate_rl.data.lab.muon import Muon, orthogonal
from debate_rl.errors import UserError

STAGES = (
    Stage(3000, {"repeats": 4}, {"whereabouts": 1.0}),
    Stage(6000, {"broad": 2, "open_book": 2, "notes": 2, "facts": 1}, {"order": 0.5, "preference": 0.5}),
)
TINY = Shape(hidden=16, layers=1, heads=2, inner=32, stages=STAGES, speed=1000)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(builder.SHAPES, "tiny", TINY)
    monkeypatch.setattr(builder, "EVERY", 0.0)
    monkeypatch.setattr(builder.torch, "set_num_threads", lambda n: None)


class Killed(BaseException):
    """Ends a build at once, as a kill does."""


def kill(monkeypatch, step):
    """Let builds die at a step; gives what undoes it."""
    advance = builder.Run.advance

    def dies(run, progress):
        if run.step == step:
            raise Killed
        advance(run, progress)

    monkeypatch.setattr(builder.Run, "advance", dies)
    return lambda: monkeypatch.setattr(builder.Run, "advance", advance)


def weights(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder)).state_dict()


def test_killed_run_ends_like_one_that_was_not(tmp_path, monkeypatch):
    whole = build("tiny", tmp_path / "whole")

    revive = kill(monkeypatch, 5)
    with pytest.raises(Killed):
        build("tiny", tmp_path / "killed")
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / ".killed.build" / "checkpoint.pt").exists()
    revive()
    resumed = build("tiny", tmp_path / "killed")
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert not (tmp_path / ".killed.build").exists()


def test_a_kill_while_files_are_moved_is_mended(tmp_path, monkeypatch):
    def dies(path):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(builder.shutil, "rmtree", dies)
        with pytest.raises(Killed):
            build("tiny", tmp_path / "model")
    (tmp_path / "model" / builder.RECORD).unlink()  # as if the kill had come before the last file
    (tmp_path / "model" / "config.json").unlink()
    folder = build("tiny", tmp_path / "model")
    assert weights(folder) and (folder / builder.RECORD).exists()


def test_nothing_finished_is_overwritten(tmp_path, monkeypatch):
    folder = build("tiny", tmp_path / "model")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError, match="holds a finished model"):
        build("tiny", folder, seed=1)
    assert before == {file: file.read_bytes() for file in folder.iterdir()}
    other = tmp_path / "notes"
    other.mkdir()
    (other / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        build("tiny", other)


def test_a_checkpoint_of_another_build_is_refused(tmp_path, monkeypatch):
    revive = kill(monkeypatch, 3)
    with pytest.raises(Killed):
        build("tiny", tmp_path / "model")
    revive()
    for options, key in (({"seed": 1}, "seed"), ({"tokens": 9000}, "budget")):
        with pytest.raises(UserError, match=f"another {key} "):
            build("tiny", tmp_path / "model", **options)


def test_stages_take_turns_and_keep_their_shares(tmp_path, monkeypatch):
    seen = []
    drawn = builder.batch

    def noted(kind, rows, seed, encoder, families, claimed):
        seen.append((kind, tuple(families)))
        return drawn(kind, rows, seed, encoder, families, claimed)

    monkeypatch.setattr(builder, "batch", noted)
    build("tiny", tmp_path / "model", tokens=3000)
    first = [kind for kind, families in seen if families == ("whereabouts",)]
    assert set(first) == {"repeats"} and seen[: len(first)] == [("repeats", ("whereabouts",))] * len(first)
    later = {kind for kind, families in seen if families == ("order", "preference")}
    assert later == {"broad", "open_book", "notes", "facts"}


def test_stages_of_the_models_are_in_order():
    for shape in (SHAPES["lab-base"], SHAPES["lab-small"]):
        ends = [stage.until for stage in shape.stages]
        assert ends == sorted(set(ends)) and shape.tokens == ends[-1]


def test_finished_folder_loads_without_our_code(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(build("tiny", tmp_path / "model"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model).__module__.startswith("transformers.")
    assert model.dtype == torch.float32 and model.config.tie_word_embeddings
    assert model.config.max_position_embeddings >= 512 and model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == 0


def test_training_lowers_the_loss_and_seeds_differ(tmp_path):
    run = builder.Run("tiny", tmp_path / "x", seed=0, device="cpu", compiled=False)
    run.advance(0.1)
    before = run.losses["repeats"]
    for _ in range(30):
        run.advance(0.1)
    assert run.losses["repeats"] < before - 0.3
    one, other = new_model("tiny", 0).state_dict(), new_model("tiny", 1).state_dict()
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_loss_counts_learnt_tokens_only():
    model = new_model("tiny", 0)
    ids = torch.randint(10, 90, (3, 12))
    learnt = torch.zeros(3, 12, dtype=torch.bool)
    learnt[1, 4] = learnt[2, 7] = True
    logits = model(input_ids=ids).logits.log_softmax(-1)
    expected = -(logits[1, 3, ids[1, 4]] + logits[2, 6, ids[2, 7]]) / 2
    assert torch.allclose(loss_of(model.model, model.lm_head, Batch(ids, learnt)), expected, atol=1e-6)
    pad = torch.nn.functional.pad
    padded = Batch(pad(ids, (0, 4)), pad(learnt, (0, 4)))
    assert torch.allclose(loss_of(model.model, model.lm_head, padded), expected, atol=1e-6)


def test_learning_rate_rises_stays_and_falls():
    assert rate(0.0, 0, 0.35) < 0.1 and rate(0.3, 500, 0.35) == 1.0
    assert 0 < rate(0.99, 5000, 0.35) < 0.05 and rate(1.0, 5000, 0.35) == 0.0
    assert rate(0.7, 5000, 0.35) < rate(0.7, 5000, 0.2) == 1.0


def test_orthogonal_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((3, 24, 24), (2, 48, 16), (2, 16, 48)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.median() > 0.65 and values.max() < 1.4


def test_muon_solves_least_squares():
    torch.manual_seed(0)
    weight, target = torch.nn.Parameter(torch.zeros(8, 8)), torch.randn(8, 8)
    optimizer = Muon([weight], lr=0.1)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 400)
        ((weight - target) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert ((weight - target) ** 2).mean() < 0.05


def test_unknown_model_says_the_choices(tmp_path):
    with pytest.raises(UserError, match="did you mean 'lab-base'"):
        build("lab-bass", tmp_path / "x")
