"""The debates and consultancies between language models of Khan et al. 2024 (arXiv 2402.06782).

Read from the authors' zip of CSV files (github ucl-dark/llm_debate, data/llm_debate_dataset.zip; its columns are
described in data/dataset_readme.md beside it), from one such CSV, or from the CSV that their code writes for an
experiment (columns `id`, `question`, `correct answer`, `negative answer`, `transcript`, `complete`). The column
`transcript` is a JSON object: question, answers, names, `swap`, and rounds with the words of the `correct` and the
`incorrect` side, which spoke at once (type `sim`) or one after the other (`seq`).

The release leaves the stories out. They are QuALITY's, and are found there by `question_set_id` or by title.
What the authors leave out of their own analyses is left out and counted: see `REASONS`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from debate_rl.data.stories import Story, words
from debate_rl.errors import UserError, existing
from debate_rl.game.protocol import SIDES, Protocol, Side, load_protocol
from debate_rl.game.question import Question, Split
from debate_rl.game.transcript import Origin, Transcript, read_speech
from debate_rl.records import digest, explain

DOWNLOAD = "download data/llm_debate_dataset.zip from https://github.com/ucl-dark/llm_debate and give it as path"
REASONS = {
    "again": "the same game, judged by another person",
    "baseline": "no speeches (a baseline without debate)",
    "error": "not played to its end",
    "bug": "the worst speech was chosen by mistake (experiments 2, 3 and 5_v0, swapped)",
    "cut": "a speech was cut at the word limit",
    "story": "its story was not found",
}
"""Why a row is left out."""

_CELL = 1 << 26
"""Characters of a cell: a transcript holds every candidate of Best-of-N, more than csv's own limit."""
_ENDED = "Round ended so no comment made"
_BUG = re.compile(r"(?:experiment[ _]?)?(?:2|3|5_v0)", re.IGNORECASE)


class _Answers(BaseModel):
    correct: str
    incorrect: str


class _Round(BaseModel):
    correct: str | None = None
    incorrect: str | None = None
    judge: str | None = None
    type: Literal["sim", "seq"] | None = None


class _Game(BaseModel):
    """The JSON object of a row."""

    question: str
    answers: _Answers
    swap: bool
    rounds: list[_Round] = []
    question_set_id: str | None = None
    story: str | None = None
    story_title: str | None = None


def _tables(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and open text of each CSV: the path itself, or every CSV of a zip; nothing is unpacked to disk.

    Raises:
        UserError: not a CSV, not a zip, or a zip without one.
    """
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield str(path), file
        return
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a .csv nor a zip of such; {DOWNLOAD}")
    with zipfile.ZipFile(path) as archive:
        names = [
            name for name in archive.namelist() if name.lower().endswith(".csv") and not name.startswith("__MACOSX")
        ]
        if not names:
            raise UserError(f"{path} holds no .csv; {DOWNLOAD}")
        for name in names:
            with archive.open(name) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
                yield f"{path}/{name}", file


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where each row stands (file:row, the header being row 1) and its cells.

    Raises:
        UserError: the zip is damaged, a file is not UTF-8 or lacks the column `transcript`, or a row has not as many
            cells as the header.
    """
    csv.field_size_limit(_CELL)
    name = str(path)
    try:
        for name, file in _tables(path):
            reader = csv.DictReader(file)
            if "transcript" not in (reader.fieldnames or ()):
                raise UserError(f"{name}:1: no column 'transcript'; {DOWNLOAD}")
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise UserError(f"{name}:{number}: not as many cells as the header; restore or remove the row")
                yield f"{name}:{number}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: not a CSV in UTF-8 ({error}); {DOWNLOAD}") from error
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{name}: the zip is damaged ({error}); {DOWNLOAD}") from error


def _game(row: Mapping[str, str], where: str) -> _Game:
    """The game of a row; what its JSON lacks is taken from the other columns.

    Raises:
        UserError: the cell is not such a JSON object; names file, row and field.
    """
    try:
        value = json.loads(row["transcript"])
    except ValueError as error:
        raise UserError(f"{where}: transcript is not JSON; restore or remove the row") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: transcript is not a JSON object; restore or remove the row")
    for field in ("question", "question_set_id", "story", "story_title", "swap"):
        if value.get(field) is None and row.get(field):
            value[field] = row[field]
    if value.get("answers") is None and {"correct answer", "negative answer"} <= set(row):
        value["answers"] = {"correct": row["correct answer"], "incorrect": row["negative answer"]}
    try:
        return _Game.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: transcript.{explain(error)}; restore or remove the row") from error


class _Library:
    """Stories by QuALITY's set of questions and by title."""

    def __init__(self, stories: Mapping[str, Story]) -> None:
        self._sets = stories
        self._titles = {" ".join(words(story.title)): story for story in stories.values() if story.title}

    def find(self, game: _Game) -> Story | None:
        """The story of a game: its own text, else by its set of questions, else by title; None where there is none."""
        known = self._sets.get(game.question_set_id or "")
        if known is None:
            known = self._titles.get(" ".join(words(game.story_title or "")) or "?")
        if game.story:
            # QuALITY names a set of questions ARTICLE_WRITER.
            name = known.id if known else (game.question_set_id or digest(game.story)).partition("_")[0]
            return Story(id=name, title=game.story_title or "", text=game.story)
        return known


