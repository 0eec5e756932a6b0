"""Debates and consultancies between language models from Khan et al. 2024 (arXiv 2402.06782).

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
SPLITS: dict[str, Split] = {
    "train": "train",
    "dev": "validation",
    "val": "validation",
    "validation": "validation",
}
"""Our split for each name in the column `dataset_split`."""

_LONGEST_CELL = 1 << 26
"""Characters of a cell: a transcript holds every candidate of Best-of-N, more than csv's own limit."""
_ENDED = "Round ended so no comment made"
"""What stands in place of a speech when the context is full."""
# The column spells an experiment in several ways: "Experiment 2", "experiment_2", "2".
_BUG = re.compile(r"(?:experiment[ _]?)?(?:2|3|5_v0)", re.IGNORECASE)


class _Answers(BaseModel):
    correct: str
    incorrect: str


class _Round(BaseModel):
    """One round: what each side said, None where it was not asked."""

    correct: str | None = None
    incorrect: str | None = None
    judge: str | None = None
    type: Literal["sim", "seq"] | None = None

    @property
    def speeches(self) -> list[str]:
        """What was said in the round, empty speeches left out."""
        return [text for text in (self.correct, self.incorrect) if text]


class _Game(BaseModel):
    """The JSON object in the column `transcript`."""

    question: str
    answers: _Answers
    swap: bool
    """Whether side B has the correct answer."""
    rounds: list[_Round] = []
    question_set_id: str | None = None
    story: str | None = None
    story_title: str | None = None

    @property
    def speeches(self) -> list[str]:
        """What was said in all rounds, empty speeches left out."""
        speeches: list[str] = []
        for round_ in self.rounds:
            speeches += round_.speeches
        return speeches


def _tables(path: Path) -> Iterator[tuple[str, Any]]:
    """Open each CSV: the path itself, or every CSV of a zip; nothing is unpacked to disk.

    Yields:
        Name and open text.

    Raises:
        UserError: not a CSV, not a zip, or a zip without one.
    """
    # utf-8-sig: spreadsheets begin a file with a byte order mark, which would become part of the first column's name.
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield str(path), file
        return
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a .csv nor a zip of such; {DOWNLOAD}")
    with zipfile.ZipFile(path) as archive:
        # macOS adds a binary __MACOSX/._NAME.csv for every file that it packs.
        names = [
            name for name in archive.namelist() if name.lower().endswith(".csv") and not name.startswith("__MACOSX")
        ]
        if not names:
            raise UserError(f"{path} holds no .csv; {DOWNLOAD}")
        for name in names:
            with archive.open(name) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
                yield f"{path}/{name}", file


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of all tables.

    Yields:
        Where the row stands (file:row, the header being row 1) and its cells by column.

    Raises:
        UserError: the zip is damaged, a file is not UTF-8 or lacks the column `transcript`, or a row has not as many
            cells as the header.
    """
    csv.field_size_limit(_LONGEST_CELL)
    name = str(path)
    try:
        for name, file in _tables(path):
            reader = csv.DictReader(file)
            if "transcript" not in (reader.fieldnames or ()):
                raise UserError(f"{name}:1: no column 'transcript'; {DOWNLOAD}")
            for number, row in enumerate(reader, start=2):
                # DictReader files surplus cells under None, and fills missing ones with None.
                if None in row or None in row.values():
                    raise UserError(f"{name}:{number}: not as many cells as the header; restore or remove the row")
                yield f"{name}:{number}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: not a CSV in UTF-8 ({error}); {DOWNLOAD}") from error
    except (EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{name}: the zip is damaged ({error}); {DOWNLOAD}") from error


def _read_game(row: Mapping[str, str], where: str) -> _Game:
    """Read the game of a row; fields that its JSON lacks are taken from the other columns.

    Raises:
        UserError: the cell is not such a JSON object; names file, row and field.
    """
    try:
        value = json.loads(row["transcript"])
    except ValueError as error:
        raise UserError(f"{where}: transcript is not JSON; restore or remove the row") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: transcript is not a JSON object; restore or remove the row")
    # The authors' release and the CSV of an experiment put these into columns where the JSON has none.
    for field in ("question", "question_set_id", "story", "story_title", "swap"):
        if value.get(field) is None and row.get(field):
            value[field] = row[field]
    if value.get("answers") is None and {"correct answer", "negative answer"} <= set(row):
        value["answers"] = {"correct": row["correct answer"], "incorrect": row["negative answer"]}
    try:
        game = _Game.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: transcript.{explain(error)}; restore or remove the row") from error
    return game.model_copy(update={"rounds": [round_ for round_ in game.rounds if _was_played(round_)]})


def _was_played(round_: _Round) -> bool:
    """Whether somebody spoke in a round, and no full context ended it."""
    if not round_.speeches:
        return False
    return not any(text.startswith(_ENDED) for text in round_.speeches)


class _Library:
    """QuALITY's stories, found by set of questions or by title."""

    def __init__(self, stories: Mapping[str, Story]) -> None:
        self._by_set = stories
        self._by_title = {" ".join(words(story.title)): story for story in stories.values() if story.title}

    def find(self, game: _Game) -> Story | None:
        """The story of a game: its own text, else by its set of questions, else by title; None where there is none."""
        known = self._by_set.get(game.question_set_id or "")
        if known is None:
            # "?" is no title: without it a game without title would get the story whose title has no words.
            known = self._by_title.get(" ".join(words(game.story_title or "")) or "?")
        if not game.story:
            return known
        if known is not None:
            story_id = known.id
        else:
            # QuALITY names a set of questions ARTICLE_WRITER.
            story_id = (game.question_set_id or digest(game.story)).partition("_")[0]
        return Story(id=story_id, title=game.story_title or "", text=game.story)


