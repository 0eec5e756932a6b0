"""Groups of a GRPO batch: the speeches that are compared with one another, and the questions that can be played.

A group is one turn of one side on one question, played G times. All groups of a question form its block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from debate_rl.engines.opening import request_ids
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES, Side, other
from debate_rl.game.question import Question
from debate_rl.game.transcript import open_transcript
from debate_rl.players.debater import Debater
from debate_rl.records import read
from debate_rl.trainers.common.settings import Job
from debate_rl.trainers.grpo.settings import Online

COPIES = 8
"""Default of TRL's `num_generations`: games per question."""
POLICY = "policy"
"""Name of the player that is trained."""
UNKNOWN, NO_PASSAGE, TOO_LONG = "answer unknown", "no passage", "longer than the model's context"
"""Reasons for leaving a question out."""


class GroupKey(NamedTuple):
    """Identifies a group: which question, side and turn its speeches belong to.

    Example:
        GroupKey(question=3, side="B", turn=0), whose key in the data set is "3/B/0"
    """

    question: int
    side: Side
    turn: int

    @property
    def key(self) -> str:
        """Text form, as it stands in the data set."""
        return f"{self.question}/{self.side}/{self.turn}"


def read_group_key(key: str) -> GroupKey:
    """Parse the text form of a group key."""
    question, side, turn = key.split("/")
    return GroupKey(int(question), "A" if side == "A" else "B", int(turn))


def learning_sides(question: Question, online: Online) -> tuple[Side, ...]:
    """Sides that learn on a question; none if that depends on the correct answer and the answer is unknown."""
    if online.roles == "both":
        return SIDES
    if online.roles in SIDES:
        return (online.roles,)
    if question.correct is None:
        return ()
    correct_side = SIDES[question.correct]
    if online.roles == "correct":
        return (correct_side,)
    return (other(correct_side),)


def places(index: int, question: Question, online: Online) -> list[GroupKey]:
    """Keys of a question's block: all turns of the first learning side, then all turns of the second.

    Args:
        index: number of the question in its file, from 0.
        question: the question.
        online: protocol and roles.
    """
    protocol = online.protocol
    keys = []
    for side in learning_sides(question, online):
        # A consultancy has one speaker a game, and both sides get games of their own.
        present: tuple[Side, ...] = (side,) if protocol.sides == "drawn" else SIDES
        for turn in range(protocol.turns):
            if side in protocol.speakers(turn, present):
                keys.append(GroupKey(index, side, turn))
    return keys


def block_of(online: Online) -> int:
    """Number of groups per question.

    Raises:
        UserError: the number differs between questions.
    """
    # Both answers are tried, because roles correct and wrong choose the side by the answer.
    sizes = set()
    for correct in (0, 1):
        example = Question(id="-", text="-", answers=("-", "+"), correct=correct)
        sizes.add(len(places(0, example, online)))
    if len(sizes) > 1 or 0 in sizes:
        raise UserError(
            f"roles {online.roles}: under protocol {online.protocol.name!r} sides A and B do not speak equally often, "
            "so batches would differ; train both roles, A or B"
        )
    return sizes.pop()


def arguments_of(online: Online, train: dict[str, Any]) -> dict[str, Any]:
    """Fields of TRL's config that follow from the protocol; the default batch is one question.

    Args:
        online: protocol, temperature and roles.
        train: the user's fields of TRL's config.

    Raises:
        UserError: the batch size in `train` does not hold whole questions.
    """
    arguments = {"temperature": online.temperature, "max_completion_length": online.protocol.max_new_tokens}
    copies = train.get("num_generations", COPIES)
    if not isinstance(copies, int):
        return arguments  # TRL's config names the wrong type
    steps = train.get("steps_per_generation") or train.get("gradient_accumulation_steps") or 1
    rows = train.get("per_device_train_batch_size")
    # An explicit generation_batch_size replaces rows x steps in TRL; the trainer checks what TRL makes of it.
    if isinstance(rows, int) and isinstance(steps, int) and train.get("generation_batch_size") is None:
        check_rows(rows * steps, online, copies)
    arguments["per_device_train_batch_size"] = block_of(online) * copies
    return arguments


