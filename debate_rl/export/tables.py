"""The results of a run or study as plain tables: one list of rows a table, the same for every file format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from debate_rl.arena.ratings import Ratings
from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import JudgedDebate, Match
from debate_rl.records import read
from debate_rl.report.run_folder import RunFolder, Stage, load_run
from debate_rl.report.study_page import seed_runs, study_seeds
from debate_rl.trainers.common.rows import PreferenceRow

Row = dict[str, Any]
Tables = dict[str, list[Row]]
"""Rows by name of the table."""
LEG_FILES = (run_files.DEBATES, run_files.BASE_DEBATES, run_files.TEST_DEBATES, run_files.HUMAN_DEBATES)
"""Files of a stage that hold judged debates."""


class Part(NamedTuple):
    """A finished stage of a run.

    Example:
        Part(run="seed0", stage=Stage(name="tournament", kind="tournament", ...))
    """

    run: str
    """Name of the run's folder."""
    stage: Stage

    @property
    def labels(self) -> Row:
        """The first columns of every row."""
        return {"run": self.run, "stage": self.stage.name}

    def legs(self) -> Iterator[tuple[str, JudgedDebate]]:
        """Every judged debate with the name of its file."""
        for name in LEG_FILES:
            path = self.stage.folder / name
            if path.is_file():
                for leg in read(path, JudgedDebate):
                    yield name, leg


class Exported(NamedTuple):
    """What a run or study holds: its finished stages and the names of the others."""

    parts: list[Part]
    unfinished: list[str]


def finished_parts(folder: str | Path) -> Exported:
    """Find the finished stages of a run, or of every seed of a study.

    Raises:
        UserError: the folder is no run, or no stage of it is finished.
    """
    root = existing(folder, "run")
    folders = seed_runs(root) if study_seeds(root) else [root]
    parts: list[Part] = []
    unfinished: list[str] = []
    for path in folders:
        run: RunFolder = load_run(path)
        label = path.resolve().name
        parts += [Part(label, stage) for stage in run.stages]
        prefix = f"{label}/" if len(folders) > 1 else ""
        unfinished += [prefix + name for name in run.unfinished]
    if not parts:
        raise UserError(f"{folder} has no finished stage to export; run it first: debate-rl run CONFIG")
    return Exported(parts, unfinished)


def result_tables(parts: Iterable[Part]) -> Tables:
    """Make the tables `ratings`, `matches`, `verdicts`, `debates` and `questions`; a table may be empty.

    A debate that several files hold, judged by several judges, is one row of `debates` and several of `verdicts`.
    """
    tables: Tables = {"ratings": [], "matches": [], "verdicts": [], "debates": [], "questions": []}
    debates: set[tuple[str, str]] = set()
    questions: set[str] = set()
    for part in parts:
        tables["ratings"] += _rating_rows(part)
        own_games: list[JudgedDebate] = []
        for file, leg in part.legs():
            game = leg.transcript
            tables["verdicts"].append(_verdict_row(part, file, leg))
            if (part.run, game.id) not in debates:
                debates.add((part.run, game.id))
                tables["debates"].append(part.labels | debate_row(game))
            if game.question.id not in questions:
                questions.add(game.question.id)
                tables["questions"].append(_question_row(game))
            if file == run_files.DEBATES:
                own_games.append(leg)
        tables["matches"] += _match_rows(part, own_games)
    return tables


def preference_rows(parts: Iterable[Part]) -> list[Row]:
    """The rows that debaters were trained on: chosen and rejected speeches with the judge's probabilities."""
    rows: list[Row] = []
    for part in parts:
        folder = part.stage.folder
        paths = [folder / "rows.jsonl"] if part.stage.kind == "preferences" else []
        if part.stage.kind == "iterations":
            # By number, not by name: iteration10 comes after iteration9.
            paths = sorted(folder.glob("iteration*/preferences/rows.jsonl"), key=lambda path: (len(str(path)), path))
        for path in paths:
            if path.is_file():
                rows += [part.labels | row.model_dump(mode="json") for row in read(path, PreferenceRow)]
    return rows


