"""Reward modelling as a weak-to-strong task (Burns et al. 2023, section 4.1): which of two replies do people prefer?

A pair becomes a question whose answers are the two replies, in an order drawn by seed. With `readout: reward`,
supervisors and students are reward models (`trainers.reward`): each reads the conversation with one reply, and
P(answer 0) is the Bradley-Terry probability that answer 0 has the larger reward. A supervisor with help reads the game
before either reply.
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
    """Make questions of pairs; which reply is answer 0 is drawn for each, so that both classes are equally common.

    Example:
        Question(text="Human: What is a pen?", answers=("No.", "A tool to write with."), correct=1, ...)
    """
    questions = []
    for pair in pairs:
        # Drawn by id, so that a pair keeps its order whichever other pairs are read.
        correct = Random(f"pair/{seed}/{pair.id}").randrange(2)
        replies = (pair.rejected, pair.chosen) if correct else (pair.chosen, pair.rejected)
        turns = [f"{_SPEAKERS[message['role']]}: {message['content']}" for message in pair.prompt]
        questions.append(
            Question(
                id=pair.id,
                text="\n\n".join(turns),
                answers=replies,
                correct=1 if correct else 0,
                group=pair.group,
                source="hh",
            )
        )
    return questions


def pair_samples(items: Sequence[Item]) -> dict[str, Sample]:
    """What a reward model reads of each pair: the conversation as messages, and the two replies."""
    return {
        item.id: Sample(prompt=conversation(item.question.text), candidates=item.question.answers) for item in items
    }


def heard_pair(game: Transcript, reads_passage: bool) -> Sample:
    """What a reward model reads of a debated pair: the judge's view of the game, then either reply.

    Args:
        game: a game about the pair.
        reads_passage: has no effect, as pairs have no passage; `Rollout.show` passes it.
    """
    return sample_of(game, reads_passage).model_copy(update={"candidates": game.question.answers})


def conversation(text: str) -> list[Message]:
    """The messages of a conversation as `pair_questions` writes it; a text of another form is one user's message.

    Example:
        >>> conversation("Human: Hot?\\n\\nAssistant: Yes.\\n\\nHuman: Why?")[1]
        {"role": "assistant", "content": "Yes."}
    """
    # Splitting by a group gives ["", speaker, content, speaker, content, ...] where the text starts with a speaker.
    parts = _TURN.split(text)
    if parts[0] or len(parts) < 3:
        return [{"role": "user", "content": text}]
    return [
        {"role": _ROLES[speaker], "content": content} for speaker, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def reward_rows(
    items: Sequence[Item], samples: Samples, targets: Sequence[float], weights: Sequence[float]
) -> list[RewardRow]:
    """Training rows of a reward model: target P(answer 0) for the prompt of each item with either candidate."""
    rows = []
    for item, target, weight in zip(items, targets, weights, strict=True):
        sample = samples[item.id]
        rows.append(
            RewardRow(
                id=item.id,
                prompt=sample.prompt,
                chosen=sample.candidates[0],
                rejected=sample.candidates[1],
                target=target,
                weight=weight,
                group=item.cluster,
            )
        )
    return rows