def trl_arguments(online: Online | None, train: dict[str, Any]) -> dict[str, Any]:
    """The user's fields of TRL's config as TRL takes them: it wants two rows in a group, of which `role` needs none."""
    if online is not None and online.advantages == "role" and train.get("num_generations") == 1:
        return {**train, "num_generations": 2}
    return train


def check_rows(rows: int, online: Online, copies: int) -> None:
    """Check that the rows that one process plays at a time are whole questions.

    Args:
        rows: per process and rollout.
        online: protocol and roles.
        copies: G, games per question.

    Raises:
        UserError: they are not.
    """
    block = block_of(online)
    if rows % (block * copies):
        raise UserError(
            f"a question takes {block} x {copies} rows under protocol {online.protocol.name!r} (speeches that learn x "
            f"train.num_generations), and a process plays {rows} at a time (train.per_device_train_batch_size x "
            f"steps_per_generation); make that a multiple of {block * copies}"
        )


class Playable(NamedTuple):
    """The questions of a job that can be played, and a count of those that can not.

    Example:
        Playable(keys=["0/A/0", "0/B/0", "2/A/0", "2/B/0"], prompts=[[1, 17, ...], ...], read=3, left_out={...})
    """

    keys: list[str]
    """Group keys, question by question. A question's number is its line in the file, from 0."""
    prompts: list[list[int]]
    """Token ids of the first prompt of each question."""
    read: int
    """Questions in the file."""
    left_out: dict[str, int]
    """Number of questions left out, by reason."""
    over: list[int]
    """Tokens of each question that was left out as too long: prompt and longest speech."""


def online_of(job: Job) -> Online:
    """The online settings of a job of kind grpo."""
    if job.online is None:
        raise UserError("a job of kind grpo needs 'online': the protocol, the judge and what speeches earn")
    return job.online


def playable(job: Job, tokenizer: Any, context: float) -> Playable:
    """Select the questions of a job that can be played.

    Args:
        job: of kind grpo; its rows are questions.
        tokenizer: the policy's tokenizer.
        context: longest sequence that the policy can read, in tokens.

    Raises:
        UserError: the file is missing, malformed or empty, or no question can be played.
    """
    online = online_of(job)
    protocol = online.protocol
    questions = read(job.rows, Question)
    policy = Debater(name=POLICY, model=job.model).model_copy(update=dict(online.players))
    selection = Playable([], [], len(questions), {UNKNOWN: 0, NO_PASSAGE: 0, TOO_LONG: 0}, [])
    for index, question in enumerate(questions):
        if protocol.needs_passage and not question.passage:
            selection.left_out[NO_PASSAGE] += 1
            continue
        if not learning_sides(question, online):
            selection.left_out[UNKNOWN] += 1
            continue
        game = open_transcript(question, protocol, {"A": POLICY, "B": POLICY})
        # In a consultancy for B nobody speaks in a turn of A's; the side present is asked then.
        first_speakers = game.speakers(0) or game.present
        request = policy.request(game, first_speakers[0], 0)
        prompt = list(request_ids(tokenizer, request))
        # Only the first prompt is known before the games: later ones hold speeches that are not written yet.
        longest = len(prompt) + protocol.max_new_tokens
        if longest > context:
            selection.left_out[TOO_LONG] += 1
            selection.over.append(longest)
            continue
        selection.prompts.append(prompt)
        selection.keys.extend(group.key for group in places(index, question, online))
    if not selection.keys:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in selection.left_out.items() if count)
        raise UserError(f"{job.rows}: no question can be played ({reasons or 'the file is empty'})")
    return selection
