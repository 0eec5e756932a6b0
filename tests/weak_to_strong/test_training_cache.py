"""With real models, small ones."""

import numpy as np
import pytest

from debate_rl.engines.local.engine import TransformersEngine
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.protocol import load_protocol
from debate_rl.players.debater import Debater
from debate_rl.records import read_json
from debate_rl.trainers.common import job as jobs
from debate_rl.trainers.common.settings import Lora, Weights
from debate_rl.weak_to_strong.facilitate import Facilitation, facilitate
from debate_rl.weak_to_strong.methods import Method
from debate_rl.weak_to_strong.shared_forward import one_base, predict_together
from debate_rl.weak_to_strong.tasks.items import Sample, items_of, plain_samples
from debate_rl.weak_to_strong.tasks.lengths import check_readable
from debate_rl.weak_to_strong.training_cache import Settings, TrainingData, Trainings, score
from tests.tiny import tiny_adapter, tiny_model

WORDS = ["shed", "barn", "where", "was", "the", "pipe", *(f"w{i}" for i in range(60))]
TRAIN = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 1e-3, "disable_tqdm": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), words=WORDS, positions=256)


@pytest.fixture
def items(question):
    fields = [{"id": f"q{i}", "group": f"g{i}", "correct": i % 2, "passage": f"w{i} w{i + 9}"} for i in range(24)]
    return items_of([question.model_copy(update=one) for one in fields])


def read(items):
    return plain_samples(items, load_protocol("blind", prompts="lab"), True)


def trainings(model, folder, **changes):
    settings = {"weak": model, "strong": model, "train": TRAIN, **changes}
    return Trainings(Settings(**settings), TransformersEngine, folder)


def test_scores_are_probabilities_of_the_two_answers(items, model):
    some = list(read(items[:3]).values())
    found = score(some, Weights(model=model), TransformersEngine())
    turned = [one.model_copy(update={"candidates": one.candidates[::-1]}) for one in some]
    other = score(turned, Weights(model=model), TransformersEngine())
    assert np.allclose(found + other, 1) and ((found > 0) & (found < 1)).all()


KINDS = [("answers", None), ("answers", Lora(r=4)), ("head", None), ("head", Lora(r=4)), ("probe", None)]


@pytest.mark.parametrize(("readout", "lora"), KINDS)
def test_every_readout_trains_predicts_and_is_kept_by_content(items, model, tmp_path, readout, lora, monkeypatch):
    samples, truth = read(items), [float(item.label) for item in items]
    one = trainings(model, tmp_path, readout=readout, lora=lora)
    trained = one.fit("a", Weights(model=model), TrainingData(items, samples, truth), seed=0)
    p = one.predict(trained, list(samples.values()))
    assert p.shape == (24,) and ((p > 0) & (p < 1)).all()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(jobs, "_train", None)  # nothing may be trained any more
    again = trainings(model, tmp_path, readout=readout, lora=lora)
    assert again.fit("b", Weights(model=model), TrainingData(items, samples, truth), seed=0) == trained
    assert again.predict(trained, list(samples.values())).tolist() == p.tolist()
    assert again.done == {"b": one.done["a"]}
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    for targets, seed in ((truth, 1), ([1 - t for t in truth], 0)):
        with pytest.raises(TypeError):  # _train is gone: another seed or other labels are another training
            again.fit("c", Weights(model=model), TrainingData(items, samples, targets), seed=seed)


def test_other_engines_let_go_of_their_models_before_a_training(items, model, tmp_path):
    rested = []
    settings = Settings(weak=model, strong=model, train=TRAIN)
    one = Trainings(settings, TransformersEngine, tmp_path, lambda: rested.append(any(tmp_path.rglob("result.json"))))
    samples, truth = read(items), [float(item.label) for item in items]
    one.fit("a", Weights(model=model), TrainingData(items, samples, truth), seed=0)
    assert rested == [False]


