"""The models that ship, on held-out stories."""

from pathlib import Path

import pytest

from debate_rl.data.lab import score as scoring
from debate_rl.data.lab.tokenizer import lab_tokenizer

MODELS = Path(scoring.__file__).parents[1] / "models"
NAMES = ("lab-base", "lab-small")


@pytest.fixture(scope="module")
def scores():
    return {name: scoring.score(MODELS / name, n=150) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_tokenizer_is_the_one_the_code_makes(name):
    _, tokenizer = scoring.load(MODELS / name)
    made = lab_tokenizer()
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer.chat_template == made.chat_template


def test_models_fit_in_the_repository():
    sizes = {name: sum(f.stat().st_size for f in (MODELS / name).iterdir()) for name in NAMES}
    assert max(sizes.values()) < 5e6 and sum(sizes.values()) < 10e6


def test_cards_have_every_score():
    for name in NAMES:
        text = (MODELS / name / "README.md").read_text()
        assert f"debate-rl lab build --model {name}" in text
        for score in ("open_book_whereabouts", "open_book_claims", "blind_whereabouts", "decisive"):
            assert f"| {score} |" in text


def test_strong_reads_and_weak_reads_less(scores):
    base, small = scores["lab-base"], scores["lab-small"]
    assert base["open_book_whereabouts"] >= 0.9
    assert 0.6 <= small["open_book_whereabouts"] <= 0.8


def test_nobody_knows_without_reading(scores):
    for name in NAMES:
        assert 0.38 < scores[name]["blind_whereabouts"] < 0.62


def test_base_quotes_better_than_small(scores):
    assert scores["lab-base"]["quoted"] > 0.9
    assert scores["lab-base"]["valid"] > scores["lab-small"]["valid"]
