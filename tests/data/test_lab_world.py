import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debate_rl.data.lab import whereabouts
from debate_rl.data.lab.whereabouts import TIMES
from debate_rl.data.lab.world import SPLITS, questions, split_of, stories
from debate_rl.errors import UserError

MOVED = re.compile(r"the (\w+) was moved to the (\w+) at (\w+)")


def last_place(passage, thing):
    """Solve a story without the generator: of all moves of the thing the latest one counts."""
    moves = [(TIMES.index(time), place) for what, place, time in MOVED.findall(passage) if what == thing]
    return max(moves)[1], {place for _, place in moves}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    split=st.sampled_from(SPLITS),
    things=st.integers(1, 6),
    third_move=st.floats(0, 1),
    gap=st.integers(1, 6),
    order=st.sampled_from(["shuffled", "time"]),
)
def test_answer_follows_from_story(seed, split, **knobs):
    for question in questions("whereabouts", split, 6, seed, per_story=3, **knobs):
        thing = question.id.rsplit("-", 1)[1]
        assert thing in question.text
        right, places = last_place(question.passage, thing)
        assert question.answers[question.correct] == right
        assert question.answers[0] != question.answers[1] and set(question.answers) <= places
        for answer, sentence in zip(question.answers, question.evidence, strict=True):
            assert sentence in question.passage
            assert sentence.startswith(f"the {thing} was moved to the {answer} at ")


def test_splits_share_no_story():
    seen = {split: {q.group for s in range(3) for q in questions("whereabouts", split, 300, s)} for split in SPLITS}
    texts = {split: {frozenset(s.sentences) for s, _ in zip(stories("whereabouts", split, 7), range(200), strict=False)}
             for split in SPLITS}  # fmt: skip
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not seen[one] & seen[other]
        assert not texts[one] & texts[other]


def test_split_is_a_function_of_the_content_in_any_order():
    for split in SPLITS:
        story = next(stories("whereabouts", split, 3))
        assert split_of(story) == split
        assert split_of(story.model_copy(update={"sentences": story.sentences[::-1]})) == split


def test_train_is_eight_tenths():
    """Of stories as the family makes them, before any is left out."""
    rng, knobs = Random(0), whereabouts.Knobs()
    share = Counter(split_of(whereabouts.story(rng, knobs)) for _ in range(2000))
    assert abs(share["train"] / 2000 - 0.8) < 0.04 and abs(share["test"] / 2000 - 0.1) < 0.03


def test_same_arguments_same_questions_and_smaller_n_is_a_prefix():
    assert questions(n=40, seed=5)[:15] == questions(n=15, seed=5)
    assert questions(n=15, seed=5) != questions(n=15, seed=6)


def test_ids_are_unique_and_stories_share_a_group():
    made = questions(n=400, per_story=2)
    assert len({q.id for q in made}) == 400
    assert set(Counter(q.group for q in made).values()) == {2}
    assert {q.source for q in made} == {"lab/whereabouts"} and {q.split for q in made} == {"train"}


def test_position_of_the_correct_answer_is_balanced():
    made = questions(n=4000, per_story=1)
    assert 0.47 < sum(q.correct for q in made) / 4000 < 0.53
    places = Counter(q.answers[i] for q in made for i in (0, 1))
    right = Counter(q.answers[q.correct] for q in made)
    assert all(0.38 < right[place] / places[place] < 0.62 for place in places)


def test_one_time_alone_leaves_a_judge_uncertain():
    """The best guess from the time of one quote alone is right about two times in three; from both, always."""
    made = questions(n=6000, per_story=3)
    total, right = Counter(), Counter()
    for question in made:
        times = [TIMES.index(MOVED.match(sentence)[3]) for sentence in question.evidence]
        assert times[question.correct] > times[1 - question.correct]
        for side in (0, 1):
            total[times[side]] += 1
            right[times[side]] += side == question.correct
    best = sum(max(right[t], total[t] - right[t]) for t in total) / sum(total.values())
    assert 0.55 < best < 0.70


def test_sentences_come_in_time_order_where_asked():
    for question in questions(n=30, order="time", fillers=(0, 0)):
        times = [TIMES.index(time) for _, _, time in MOVED.findall(question.passage)]
        assert times == sorted(times)


def test_default_passages_are_short():
    lengths = [len(re.findall(r"\w+|[.,?]", q.passage)) for q in questions(n=500)]
    assert min(lengths) >= 55 and max(lengths) <= 110 and 65 < sum(lengths) / 500 < 90


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "wherabouts"}, "did you mean 'whereabouts'"),
        ({"split": "tests"}, "did you mean 'test'"),
        ({"thing": 3}, "thing: .*knobs are things, third_move"),
        ({"things": 0}, "things: "),
        ({"per_story": 0}, "per_story >= 1"),
    ],
)
def test_mistakes_say_the_fix(arguments, message):
    with pytest.raises(UserError, match=message):
        questions(**arguments)