def test_a_training_cut_off_goes_on_and_what_was_predicted_stays(items, model, tmp_path, monkeypatch):
    """A killed run must not answer with an untrained head's labels, as one published implementation did."""
    samples, truth = read(items), [float(item.label) for item in items]
    one = trainings(model, tmp_path, readout="head", train={**TRAIN, "save_strategy": "steps", "save_steps": 2})
    first = one.fit("a", Weights(model=model), TrainingData(items, samples, truth), seed=0)
    p = one.predict(first, list(samples.values()))
    kept = {path: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            one.fit("b", Weights(model=model), TrainingData(items, samples, truth), seed=1)
    assert not (tmp_path / one.done["b"] / "model").exists() and (tmp_path / one.done["b"] / "checkpoints").is_dir()
    second = one.fit("b", Weights(model=model), TrainingData(items, samples, truth), seed=1)
    other = trainings(model, tmp_path / "whole", readout="head", train=one.settings.train)
    whole = other.fit("b", Weights(model=model), TrainingData(items, samples, truth), seed=1)
    found, wanted = one.predict(second, list(samples.values())), other.predict(whole, list(samples.values()))
    assert np.allclose(found, wanted, atol=1e-6) and not np.allclose(found, p, atol=1e-3)
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_language_modelling_comes_first_and_preferences_last(items, model, tmp_path):
    samples = read(items)
    one = trainings(model, tmp_path, lora=Lora(r=4))
    reader = one.read_texts("r", Weights(model=model), list(samples.values()), 0, {})
    student = one.fit("s", reader, TrainingData(items, samples, [0.9] * 24), seed=0)
    assert reader.adapter != student.adapter and student.model == model
    assert (one.predict(student, list(samples.values())) != one.predict(reader, list(samples.values()))).all()
    with pytest.raises(UserError, match=r"transfer\.generative"):
        trainings(model, tmp_path, readout="head", lora=Lora()).read_texts("r", reader, [], 0, {})


def texts(count, positions=120):
    drawn = np.random.default_rng(0)
    said = [" ".join(f"w{n}" for n in drawn.integers(60, size=drawn.integers(3, positions))) for _ in range(count)]
    return [Sample(prompt=[{"role": "user", "content": text}], candidates=("shed", "barn")) for text in said]


@pytest.mark.parametrize("candidates", [("shed", "barn"), ("shed", "the barn")])
@pytest.mark.parametrize("layers", ["all-linear", r".*layers\.1\..*_proj"])
def test_adapters_of_one_base_predict_together_what_each_predicts_alone(model, tmp_path, layers, candidates):
    members = [Weights(model=model, adapter=adapter(model, tmp_path / str(n), n, layers)) for n in range(3)]
    assert one_base(members, "answers") and not one_base([Weights(model=model)], "answers")
    samples = [one.model_copy(update={"candidates": candidates}) for one in texts(30)]
    found = predict_together(samples, members, "answers")
    alone = [score(samples, member, TransformersEngine()) for member in members]
    assert np.allclose(found, alone, atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def adapter(model, folder, seed, layers):
    if layers == "all-linear":
        return tiny_adapter(model, folder, seed)
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    network = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, target_modules=layers))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.3)
    network.save_pretrained(folder)
    return str(folder)


def test_probes_share_the_pass_over_their_base(items, model, tmp_path, monkeypatch):
    from debate_rl.weak_to_strong import training_cache as module

    samples = read(items)
    one = trainings(model, tmp_path, readout="probe")
    labels = [[float(item.label) for item in items], [0.9] * 24, [0.2] * 24]
    members = [
        one.fit(str(n), Weights(model=model), TrainingData(items, samples, p), seed=n) for n, p in enumerate(labels)
    ]
    alone = [one._predict_alone(member, list(samples.values())) for member in members]
    monkeypatch.setattr(module, "predict", None)  # the ordinary path is closed
    found = one.predict_all(members, [list(samples.values())] * 3)
    assert np.allclose(found, alone, atol=1e-6) and np.abs(alone[1] - alone[2]).max() > 1e-3


def test_texts_that_a_model_can_not_read_whole_are_refused(items, model, tmp_path):
    samples = dict(enumerate(texts(4, 30)))
    check_readable(samples.values(), model, "the weak model")
    long = texts(1)[0].model_copy(update={"prompt": [{"role": "user", "content": "w1 " * 300}]})
    with pytest.raises(UserError, match="1 of 5 texts of the weak model are longer than the 256 tokens"):
        check_readable([*samples.values(), long], model, "the weak model")
    with pytest.raises(UserError, match="2 labels for 24 items"):
        trainings(model, tmp_path).fit("a", Weights(model=model), TrainingData(items, read(items), [1.0, 0.0]), seed=0)
    cut = trainings(model, tmp_path, readout="head", train={**TRAIN, "max_length": 64})
    cut.check_readable({"long": long}, model, "the weak model")  # is cut, as the config says


def test_facilitation_gives_a_model_that_labels_with_help(question, model, tmp_path):
    asked = [
        question.model_copy(update={"id": f"q{i}", "text": f"where w{i} ?", "group": f"g{i}", "correct": i % 2})
        for i in range(16)
    ]
    engine = ScriptedEngine(write=lambda request: "the pipe was w1")
    helped = facilitate(
        Debater(name="dpo", model="strong"), model, asked, load_protocol("debate", prompts="lab"), engine=engine,
        how=Facilitation(
            method=Method(context="debate", members=2), settings=Settings(weak=model, strong=model, train=TRAIN)
        ),
        folder=tmp_path,
    )  # fmt: skip
    assert len(helped.members) == 2 and len(engine.requests) == 16 * 2 * 2
    unknown = [one.model_copy(update={"id": f"u{one.id}", "correct": None}) for one in asked]
    p = helped.label(unknown)
    assert p.shape == (16,) and ((p > 0) & (p < 1)).all()
    assert p.tolist() == np.mean(helped.each(items_of(asked)), axis=0).tolist()
    assert len(list((tmp_path / "trainings").glob("*/result.json"))) == 2
    assert read_json(next((tmp_path / "trainings").glob("*/job.json")))["job"]["kind"] == "judge"
    with pytest.raises(UserError, match="16 of 16 items have no correct answer"):
        facilitate(Debater(name="dpo", model="strong"), model, unknown, engine=engine, folder=tmp_path)
