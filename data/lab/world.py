"""The lab world: questions by family, split and seed.

The content of a story decides its split (`split_of`), whatever the seed, so no two splits can share a story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from pydantic import ValidationError

from debate_rl.data.lab import whereabouts
from debate_rl.data.lab.story import Story
from debate_rl.errors import UserError, nearest
from debate_rl.game.question import Question, Split
from debate_rl.records import digest, explain

FAMILIES: dict[str, Any] = {"whereabouts": whereabouts}
"""A family is a module with `Knobs` and `story(rng, knobs)`."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(story: Story) -> Split:
    """The split of a story, from its sentences in any order: eight tenths train, one validation, one test."""
    tenth = int(digest(sorted(story.sentences)), 16) % 10
    if tenth < 8:
        return "train"
    return "validation" if tenth == 8 else "test"


def stories(family: str, split: Split, seed: int = 0, **knobs: Any) -> Iterator[Story]:
    """Yield stories of one split without end; the same arguments give the same stories.

    Raises:
        UserError: no such family, split or knob, or a knob's value is out of range.
    """
    if family not in FAMILIES:
        raise UserError(f"no family {family!r} in the lab; {nearest(family, FAMILIES)}")
    if split not in SPLITS:
        raise UserError(f"no split {split!r} in the lab; {nearest(split, SPLITS)}")
    module = FAMILIES[family]
    try:
        settings = module.Knobs(**knobs)
    except ValidationError as error:
        raise UserError(
            f"lab family {family!r}: {explain(error)}; knobs are {', '.join(module.Knobs.model_fields)}"
        ) from error
    yield from stories_in_split(lambda rng: module.story(rng, settings), family, split, seed)


def stories_in_split(tell: Callable[[Random], Story], family: str, split: Split, seed: int) -> Iterator[Story]:
    """Tell stories without end, and yield those that belong to a split.

    Args:
        tell: makes a story.
        family: name that seeds the draws, with split and seed.
        split: the split.
        seed: another seed tells other stories of the same split.
    """
    rng = Random(f"{family}/{split}/{seed}")
    while True:
        story = tell(rng)
        if split_of(story) == split:
            yield story


def questions(
    family: str = "whereabouts", split: Split = "train", n: int = 100, seed: int = 0, per_story: int = 2, **knobs: Any
) -> list[Question]:
    """Make n questions, at most `per_story` of them about one story; a smaller n gives the first of a larger one.

    Args:
        family: a key of `FAMILIES`.
        split: no other split has any of its stories, under any seed.
        n: number of questions.
        seed: another seed tells other stories of the same split.
        per_story: most questions that share a story, and so a statistics cluster.
        knobs: fields of the family's `Knobs`.

    Returns:
        Questions with `evidence[i]` the sentences that best back `answers[i]`.

    Raises:
        UserError: no such family, split or knob; n or per_story is too small.
    """
    if n < 0 or per_story < 1:
        raise UserError(f"the lab needs n >= 0 and per_story >= 1, got n={n}, per_story={per_story}")
    made: list[Question] = []
    for story in stories(family, split, seed, **knobs):
        if len(made) >= n:
            break
        made += as_questions(story, family, split)[: min(per_story, n - len(made))]
    return made


def as_questions(story: Story, family: str, split: Split) -> list[Question]:
    """Convert the questions of a story to records; the story's name is a digest of its text."""
    group = f"{family}-{digest(list(story.sentences))}"
    return [
        Question(
            id=f"{group}-{item.name}",
            text=item.text,
            answers=item.answers,
            correct=item.correct,
            passage=story.passage,
            group=group,
            source=f"lab/{family}",
            split=split,
            evidence=item.evidence,
        )
        for item in story.items
    ]
