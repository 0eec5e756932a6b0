"""Pairs of replies for reward modelling (a Bradley-Terry head), from conversations in the format of Anthropic HH.

A row holds two conversations that differ in the last reply: `chosen` is the one that people preferred.
"""

from __future__ import annotations

import re
from pathlib import Path

from debate_rl.data.left_out import LeftOut
from debate_rl.data.splits import sample
from debate_rl.data.tasks.task import Row, hub_rows, load_task, local_rows
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message
from debate_rl.game.question import Split
from debate_rl.records import Record, digest

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class RewardPair(Record):
    """Two replies to one conversation, the preferred one first.

    Example:
        RewardPair(id="hh-1f0c5577aa90d2e8", prompt=[{"role": "user", "content": "What is a pen?"}],
                   chosen="A tool to write with.", rejected="No.", group="hh-8e1f0c5577aa90d2")
    """

    id: str
    prompt: list[Message]
    """The conversation up to the reply."""
    chosen: str
    rejected: str
    group: str
    """The conversation: pairs that share it stay in one split and are resampled together."""

    @property
    def cluster(self) -> str:
        """The unit of resampling."""
        return self.group


class Pairs(Record):
    """Pairs, and counts of what was left out.

    Example:
        Pairs(pairs=(RewardPair(...), ...), read=600, repeated=0, unused=2)
    """

    pairs: tuple[RewardPair, ...]
    read: int
    """Rows of the source."""
    repeated: int
    """Rows that say the same as an earlier one."""
    unused: int
    """Rows that hold no pair: replies that are the same, conversations that differ before them or are none."""

    def __str__(self) -> str:
        """One line for the log."""
        return f"{len(self.pairs)} pairs from {self.read} rows; {self.repeated} repeated, {self.unused} unusable"


def turns(text: str) -> list[Message]:
    """Parse a conversation into messages.

    Example:
        >>> turns("\\n\\nHuman: Hot?\\n\\nAssistant: Yes.")
        [{"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "Yes."}]

    Raises:
        ValueError: it does not open with a human or does not end with the assistant.
    """
    # Splitting by a pattern with a group gives: text before, speaker, words, speaker, words, ...
    before, *parts = _TURN.split("\n\n" + text.strip())
    messages: list[Message] = []
    for speaker, words in zip(parts[::2], parts[1::2], strict=True):
        role = _ROLES[speaker]
        content = words.strip()
        if messages and messages[-1]["role"] == role:
            # Chat templates want roles in turn: what one said twice in a row is one message.
            content = f"{messages.pop()['content']}\n\n{content}".strip()
        messages.append({"role": role, "content": content})
    if before.strip() or not messages or messages[0]["role"] != "user" or messages[-1]["role"] != "assistant":
        raise ValueError("expected a conversation that opens with 'Human:' and ends with 'Assistant:'")
    return messages


def make_pair(row: Row, name: str = "hh") -> RewardPair | None:
    """Make the pair of a row.

    Args:
        row: fields by name; `chosen` and `rejected` are conversations.
        name: of the task; ids begin with it.

    Returns:
        None where the replies are the same or empty, or the conversations differ before them.

    Raises:
        ValueError: `chosen` or `rejected` is missing or is no conversation.
    """
    for field in ("chosen", "rejected"):
        if not isinstance(row.get(field), str):
            raise ValueError(f"no text field {field!r}")
    chosen = turns(row["chosen"])
    rejected = turns(row["rejected"])
    if chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
        return None
    if not all(message["content"] for message in (*chosen, rejected[-1])):
        return None
    prompt = chosen[:-1]
    return RewardPair(
        id=f"{name}-{digest([row['chosen'], row['rejected']])}",
        prompt=prompt,
        chosen=chosen[-1]["content"],
        rejected=rejected[-1]["content"],
        group=f"{name}-{digest(prompt)}",
    )


def load_pairs(
    task: str = "hh", path: str | Path | None = None, split: Split = "train", limit: int | None = None, seed: int = 0
) -> Pairs:
    """Read pairs from a local file, or from the hub.

    Args:
        task: where the rows are: hh, or the YAML file of a task with `chosen` and `rejected`.
        path: local file of rows; None takes the task's own source.
        split: which split of the hub; a local file is read whole.
        limit: largest number of pairs, drawn by seed.
        seed: of the draw.

    Raises:
        UserError: unknown task, a malformed file (file and line), an unreachable hub, or no pairs.
    """
    source = load_task(task)
    local = path or source.path
    rows = local_rows(local) if local is not None else hub_rows(source, split)
    pairs: dict[str, RewardPair] = {}
    read = repeated = unused = 0
    left_out = LeftOut(f"rows of {source.name}")
    for where, row in rows:
        read += 1
        try:
            pair = make_pair(row, source.name)
        except ValueError as error:
            # HH itself holds some conversations that do not end with the assistant: no reason to stop.
            unused += 1
            left_out.add(str(error), where)
            continue
        if pair is None:
            unused += 1
            left_out.add("both replies are the same or empty, or the conversations differ before them", where)
        elif pair.id in pairs:
            repeated += 1
        else:
            pairs[pair.id] = pair
    left_out.say(len(pairs))
    if not pairs:
        place = str(local or source.hub)
        raise UserError(f"no pairs of {source.name} in {place}: {read} rows, {unused} of them unusable")
    drawn = sample(list(pairs.values()), limit, seed)
    return Pairs(pairs=tuple(drawn), read=read, repeated=repeated, unused=unused)
