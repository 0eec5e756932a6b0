import json

import numpy as np
import pytest

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.scripted import ScriptedEngine
from debate_rl.errors import UserError
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges import probe as probes
from debate_rl.judges.judge import judge_transcripts, mean_probability
from debate_rl.judges.presentation import prompt, views
from debate_rl.judges.probe import fit_probe, hidden_states, load_probe, save_probe
from tests.judges.games import asked, game
from tests.tiny import tiny_adapter, tiny_model

WORDS = ["question", ":", "answers", ".", "for", "where", "is", "?", "w1", "w2", "or", "answer", "truth", "lie", "it"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("probe") / "model", words=WORDS)


def told(count):
    """Games in which the side that is right says so: what a probe can find, whichever side and order."""
    games = []
    for number in range(count):
        correct = number % 2
        played = game(asked(number, correct=correct, text="where is it ?"))
        said = [("truth" if "AB".index(s.side) == correct else "lie", s) for s in played.speeches]
        games.append(played.model_copy(update={"speeches": tuple(s.model_copy(update={"text": t}) for t, s in said)}))
    return [
        g.model_copy(update={"question": g.question.model_copy(update={"passage": f"p{n}"})})
        for n, g in enumerate(games)
    ]


def prompts_of(games):
    return [prompt(one, view) for one in games for view in views(one)]


def test_a_probe_finds_what_the_states_hold_and_is_the_same_in_both_orders(model, tmp_path):
    fitted = fit_probe(told(60), model)
    assert fitted.held_out.accuracy.value == 1.0 and fitted.probe.stories == 45 and fitted.probe.n == 90
    save_probe(tmp_path / "probe.json", fitted.probe)
    probe = load_probe(tmp_path / "probe.json")
    assert probe == fitted.probe
    found = judge_transcripts(told(4), probe, ScriptedEngine())
    assert [one.p[0] > 0.5 for one in found] == [True, False, True, False]
    assert all((mean_probability(one, (1, 0)) > 0.5) == (one.p[0] > 0.5) for one in found)
    assert found[0].judge == "probe" and found[0].revision == probe.revision


def test_states_are_those_of_a_plain_forward(model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = prompts_of([*told(2), game(asked(7, text="where is " * 20))])
    network, tokenizer = AutoModelForCausalLM.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    for layer, last in ((0, 1), (1, 3), (-1, 1000)):
        found = hidden_states(prompts, model, None, layer, last)
        for one, state in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt_ids(tokenizer, one)])
            with torch.inference_mode():
                states = network(ids, output_hidden_states=True).hidden_states[layer][0]
            assert state == pytest.approx(states[-last:].mean(dim=0).numpy(), abs=1e-5)


def test_batches_do_not_change_states(model, monkeypatch):
    prompts = prompts_of(told(3))
    together = hidden_states(prompts, model, None, -1, 2)
    monkeypatch.setattr(probes, "BATCH_TOKENS", 1)
    for one, other in zip(together, hidden_states(prompts, model, None, -1, 2), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_an_adapter_changes_the_states(model, tmp_path):
    adapter = tiny_adapter(model, tmp_path / "adapter")
    prompts = prompts_of(told(1))
    plain, adapted = (hidden_states(prompts, model, one, -1, 1)[0] for one in (None, adapter))
    assert not np.allclose(plain, adapted)


def test_bad_data_is_named(model):
    games = told(8)
    with pytest.raises(UserError, match="one story only"):
        fit_probe(
            [g.model_copy(update={"question": g.question.model_copy(update={"group": "s"})}) for g in games], model
        )
    with pytest.raises(UserError, match="the correct answer is always the same one"):
        fit_probe(games[::2], model)
    with pytest.raises(UserError, match="is there 2 times"):
        fit_probe([*games, games[0]], model)
    with pytest.raises(UserError, match=r"no layer 3; choose 0 \(the embedding\) to 2"):
        fit_probe(games, model, layer=3)


def test_a_prompt_too_long_is_a_failure_when_judging_and_an_error_when_fitting(model):
    probe = fit_probe(told(8), model).probe
    long = game(asked(9, text="where " * 600))
    failed, fine = judge_transcripts([long, told(1)[0]], probe, ScriptedEngine())
    assert isinstance(failed, Failure) and failed.kind == "context" and isinstance(fine, Verdict)
    with pytest.raises(UserError, match="leave out the longest games"):
        fit_probe([*told(8), long], model)


def test_other_weights_and_other_files_are_refused(model, tmp_path):
    probe = fit_probe(told(8), model).probe
    other = tiny_model(tmp_path / "other", seed=1, words=WORDS)
    with pytest.raises(UserError, match="fitted on other weights"):
        judge_transcripts(told(1), probe.model_copy(update={"model": other}), ScriptedEngine())
    (tmp_path / "p.json").write_text(json.dumps({"model": "m"}))
    with pytest.raises(UserError, match=r"p.json: not a probe \(weights"):
        load_probe(tmp_path / "p.json")
