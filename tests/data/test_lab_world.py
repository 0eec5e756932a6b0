from collections import Counter
from random import Random

import pytest

from debate_rl.data.lab.world import FAMILIES, SPLITS, questions, split_of, stories
from debate_rl.errors import UserError
from tests.data.lab_solvers import MOVED, TIMES


def test_split_is_a_function_of_the_content_in_any_order():
    for split in SPLITS:
        story = next(stories("whereabouts", split, 3))
        assert split_of(story) == split
        assert split_of(story.model_copy(update={"sentences": story.sentences[::-1]})) == split


@pytest.mark.parametrize("family", FAMILIES)
def test_train_is_eight_tenths(family):
    """Of stories as the family makes them, before any is left out."""
    rng, module = Random(0), FAMILIES[family]
    share = Counter(split_of(module.story(rng, module.Knobs())) for _ in range(2000))
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


def test_sentences_come_in_time_order_where_asked():
    for question in questions(n=30, order="time", fillers=(0, 0)):
        times = [TIMES.index(time) for _, _, time, _ in MOVED.findall(question.passage)]
        assert times == sorted(times)


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