def debate_row(game: Transcript) -> Row:
    """One debate; its speeches are a list of plain values."""
    row: Row = {
        "game": game.id,
        "question_id": game.question.id,
        "story": game.question.cluster,
        "question": game.question.text,
        "answer_a": game.question.answers[0],
        "answer_b": game.question.answers[1],
        "correct": correct_side(game),
        "protocol": game.protocol.name,
        "player_a": game.players.get("A"),
        "player_b": game.players.get("B"),
        "seed": game.seed,
        "complete": game.complete,
        "speeches": [_speech(game, speech) for speech in game.speeches],
    }
    # Only where there may be some: tables of other protocols have no such column.
    if game.protocol.judge_questions:
        row["judge_questions"] = [
            {"turn": question.turn, "judge": question.origin.player, "text": question.text} for question in game.asked
        ]
    return row


def correct_side(game: Transcript) -> str | None:
    """A or B; None where the answer is unknown."""
    correct = game.question.correct
    return None if correct is None else "AB"[correct]


def _speech(game: Transcript, speech: Speech) -> Row:
    """One speech with the number of its quotes of each kind."""
    verdicts = [quote.verdict for quote in speech.quotes]
    return {
        "turn": speech.turn,
        "side": speech.side,
        "player": game.players.get(speech.side),
        "text": speech.text,
        "quotes_exact": verdicts.count("exact"),
        "quotes_near": verdicts.count("near"),
        "quotes_invalid": verdicts.count("invalid"),
    }


def _question_row(game: Transcript) -> Row:
    question = game.question
    return {
        "question_id": question.id,
        "story": question.cluster,
        "question": question.text,
        "answer_a": question.answers[0],
        "answer_b": question.answers[1],
        "correct": correct_side(game),
        "source": question.source,
        "split": question.split,
        "passage": question.passage,
    }


def _rating_rows(part: Part) -> list[Row]:
    """The rating table of a stage that has one."""
    if not part.stage.metrics.get("ratings"):
        return []
    ratings = Ratings.model_validate(part.stage.metrics["ratings"])
    return [part.labels | row for row in ratings.rows()]


def _verdict_row(part: Part, file: str, leg: JudgedDebate) -> Row:
    game, verdict, failure = leg.transcript, leg.verdict, leg.failure
    p_correct = leg.p_correct
    # One half favours nobody, so it is neither right nor wrong.
    right = None if p_correct is None or p_correct == 0.5 else p_correct > 0.5
    return part.labels | {
        "file": file,
        "game": game.id,
        "question_id": game.question.id,
        "story": game.question.cluster,
        "protocol": game.protocol.name,
        "player_a": game.players.get("A"),
        "player_b": game.players.get("B"),
        "judge": None if verdict is None else verdict.judge,
        "judge_revision": None if verdict is None else verdict.revision,
        "p_a": None if verdict is None else verdict.p[0],
        "p_b": None if verdict is None else verdict.p[1],
        "correct": correct_side(game),
        "p_correct": p_correct,
        "right": right,
        "failure": None if failure is None else failure.kind,
        "failure_message": None if failure is None else failure.message,
    }


def _match_rows(part: Part, legs: Iterable[JudgedDebate]) -> list[Row]:
    """Matches of two players: the two games of a pair on one question, sides swapped."""
    rows: list[Row] = []
    waiting: dict[tuple[str, ...], JudgedDebate] = {}
    for leg in legs:
        game = leg.transcript
        players = sorted(set(game.players.values()))
        if len(players) != 2:
            continue
        key = (game.question.id, game.protocol.name, *players)
        first = waiting.pop(key, None)
        if first is None:
            waiting[key] = leg
            continue
        match = Match(legs=(first, leg))
        p_first = match.probability(players[0])
        rows.append(
            part.labels
            | {
                "question_id": game.question.id,
                "story": game.question.cluster,
                "protocol": game.protocol.name,
                "first": players[0],
                "second": players[1],
                "p_first": p_first,
                "winner": match.winner,
                "outcome": _outcome(p_first, match.winner),
                "game_1": first.transcript.id,
                "game_2": game.id,
            }
        )
    return rows


def _outcome(p_first: float | None, winner: str | None) -> str:
    """How a match ended; a failed game leaves it without a winner, which is no tie."""
    if p_first is None:
        return "unfinished"
    return "tied" if winner is None else "won"