@cache
def _protocol(order: tuple[tuple[Side, ...], ...], alone: bool) -> Protocol:
    """The rules of a recorded game: its own order of turns."""
    name = "sequential"
    if alone:
        name = "single"
    elif len(order[0]) > 1:
        name = "debate"
    return load_protocol(name, order=order, turns=len(order))


def _transcript(game: _Game, row: Mapping[str, str], story: Story) -> Transcript:
    """The game as a transcript. Side A has the correct answer unless `swap` is set, as the judges were shown it."""
    answers = (game.answers.correct.strip(), game.answers.incorrect.strip())
    if game.swap:
        answers = (answers[1], answers[0])
    text = game.question.strip()
    # Sorted: the question has one name whichever side argued which answer.
    identity = sorted([story.id, text, *answers])
    question = Question(
        id=f"khan-{story.id}-{digest(identity)[:8]}",
        text=text,
        answers=answers,
        correct=1 if game.swap else 0,
        passage=story.text,
        group=story.id,
        source="khan",
        split=SPLITS.get(row.get("dataset_split", "").lower()),
    )
    alone = _is_consultancy(game, row)
    order, speeches = _turns(game, alone)
    player = row.get("debater_config") or "language model"
    present = set[Side]().union(*order)
    opened = Transcript(
        question=question,
        protocol=_protocol(tuple(order), alone),
        # Two games on one question must differ in something.
        seed=int(digest([row.get("debate_id"), identity])[:8], 16),
        players={side: player for side in SIDES if side in present},
    )
    origin = Origin(player=player, model=row.get("debater_config") or None)
    return opened.add(read_speech(speech, opened, side, turn, origin) for side, turn, speech in speeches)


def _turns(game: _Game, alone: bool) -> tuple[list[tuple[Side, ...]], list[tuple[Side, int, str]]]:
    """The order of a game's turns, and its speeches as (side, turn, text).

    A simultaneous round of a debate is one turn of both sides, even where one of them said nothing: the transcript then
    shows a missing speech. In a sequential round side A speaks before side B.
    """
    sides: dict[str, Side] = {"correct": SIDES[game.swap], "incorrect": SIDES[not game.swap]}
    order: list[tuple[Side, ...]] = []
    speeches: list[tuple[Side, int, str]] = []
    for round_ in game.rounds:
        spoken: dict[Side, str] = {}
        for name, side in sides.items():
            text = getattr(round_, name)
            if text is not None:
                spoken[side] = text
        speakers = tuple(side for side in SIDES if side in spoken)
        turns: list[tuple[Side, ...]]
        if round_.type == "seq":
            turns = [(side,) for side in speakers]
        elif alone:
            turns = [speakers]
        else:
            turns = [SIDES]
        for turn in turns:
            speeches += [(side, len(order), spoken[side]) for side in turn if side in spoken]
            order.append(turn)
    return order, speeches


def _is_consultancy(game: _Game, row: Mapping[str, str]) -> bool:
    """Whether a game was a consultancy: the row says so, or one side never spoke."""
    # The CSV of an experiment does not say, so it is read off who spoke.
    if row.get("debate_method"):
        return row["debate_method"] == "consultancy"
    correct_spoke = any(round_.correct for round_ in game.rounds)
    incorrect_spoke = any(round_.incorrect for round_ in game.rounds)
    return not (correct_spoke and incorrect_spoke)


def _fault(game: _Game, row: Mapping[str, str]) -> str | None:
    """Key of `REASONS` for which the authors leave a game out of their analyses; None where they use it."""
    if row.get("debate_method") == "baseline" or not game.speeches:
        return "baseline"
    if game.swap and _BUG.fullmatch(row.get("experiment_name", "")):
        return "bug"
    if any("TRUNCATED" in text for text in game.speeches):
        return "cut"
    return None


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
    games: dict[str, Transcript] = {}
    left_out: Counter[str] = Counter()
    for where, row in _rows(existing(path, "Khan et al. debates", DOWNLOAD)):
        if row.get("complete", "").lower() == "false" or row["transcript"].startswith("Error occurred"):
            left_out["error"] += 1
            continue
        game = _read_game(row, where)
        rounds = [round_.model_dump() for round_ in game.rounds]
        # Rows are judgements: several people judged one game, whose content alone says that it is the same.
        name = digest([game.question, game.answers.model_dump(), game.swap, rounds])
        fault = "again" if name in games else _fault(game, row)
        story = library.find(game)
        if fault is not None:
            left_out[fault] += 1
        elif story is None:
            left_out["story"] += 1
        else:
            games[name] = _transcript(game, row, story)
    if not games and left_out["story"]:
        raise UserError(
            f"{path}: no story of its {left_out['story']} games was found; name QuALITY's folder as `stories`"
        )
    return list(games.values()), Counter({REASONS[reason]: count for reason, count in left_out.items()})
