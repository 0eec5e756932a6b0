import random

from debate_rl.engines.router import BLOCK, REMEMBERED, Router

STORIES = [f"rules of the game\n\nstory {n} : " + f"on day {n} it rained . " * 400 for n in range(12)]


def test_a_story_goes_where_it_went_before_and_stories_are_shared_out():
    router = Router(3)
    loads = [0.0] * 3
    first = []
    for story in STORIES:
        at = router.place(story + "who won ?", loads, 4)
        loads[at] += 1
        first.append(at)
    assert sorted(first.count(at) for at in range(3)) == [4, 4, 4]
    order = list(range(12))
    random.Random(0).shuffle(order)
    assert [router.place(STORIES[n] + f"round {n}", [0, 0, 0], 4) for n in order] == [first[n] for n in order]


def test_a_place_that_is_far_busier_or_closed_is_not_preferred():
    router = Router(2)
    assert router.place(STORIES[0], [0, 1], 4) == 0
    assert router.place(STORIES[0] + "x", [4, 0], 4) == 0
    assert router.place(STORIES[0] + "x", [5, 0], 4) == 1
    assert router.place(STORIES[0] + "x", [0, float("inf")], 4) == 0


def test_a_short_beginning_in_common_decides_nothing():
    router = Router(2)
    rules = "rules " * (BLOCK // 4)
    assert router.place(rules + STORIES[0], [0, 0], 4) == 0
    assert router.place(rules + STORIES[1], [1, 0], 4) == 1


def test_old_texts_are_forgotten():
    router = Router(1)
    for number in range(50):
        router.place(f"{number} " * (REMEMBERED // 10), [0], 4)
    assert len(router._seen) <= REMEMBERED
