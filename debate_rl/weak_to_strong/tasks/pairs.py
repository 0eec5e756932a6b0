"""Reward modelling as a weak-to-strong task (Burns et al. 2023, section 4.1): which of two replies do people prefer?

A pair is a question whose answers are the two replies, on sides drawn by seed. With `readout: reward` supervisors and
students are reward models (`trainers.reward`): each reads the conversation with one reply, and P(answer 0) is the
Bradley-Terry probability that its reward is the larger one. A supervisor with help reads the game before either reply.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from debate_rl.data.tasks.reward_pairs import RewardPair
from debate_rl.game.prompts import Message
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.trainers.common.rows import RewardRow
from debate_rl.weak_to_strong.tasks.items import Item, Sample, Samples, sample_of

_SPEAKERS = {"user": "Human", "assistant": "Assistant", "system": "System"}
_ROLES = {who: role for role, who in _SPEAKERS.items()}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant|System): ?")


def pair_questions(pairs: Sequence[RewardPair], seed: int = 0) -> list[Question]:
    """Pairs as questions; which reply is answer 0 is drawn for each, so that both classes are as common.

    Example:
        Question(text="Human: What is a pen?", answers=("No.", "A tool to write with."), correct=1, ...)
    """
    found = []
    for pair in pairs:
        correct = Random(f"pair/{seed}/{pair.id}").randrange(2)
        replies = (pair.rejected, pair.chosen) if correct else (pair.chosen, pair.rejected)
        said = "\n\n".join(f"{_SPEAKERS[message['role']]}: {message['content']}" for message in pair.prompt)
        found.append(
            Question(id=pair.id, text=said, answers=replies, correct=1 if correct else 0, group=pair.group, source="hh")
        )
    return found


def pair_samples(items: Sequence[Item]) -> dict[str, Sample]:
    """What a reward model reads of each pair: the conversation as messages, and the two replies."""
    return {
        item.id: Sample(prompt=conversation(item.question.text), candidates=item.question.answers) for item in items
    }


def heard_pair(game: Transcript, reads_passage: bool) -> Sample:
    """What a reward model reads of a pair that was argued about: what a judge is shown of the game, then either reply.

    Args:
        game: who argued for which reply.
        reads_passage: pairs have none.
    """
    return sample_of(game, reads_passage).model_copy(update={"candidates": game.question.answers})


def conversation(text: str) -> list[Message]:
    """The messages of a conversation as `pair_questions` writes it; a text of another form is one user's message.

    Example:
        >>> conversation("Human: Hot?\\n\\nAssistant: Yes.\\n\\nHuman: Why?")[1]
        {"role": "assistant", "content": "Yes."}
    """
    parts = _TURN.split(text)
    if parts[0] or len(parts) < 3:
        return [{"role": "user", "content": text}]
    return [{"role": _ROLES[who], "content": said} for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def reward_rows(
    items: Sequence[Item], samples: Samples, targets: Sequence[float], weights: Sequence[float]
) -> list[RewardRow]:
    """Rows of a reward model: P(answer 0) of each item, the prompt of its sample with either candidate."""
    return [
        RewardRow(
            id=item.id, prompt=samples[item.id].prompt, chosen=samples[item.id].candidates[0],
            rejected=samples[item.id].candidates[1], target=target, weight=weight, group=item.cluster,
        )
        for item, target, weight in zip(items, targets, weights, strict=True)
    ]  # fmt: skip
