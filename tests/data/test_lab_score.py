from random import Random

import pytest
import torch

from debate_rl.data.lab import build as builder
from debate_rl.data.lab import score as scoring
from debate_rl.data.lab.annotators import speeches
from debate_rl.data.lab.other_stories import payment_story
from debate_rl.data.lab.world import FAMILIES, as_questions, questions, stories_in_split
from debate_rl.data.questions import claims
from debate_rl.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A lab model after a few steps."""
    stages = (builder.Stage(4000, {"open_book": 4}, builder.MIXED),)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(builder.SHAPES, "tiny", builder.Shape(16, 1, 2, 32, stages, speed=1000))
        patched.setattr(builder.torch, "set_num_threads", lambda n: None)
        return builder.build("tiny", tmp_path_factory.mktemp("models") / "tiny")


def test_probabilities_ignore_padding_and_order_of_rows(folder):
    net, tokenizer = scoring.load(folder)
    made = [q for family in FAMILIES for q in questions(family, n=3, split="test", per_story=1)]
    made += claims(made)
    prompts = scoring.judge_prompts(made, read=True)
    together = scoring.probabilities(net, tokenizer, prompts, made)
    alone = torch.cat([scoring.probabilities(net, tokenizer, [p], [q]) for p, q in zip(prompts, made, strict=True)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_accuracy_and_brier_by_hand():
    made = [question.model_copy(update={"correct": right}) for question, right in
            zip(questions(n=4, per_story=1), (0, 0, 1, 1), strict=True)]  # fmt: skip
    hits, brier = scoring.accuracy(torch.tensor([0.9, 0.4, 0.2, 0.7]), made)
    assert hits == 0.5 and brier == pytest.approx((0.01 + 0.36 + 0.04 + 0.49) / 4)


def test_scores_are_named_and_repeat(folder):
    scores = scoring.score(folder, n=6)
    names = [name for name in scores if not name.endswith("_brier")]
    assert names[:3] == ["open_book_whereabouts", "open_book_claims", "blind_whereabouts"]
    assert names[3:] == ["quoted", "valid", "decisive", "words"]
    assert all(0 <= value <= 1 for name, value in scores.items() if name != "words")
    assert scores == scoring.score(folder, n=6) != scoring.score(folder, n=6, seed=2)


def test_blind_prompts_hide_the_story():
    made = questions(n=5, per_story=1)
    for read, question, prompt in [(r, q, p) for r in (True, False)
                                   for q, p in zip(made, scoring.judge_prompts(made, r), strict=True)]:  # fmt: skip
        assert (question.passage in prompt) == read and question.text in prompt


@pytest.mark.parametrize("family", FAMILIES)
def test_quoting_counts_what_the_annotators_meant(family):
    made = questions(family, n=60, per_story=1)
    sides = [0] * 60
    texts = [speeches(question, {"decisive": 1.0}, Random(0))[0] for question in made]
    assert scoring.quoting(texts, made, sides)["decisive"] == 1.0
    assert scoring.quoting(texts, made, [1] * 60)["decisive"] < 0.5
    weak = scoring.quoting([speeches(q, {"weak": 1.0}, Random(0))[0] for q in made], made, sides)
    assert weak["valid"] == 1.0 and weak["decisive"] == 0.0
    wrong = scoring.quoting([speeches(q, {"misquote": 1.0}, Random(0))[0] for q in made], made, sides)
    assert wrong["quoted"] == 1.0 and wrong["valid"] < 0.3 and wrong["decisive"] == 0.0
    assert scoring.quoting(["no quote here"] * 60, made, sides) == {
        "quoted": 0.0, "valid": 0.0, "decisive": 0.0, "words": 3.0
    }  # fmt: skip


def test_half_of_the_evidence_is_not_decisive():
    story = next(stories_in_split(payment_story, "accounts", "train", 0))
    question = as_questions(story, "accounts", "train")[0]
    quotes = [f"<quote> {sentence} </quote>" for sentence in question.evidence[0]]
    assert scoring.quoting([" and ".join(quotes)], [question], [0])["decisive"] == 1.0
    assert scoring.quoting([" and ".join(quotes[1:])], [question], [0])["decisive"] == 0.0


def test_card_holds_the_scores_and_the_command(folder):
    scores = scoring.score(folder, n=4)
    text = scoring.write_card(folder, scores, 4, 1).read_text()
    assert "`debate-rl lab build --model tiny --seed 0 --tokens 4000`" in text and "`debate-rl lab score tiny`" in text
    for name, value in scores.items():
        assert f"| {name} | {value:.3f} |" in text


def test_missing_model_is_named():
    with pytest.raises(UserError, match="lab model not found"):
        scoring.score("no/such/model")
