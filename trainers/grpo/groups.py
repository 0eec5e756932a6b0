"""Places: the groups of a batch, by where in a question's games their speeches are given; and what can be played."""

from __future__ import annotations

from typing import Any, NamedTuple

from debate_rl.engines.chat import prompt_ids
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Side, other
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.players.debater import Debater
from debate_rl.records import read
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.grpo.settings import Online

COPIES = 8
"""TRL's `num_generations` where `train` names none."""
POLICY = "policy"
"""Name of the player that is trained."""
UNKNOWN, NO_PASSAGE, TOO_LONG = "answer unknown", "no passage", "longer than the model's context"
"""Why a question is not played."""


class Place(NamedTuple):
    """A group of the batch: where in a question's games its speeches were given.

    Example:
        Place(question=3, side="B", turn=0), whose key in the data set is "3/B/0"
    """

    question: int
    side: Side
    turn: int

    @property
    def key(self) -> str:
        """How the place is written in the data set."""
        return f"{self.question}/{self.side}/{self.turn}"


def read_place(key: str) -> Place:
    """The place of a key."""
    question, side, turn = key.split("/")
    return Place(int(question), "A" if side == "A" else "B", int(turn))


def learning_sides(question: Question, online: Online) -> tuple[Side, ...]:
    """Sides of a question that learn; none where the answer would say which, and is unknown."""
    if online.roles == "both":
        return SIDES
    if online.roles in SIDES:
        return (online.roles,)
    if question.correct is None:
        return ()
    right = SIDES[question.correct]
    return (right,) if online.roles == "correct" else (other(right),)


def places(index: int, question: Question, online: Online) -> list[Place]:
    """The groups of a question's block, side by side."""
    rules = online.protocol
    found = []
    for side in learning_sides(question, online):
        present: tuple[Side, ...] = (side,) if rules.sides == "drawn" else SIDES
        found += [Place(index, side, turn) for turn in range(rules.turns) if side in rules.speakers(turn, present)]
    return found


def block_of(online: Online) -> int:
    """Groups of a question.

    Raises:
        UserError: they are not the same number for every question.
    """
    sizes = {len(places(0, Question(id="-", text="-", answers=("-", "+"), correct=right), online)) for right in (0, 1)}
    if len(sizes) > 1 or 0 in sizes:
        raise UserError(
            f"roles {online.roles}: under protocol {online.protocol.name!r} sides A and B do not speak equally often, "
            "so batches would differ; train both roles, A or B"
        )
    return sizes.pop()


def arguments_of(online: Online, train: dict[str, Any]) -> dict[str, Any]:
    """Fields of TRL's config that follow from the rules: one question a batch where `train` does not say.

    Raises:
        UserError: batches can not hold whole questions.
    """
    found = {"temperature": online.temperature, "max_completion_length": online.protocol.max_new_tokens}
    copies = train.get("num_generations", COPIES)
    if not isinstance(copies, int):
        return found  # of the wrong type, as TRL's config will say
    steps = train.get("steps_per_generation") or train.get("gradient_accumulation_steps") or 1
    rows = train.get("per_device_train_batch_size")
    if isinstance(rows, int) and isinstance(steps, int) and train.get("generation_batch_size") is None:
        check_rows(rows * steps, online, copies)
    return {**found, "per_device_train_batch_size": block_of(online) * copies}


def check_rows(rows: int, online: Online, copies: int) -> None:
    """Make sure that what a process plays at a time is whole questions.

    Raises:
        UserError: it is not.
    """
    block = block_of(online)
    if rows % (block * copies):
        raise UserError(
            f"a question takes {block} x {copies} rows under protocol {online.protocol.name!r} (speeches that learn x "
            f"train.num_generations), and a process plays {rows} at a time (train.per_device_train_batch_size x "
            f"steps_per_generation); make that a multiple of {block * copies}"
        )


class Playable(NamedTuple):
    """What of a job's questions can be played.

    Example:
        Playable(keys=["0/A/0", "0/B/0", "2/A/0", "2/B/0"], prompts=[[1, 17, ...], ...], read=3, left_out={...})
    """

    keys: list[str]
    """Of the groups, question by question; the number is the question's line in the file, from 0."""
    prompts: list[list[int]]
    """Token ids of the first prompt of each question."""
    read: int
    left_out: dict[str, int]
    """Questions that are not played, by reason."""
    over: list[int]
    """Tokens that the questions left out as too long would have taken."""


def online_of(job: Job) -> Online:
    """The online settings of a job of kind grpo."""
    if job.online is None:
        raise UserError("a job of kind grpo needs 'online': the protocol, the judge and what speeches earn")
    return job.online


def playable(job: Job, tokenizer: Any, context: float) -> Playable:
    """The questions of a job that can be played.

    Args:
        job: of kind grpo; its rows are questions.
        tokenizer: of the policy.
        context: tokens that the policy can read.

    Raises:
        UserError: the file is missing, malformed or empty, or no question can be played.
    """
    online, probe = online_of(job), Debater(name=POLICY, model=job.model)
    questions = read(job.rows, Question)
    found = Playable([], [], len(questions), {UNKNOWN: 0, NO_PASSAGE: 0, TOO_LONG: 0}, [])
    for index, question in enumerate(questions):
        if online.protocol.needs_passage and not question.passage:
            found.left_out[NO_PASSAGE] += 1
        elif not learning_sides(question, online):
            found.left_out[UNKNOWN] += 1
        else:
            game = open_transcript(question, online.protocol, {"A": POLICY, "B": POLICY})
            first = probe.request(game, (game.speakers(0) or game.present)[0], 0)
            prompt = list(prompt_ids(tokenizer, first.messages))
            if len(prompt) + online.protocol.max_new_tokens > context:
                found.left_out[TOO_LONG] += 1
                found.over.append(len(prompt) + online.protocol.max_new_tokens)
                continue
            found.prompts.append(prompt)
            found.keys.extend(place.key for place in places(index, question, online))
    if not found.keys:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in found.left_out.items() if count)
        raise UserError(f"{job.rows}: no question can be played ({reasons or 'the file is empty'})")
    return found
