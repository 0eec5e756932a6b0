"""Pairs of replies for reward modelling (a Bradley-Terry head), from conversations in the format of Anthropic HH.

A row holds two conversations that differ in the last reply: `chosen` is the one that people preferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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

    def conversational(self) -> dict[str, list[Message]]:
        """The row as TRL's RewardTrainer takes it: prompt, chosen and rejected, each a list of messages."""
        return {
            "prompt": self.prompt,
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
        }


class Pairs(Record):
    """Pairs with an account of what was left out.

    Example:
        Pairs(pairs=(RewardPair(...), ...), read=600, repeated=0, unused=2)
    """

    pairs: tuple[RewardPair, ...]
    read: int
    repeated: int
    """Rows that say the same as an earlier one."""
    unused: int
    """Rows that hold no pair: replies that are the same, conversations that differ before them or are none."""

    def __str__(self) -> str:
        """One line for the log."""
        return f"{len(self.pairs)} pairs from {self.read} rows; {self.repeated} repeated, {self.unused} unusable"


def turns(text: str) -> list[Message]:
    """The messages of a conversation.

    Example:
        >>> turns("\\n\\nHuman: Hot?\\n\\nAssistant: Yes.")
        [{"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "Yes."}]

    Raises:
        ValueError: it does not open with a human or does not end with the assistant.
    """
    parts = _TURN.split("\n\n" + text.strip())
    found: list[Message] = []
    for who, said in zip(parts[1::2], parts[2::2], strict=True):
        if found and found[-1]["role"] == _ROLES[who]:
            # Chat templates want roles in turn: what one said twice in a row is one message.
            found[-1] = {"role": _ROLES[who], "content": f"{found[-1]['content']}\n\n{said.strip()}".strip()}
        else:
            found.append({"role": _ROLES[who], "content": said.strip()})
    if parts[0].strip() or not found or found[0]["role"] != "user" or found[-1]["role"] != "assistant":
        raise ValueError("expected a conversation that opens with 'Human:' and ends with 'Assistant:'")
    return found


def make_pair(row: Row, name: str = "hh") -> RewardPair | None:
    """Make the pair of a row; None where the replies are the same or the conversations differ before them.

    Raises:
        ValueError: `chosen` or `rejected` is missing or is no conversation.
    """
    for field in ("chosen", "rejected"):
        if not isinstance(row.get(field), str):
            raise ValueError(f"no text field {field!r}")
    chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
    if chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
        return None
    if not all(message["content"] for message in (*chosen, rejected[-1])):
        return None
    prompt = chosen[:-1]
    return RewardPair(
        id=f"{name}-{digest([row['chosen'], row['rejected']])}", prompt=prompt, chosen=chosen[-1]["content"],
        rejected=rejected[-1]["content"], group=f"{name}-{digest(prompt)}",
    )  # fmt: skip


def load_pairs(
    task: str = "hh", path: str | Path | None = None, split: Split = "train", limit: int | None = None, seed: int = 0
) -> Pairs:
    """Read pairs from a local file, or from the hub.

    Args:
        task: where the rows are: hh, or the YAML file of a task with `chosen` and `rejected`.
        path: local file of rows; None takes the task's own source.
        split: which split of the hub; a local file is read whole.
        limit: at most so many, drawn by seed.
        seed: of the draw.

    Raises:
        UserError: unknown task, a malformed row (file, line and field), an unreachable hub, or no pairs.
    """
    source = load_task(task)
    local = path or source.path
    rows = local_rows(local) if local is not None else hub_rows(source, split)
    return _collect(rows, source.name, str(local or source.hub), limit, seed)


def _collect(rows: Iterable[tuple[str, Row]], name: str, place: str, limit: int | None, seed: int) -> Pairs:
    pairs: dict[str, RewardPair] = {}
    read = repeated = unused = 0
    left_out = LeftOut(f"rows of {name}")
    for where, row in rows:
        read += 1
        try:
            pair = make_pair(row, name)
        except ValueError as error:
            unused += 1
            left_out.add(str(error), where)
            continue
        if pair is None:
            unused += 1
            left_out.add("both replies are the same or empty, or the conversations differ before them", where)
        repeated += pair is not None and pair.id in pairs
        if pair is not None:
            pairs.setdefault(pair.id, pair)
    left_out.say(len(pairs))
    if not pairs:
        raise UserError(f"no pairs of {name} in {place}: {read} rows, {unused} of them unusable")
    return Pairs(pairs=tuple(sample(list(pairs.values()), limit, seed)), read=read, repeated=repeated, unused=unused)
