"""Pairs of replies to a request, one of them better: files in the format of JudgeBench or RewardBench 2."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Literal

from debate_rl.errors import UserError, existing
from debate_rl.game.question import Question
from debate_rl.records import Record, digest, lines


class ReplyPair(Record):
    """Two replies to one request.

    Example:
        ReplyPair(id="310930bc", request="Write a sieve.", replies=("def f ...", "I can not."), better=0,
                  source="livecodebench", group="p7", response_model="gpt-4o-2024-05-13")
    """

    id: str
    request: str
    replies: tuple[str, str]
    """Reply A and reply B."""
    better: Literal[0, 1]
    source: str = ""
    group: str = ""
    """Request that the pair shares with others."""
    response_model: str = ""

    @property
    def label(self) -> Literal["A>B", "B>A"]:
        """The better reply as JudgeBench writes it."""
        return "A>B" if self.better == 0 else "B>A"

    @property
    def cluster(self) -> str:
        """The unit of resampling and of draws."""
        return self.group or self.id

    @property
    def question(self) -> Question:
        """The pair as a question with two answers, which every kind of judge can be asked."""
        return Question(
            id=self.id,
            text=self.request,
            answers=self.replies,
            correct=self.better,
            group=self.group,
            source=self.source,
        )


def read_pairs(path: str | Path) -> list[ReplyPair]:
    """Read pairs from JSON lines: a file, or a folder of them.

    JudgeBench (`data/*.jsonl`): pair_id, question, response_A, response_B, label `A>B` or `B>A`; source, original_id
    and response_model where they are there. RewardBench 2 (and 1): prompt, chosen and rejected, each a text or a list
    of texts; id and subset where they are there. Every chosen reply is paired with every rejected one.

    Raises:
        UserError: the path is missing, a line holds no pair (names file, line and field), an id is there twice, or
            there are none.
    """
    place = existing(path, "file of pairs")
    files = sorted(place.glob("*.jsonl")) if place.is_dir() else [place]
    pairs: dict[str, ReplyPair] = {}
    for file in files:
        for number, row in lines(file):
            try:
                read = _chosen_pairs(row) if "chosen" in row else [_judgebench_pair(row)]
            except ValueError as error:
                raise UserError(f"{file}:{number}: {error}") from error
            for pair in read:
                if pair.id in pairs:
                    raise UserError(f"{file}:{number}: pair {pair.id!r} is there twice; remove one")
                pairs[pair.id] = pair
    if not pairs:
        raise UserError(f"{path}: no pairs; give JSON lines in the format of JudgeBench or RewardBench 2")
    return list(pairs.values())


def _judgebench_pair(row: Mapping[str, Any]) -> ReplyPair:
    texts = [_text(row, name) for name in ("question", "response_A", "response_B")]
    label = row.get("label")
    if label not in ("A>B", "B>A"):
        raise ValueError(f"label is {label!r}; a pair of JudgeBench has A>B or B>A")
    return ReplyPair(
        id=str(row.get("pair_id") or digest([*texts, label])),
        request=texts[0],
        replies=(texts[1], texts[2]),
        better=0 if label == "A>B" else 1,
        source=str(row.get("source") or ""),
        group=str(row.get("original_id") or ""),
        response_model=str(row.get("response_model") or ""),
    )


def _chosen_pairs(row: Mapping[str, Any]) -> list[ReplyPair]:
    """Every chosen reply with every rejected one."""
    request = _text(row, "prompt")
    chosen, rejected = _texts(row, "chosen"), _texts(row, "rejected")
    name = str(row.get("id") or digest([request, chosen, rejected]))
    pairs = []
    for (good, right), (bad, wrong) in product(enumerate(chosen), enumerate(rejected)):
        # Which one is A is drawn by the text: a judge that is asked once must not learn that A is right.
        better: Literal[0, 1] = 1 if int(digest([request, right, wrong]), 16) % 2 else 0
        pair = ReplyPair(
            id=f"{name}-{good}-{bad}",
            request=request,
            replies=(wrong, right) if better else (right, wrong),
            better=better,
            source=str(row.get("subset") or ""),
            group=name,
        )
        pairs.append(pair)
    return pairs


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"no text in field {name!r}; a line has question, response_A, response_B and label (JudgeBench), or "
            "prompt, chosen and rejected (RewardBench 2)"
        )
    return value


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    """The texts of a field that holds one or a list of them."""
    value = row.get(name)
    texts: list[str] = []
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"field {name!r} holds no text and no list of texts")
        texts.append(text)
    if not texts:
        raise ValueError(f"field {name!r} is an empty list; a pair needs a reply of each kind")
    return texts
