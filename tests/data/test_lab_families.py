"""What holds for every family, checked by solvers that read the passage alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.data.lab.annotators import sentences
from debate_rl.data.lab.other_stories import OTHER_STORIES
from debate_rl.data.lab.tokenizer import lab_tokenizer
from debate_rl.data.lab.vocabulary import KINDS
from debate_rl.data.lab.world import FAMILIES, SPLITS, as_questions, questions, split_of, stories, stories_in_split
from debate_rl.data.questions import claims
from debate_rl.errors import UserError
from tests.data.lab_solvers import MOVED, SOLVERS, TIMES, fact, moves

TOKENIZER = lab_tokenizer()


def spans(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda pair: tuple(sorted(pair)))


KNOBS = {
    "whereabouts": st.fixed_dictionaries({
        "things": st.integers(1, 6), "third_move": st.floats(0, 1), "gap": st.integers(1, 6), "fillers": spans(0, 4),
        "order": st.sampled_from(["shuffled", "time"]),
        "asks": st.lists(st.sampled_from(["end", "before", "who"]), min_size=1).map(tuple),
    }),
}  # fmt: skip
LARGEST = {
    "whereabouts": {"things": 6, "third_move": 1.0, "fillers": (4, 4), "asks": ("end", "before", "who")},
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def solve(question):
    """Index of the right answer by the solver of its family; it must single out one."""
    found = SOLVERS[question.source.removeprefix("lab/")](question.passage, question.text, question.answers)
    assert [found == answer for answer in question.answers].count(True) == 1, question
    return question.answers.index(found)


@settings(max_examples=120)
@given(st.data(), st.sampled_from(list(FAMILIES)), st.integers(0, 10**6), st.sampled_from(SPLITS))
def test_answers_evidence_and_facts_follow_from_the_story(data, family, seed, split):
    knobs = data.draw(KNOBS[family])
    story = next(stories(family, split, seed, **knobs))
    assert split_of(story) == split and sentences(story.passage) == list(story.sentences)
    asked = as_questions(story, family, split)
    assert asked and len({question.id for question in asked}) == len(asked)
    for question in asked:
        assert question.answers[0] != question.answers[1]
        assert solve(question) == question.correct
        for backing in question.evidence:
            assert backing and len(set(backing)) == len(backing) and set(backing) <= set(story.sentences)
        assert question.evidence[0] != question.evidence[1]
    assert story.facts
    for query, answer in story.facts:
        assert fact(family, story.passage, query) == answer, query


@settings(max_examples=60)
@given(st.data(), st.sampled_from(list(FAMILIES)), st.integers(0, 10**6))
def test_evidence_of_both_sides_settles_the_question(data, family, seed):
    """Who reads the quotes of both sides finds the answer without the story."""
    for question in questions(family, "train", 4, seed, per_story=4, **data.draw(KNOBS[family])):
        quoted = " ".join(dict.fromkeys([*question.evidence[0], *question.evidence[1]]))
        assert solve(question.model_copy(update={"passage": quoted})) == question.correct


@settings(max_examples=40)
@given(st.data(), st.integers(0, 10**6))
def test_each_side_has_true_sentences_that_back_it(data, seed):
    for question in questions("whereabouts", "train", 3, seed, per_story=3, **data.draw(KNOBS["whereabouts"])):
        for answer, (sentence,) in zip(question.answers, question.evidence, strict=True):
            assert answer in MOVED.match(sentence).group(2, 4)


@pytest.mark.parametrize("kind", OTHER_STORIES)
def test_other_stories_settle_their_questions_and_facts(kind):
    """Evidence of both sides settles the question: with the wishes, where there are some."""
    for seed in range(60):
        story = next(stories_in_split(OTHER_STORIES[kind], kind, "train", seed))
        assert split_of(story) == "train"
        for question in as_questions(story, kind, "train"):
            assert solve(question) == question.correct
            assert question.evidence[0] != question.evidence[1]
            assert all(set(backing) <= set(story.sentences) for backing in question.evidence)
            wishes = [s for s in story.sentences if s.startswith("the guest wants")]
            quoted = " ".join(dict.fromkeys([*question.evidence[0], *question.evidence[1], *wishes]))
            assert solve(question.model_copy(update={"passage": quoted})) == question.correct
        for query, answer in story.facts:
            assert fact(kind, story.passage, query) == answer, query


def test_a_third_move_is_earlier_than_the_two_of_the_answers():
    for question in questions("whereabouts", n=100, third_move=1.0):
        day = moves(question.passage, question.id.rsplit("-", 1)[1])
        assert set(question.answers) == {place for _, place, _ in day[-2:]}
        assert len({time for time, _, _ in day}) == len(day)
    assert any(len(moves(q.passage, q.id.rsplit("-", 1)[1])) == 3 for q in questions("whereabouts", n=100))


def test_every_kind_of_whereabouts_is_asked():
    made = questions("whereabouts", n=300, asks=("end", "before", "who"))
    asked = Counter("who" if "who" in q.text else "before" if "before" in q.text else "end" for q in made)
    assert min(asked.values()) > 60 and len(asked) == 3
    assert all("who" not in q.text and "before" not in q.text for q in questions("whereabouts", n=100))


def test_splits_share_no_story(family):
    seen = {split: {q.group for s in range(3) for q in questions(family, split, 200, s)} for split in SPLITS}
    texts = {split: {frozenset(s.sentences) for s, _ in zip(stories(family, split, 7), range(150), strict=False)}
             for split in SPLITS}  # fmt: skip
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not seen[one] & seen[other]
        assert not texts[one] & texts[other]


def test_passages_fit_and_every_word_is_known(family):
    for knobs in ({}, LARGEST[family]):
        made = questions(family, n=120, seed=6, **knobs)
        texts = [q.passage for q in made]
        ids = TOKENIZER(texts, add_special_tokens=False).input_ids
        assert min(map(len, ids)) >= 44 and max(map(len, ids)) <= 400
        texts += [text for q in [*made, *claims(made)] for text in (q.text, *q.answers)]
        texts += [text for s, _ in zip(stories(family, "train", 1, **knobs), range(60), strict=False)
                  for pair in s.facts for text in pair]  # fmt: skip
        assert not any(TOKENIZER.unk_token_id in row for row in TOKENIZER(texts, add_special_tokens=False).input_ids)
        answers = [answer for q in made for answer in q.answers]
        assert all(len(row) == 1 for row in TOKENIZER(answers, add_special_tokens=False).input_ids)


def numbers_or_words(question):
    """The answers in an order that does not depend on which is right: numbers by size, words by the alphabet."""
    return sorted(question.answers, key=lambda answer: (int(answer) if answer.isdigit() else 0, answer))


def frame(question):
    """The question without its story words."""
    return " ".join("_" if word in KINDS else word for word in question.text.replace("?", " ?").split())


def difference(question):
    """Between two numbers, else 0."""
    low, high = numbers_or_words(question)
    return int(high) - int(low) if low.isdigit() else 0


BLIND = {
    "position": lambda q: ((), q.answers),
    "order of the answers": lambda q: ((), numbers_or_words(q)),
    "order of the answers, by question": lambda q: (frame(q), numbers_or_words(q)),
    "difference": lambda q: (difference(q), numbers_or_words(q)),
}
"""For each guesser what it looks at, and the answers in the order in which it names them."""


def guessed(look, made):
    """Accuracy on the second half of the questions of the best guess learnt from the first half."""
    seen, half = Counter(), len(made) // 2
    for question in made[:half]:
        key, listed = look(question)
        seen[key] += 1 if listed[0] == question.answers[question.correct] else -1
    hits = 0
    for question in made[half:]:
        key, listed = look(question)
        hits += listed[0 if seen[key] >= 0 else 1] == question.answers[question.correct]
    return hits / (len(made) - half)


def guessed_by_word(made):
    """The same for a guesser who takes the answer word that was right more often."""
    asked, right, half = Counter(), Counter(), len(made) // 2
    for question in made[:half]:
        asked.update(question.answers)
        right[question.answers[question.correct]] += 1
    best = [max(q.answers, key=lambda answer: right[answer] / max(asked[answer], 1)) for q in made[half:]]
    hits = sum(guess == q.answers[q.correct] for guess, q in zip(best, made[half:], strict=True))
    return hits / (len(made) - half)


@pytest.fixture(scope="module")
def draws():
    """Many questions of each family, one a story."""
    return {family: questions(family, n=6000, seed=9, per_story=1) for family in FAMILIES}


@pytest.mark.parametrize("guesser", BLIND)
def test_a_blind_guesser_is_right_half_of_the_time(draws, family, guesser):
    assert 0.47 < guessed(BLIND[guesser], draws[family]) < 0.53


def test_no_answer_word_is_right_more_often(draws, family):
    assert 0.47 < guessed_by_word(draws[family]) < 0.53


def test_position_of_the_right_answer_is_balanced(draws, family):
    assert 0.47 < sum(q.correct for q in draws[family]) / len(draws[family]) < 0.53


def test_claims_say_whether_the_named_answer_is_right(family):
    asked = questions(family, n=150, seed=4)
    for question, claim in zip(asked, claims(asked, seed=2), strict=True):
        assert claim.answers == ("correct", "incorrect") and claim.text.startswith(question.text)
        named = claim.text.removeprefix(f"{question.text} the answer is ").rstrip(".")
        assert claim.answers[claim.correct] == (
            "correct" if named == question.answers[solve(question)] else "incorrect"
        )
        own = question.answers.index(named)
        assert claim.evidence == (question.evidence[own], question.evidence[1 - own])
        kept = ("passage", "group", "source", "split")
        assert [getattr(claim, key) for key in kept] == [getattr(question, key) for key in kept]
        assert claim.id != question.id
    assert claims(asked, seed=2) == claims(asked, seed=2) != claims(asked, seed=3)


def test_claims_are_balanced(draws, family):
    made = claims(draws[family][:4000], seed=1)
    assert 0.47 < sum(claim.correct for claim in made) / 4000 < 0.53
    unknown = draws[family][0].model_copy(update={"correct": None, "evidence": ()})
    (claim,) = claims([unknown])
    assert claim.correct is None and claim.evidence == ()


def test_one_side_alone_leaves_a_judge_in_doubt(draws):
    """The best guess from one decisive quote of whereabouts is right two times in three; from both, always."""
    total, right = Counter(), Counter()
    for question in draws["whereabouts"]:
        times = [TIMES.index(MOVED.match(sentence)[3]) for (sentence,) in question.evidence]
        assert times[question.correct] > times[1 - question.correct]
        for side in (0, 1):
            total[times[side]] += 1
            right[times[side]] += side == question.correct
    best = sum(max(right[t], total[t] - right[t]) for t in total) / sum(total.values())
    assert 0.6 < best < 0.7


@pytest.mark.parametrize(
    ("family", "knobs", "message"),
    [
        ("whereabouts", {"asks": ()}, "asks: "),
        *((name, {"fillers": pair}, "fillers: .*smaller one first") for name in FAMILIES for pair in ((3, 1), (-2, 0))),
    ],
)
def test_knobs_out_of_range_say_the_fix(family, knobs, message):
    with pytest.raises(UserError, match=message):
        questions(family, n=1, **knobs)


def test_stories_differ_between_seeds(family):
    groups = [q.group for s in range(4) for q in questions(family, "train", 50, s, per_story=1)]
    assert len(set(groups)) == len(groups)