@cache
def _protocol(order: tuple[tuple[Side, ...], ...], alone: bool) -> Protocol:
    """The rules of a recorded game: its own order of turns."""
    return load_protocol("single" if alone else "debate" if len(order[0]) > 1 else "sequential",
                         order=order, turns=len(order))  # fmt: skip


def _transcript(game: _Game, row: Mapping[str, str], story: Story) -> Transcript:
    """The game as a transcript. Side A has the correct answer unless `swap` is set, as the judges were shown it."""
    sides: dict[str, Side] = {"correct": SIDES[game.swap], "incorrect": SIDES[not game.swap]}
    split: dict[str, Split] = {"train": "train", "dev": "validation", "val": "validation", "validation": "validation"}
    answers = game.answers.correct.strip(), game.answers.incorrect.strip()
    answers = answers[::-1] if game.swap else answers
    names = sorted([story.id, game.question.strip(), *answers])
    question = Question(
        id=f"khan-{story.id}-{digest(names)[:8]}", text=game.question.strip(), answers=answers,
        correct=1 if game.swap else 0, passage=story.text, group=story.id, source="khan",
        split=split.get(row.get("dataset_split", "").lower()),
    )  # fmt: skip
    said: list[tuple[Side, int, str]] = []
    order: list[tuple[Side, ...]] = []
    alone = _alone(game, row)
    for round_ in game.rounds:
        spoken = {side: text for name, side in sides.items() if (text := getattr(round_, name)) is not None}
        together: list[tuple[Side, ...]] = [(side,) for side in SIDES if side in spoken]
        if round_.type != "seq":
            together = [tuple(side for side in SIDES if side in spoken)] if alone else [SIDES]
        for speakers in together:
            said += [(side, len(order), spoken[side]) for side in speakers if side in spoken]
            order.append(speakers)
    player = row.get("debater_config") or "language model"
    present: set[Side] = {side for turn in order for side in turn}
    opened = Transcript(
        question=question,
        protocol=_protocol(tuple(order), alone),
        seed=int(digest([row.get("debate_id"), names])[:8], 16),
        players={side: player for side in SIDES if side in present},
    )
    origin = Origin(player=player, model=row.get("debater_config") or None)
    return opened.add(read_speech(text, opened, side, turn, origin) for side, turn, text in said)


def _alone(game: _Game, row: Mapping[str, str]) -> bool:
    """Whether it was a consultancy: so says the row, else one side never spoke."""
    if row.get("debate_method"):
        return row["debate_method"] == "consultancy"
    return not any(r.correct for r in game.rounds) or not any(r.incorrect for r in game.rounds)


def _reason(game: _Game, row: Mapping[str, str]) -> str | None:
    """Why a game is left out, None where it is not."""
    spoken = [text for round_ in game.rounds for text in (round_.correct, round_.incorrect) if text]
    if row.get("debate_method") == "baseline" or not spoken:
        return "baseline"
    if game.swap and _BUG.fullmatch(row.get("experiment_name", "")):
        return "bug"
    return "cut" if any("TRUNCATED" in text for text in spoken) else None


def _played(game: _Game) -> _Game:
    """The game without the rounds that a full context ended, and without those in which nobody spoke."""
    spoken = [(round_, [text for text in (round_.correct, round_.incorrect) if text]) for round_ in game.rounds]
    rounds = [r for r, texts in spoken if texts and not any(text.startswith(_ENDED) for text in texts)]
    return game.model_copy(update={"rounds": rounds})


def transcripts(path: str | Path | None, stories: Mapping[str, Story]) -> tuple[list[Transcript], Counter[str]]:
    """Read games, each once however many people judged it.

    Args:
        path: the authors' zip, or a CSV.
        stories: QuALITY's stories by `set_unique_id` (`quality.stories`).

    Returns:
        Transcripts, and how many rows were left out for which of `REASONS`.

    Raises:
        UserError: no path (says where to download), a malformed row (file, row and field), or no story was found.
    """
    if path is None:
        raise UserError(f"transcripts 'khan' need a path: {DOWNLOAD}")
    library = _Library(stories)
    found: dict[str, Transcript] = {}
    left_out: Counter[str] = Counter()
    for where, row in _rows(existing(path, "Khan et al. debates", DOWNLOAD)):
        if row.get("complete", "").lower() == "false" or row["transcript"].startswith("Error occurred"):
            left_out["error"] += 1
            continue
        game = _played(_game(row, where))
        name = digest([game.question, game.answers.model_dump(), game.swap, [r.model_dump() for r in game.rounds]])
        story = library.find(game)
        reason = "again" if name in found else _reason(game, row) or ("story" if story is None else None)
        if reason or story is None:
            left_out[reason or "story"] += 1
        else:
            found[name] = _transcript(game, row, story)
    if not found and left_out["story"]:
        raise UserError(
            f"{path}: no story of its {left_out['story']} games was found; name QuALITY's folder as `stories`"
        )
    return list(found.values()), Counter({REASONS[reason]: count for reason, count in left_out.items()})
