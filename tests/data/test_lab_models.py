from pathlib import Path
from random import Random

import pytest
import torch

from debate_rl.data.lab import score as scoring
from debate_rl.data.lab.annotators import HUMAN, speeches
from debate_rl.data.lab.tokenizer import lab_tokenizer
from debate_rl.data.lab.world import questions
from debate_rl.errors import UserError

MODELS = Path(scoring.__file__).parents[1] / "models"


@pytest.fixture(scope="module", params=["lab-base", "lab-small"])
def model(request):
    return request.param, *scoring.load(MODELS / request.param)


@pytest.fixture(scope="module")
def scores():
    return {name: scoring.score(MODELS / name, n=150) for name in ("lab-base", "lab-small")}


def test_shipped_tokenizer_is_the_one_the_code_makes(model):
    _, _, tokenizer = model
    made = lab_tokenizer()
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer.chat_template == made.chat_template


def test_models_fit_in_the_repository():
    sizes = {name: sum(f.stat().st_size for f in (MODELS / name).iterdir()) for name in ("lab-base", "lab-small")}
    assert max(sizes.values()) < 5e6 and sum(sizes.values()) < 10e6


def test_strong_reads_and_weak_reads_less(scores):
    assert scores["lab-base"]["open_book"] >= 0.75
    assert scores["lab-small"]["open_book"] <= 0.75
    assert scores["lab-small"]["open_book"] < scores["lab-base"]["open_book"] - 0.1


def test_nobody_knows_without_reading(scores):
    for name in scores:
        assert 0.38 < scores[name]["blind"] < 0.62


def test_base_is_a_middling_debater(scores):
    base = scores["lab-base"]
    assert base["quoted"] > 0.9 and 0.3 < base["valid"] < 0.7 and base["decisive"] < 0.6


def test_probabilities_ignore_padding_and_order_of_rows(model):
    _, net, tokenizer = model
    made = questions(n=6, split="test", per_story=1)
    prompts = scoring.judge_prompts(made, read=True)
    together = scoring.probabilities(net, tokenizer, prompts, made)
    alone = torch.cat([scoring.probabilities(net, tokenizer, [p], [q]) for p, q in zip(prompts, made, strict=True)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_quoting_counts_what_the_annotators_meant():
    made = questions(n=60, per_story=1)
    sides = [0] * 60
    texts = [speeches(question, {"decisive": 1.0}, Random(0))[0] for question in made]
    assert scoring.quoting(texts, made, sides)["decisive"] == 1.0
    assert scoring.quoting(texts, made, [1] * 60)["decisive"] == 0.0
    weak = scoring.quoting([speeches(q, {"weak": 1.0}, Random(0))[0] for q in made], made, sides)
    assert weak["valid"] == 1.0 and weak["decisive"] == 0.0
    wrong = scoring.quoting([speeches(q, {"misquote": 1.0}, Random(0))[0] for q in made], made, sides)
    assert wrong["quoted"] == 1.0 and wrong["valid"] == 0.0
    assert scoring.quoting(["no quote"] * 60, made, sides)["quoted"] == 0.0
    assert sum(HUMAN.values()) == pytest.approx(1)


def test_missing_model_is_named():
    with pytest.raises(UserError, match="lab model not found"):
        scoring.score("no/such/model")
