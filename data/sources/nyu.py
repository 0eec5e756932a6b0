"""Human debates of Michael et al. 2023 (arXiv 2311.08702): questions, speeches and recorded judgements.

Read from the original room files of the web app (`nyu_rooms`) or from JSON lines (one debate a line, quotes as <quote>
tags, stories in a file beside it). Both give the same records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, model_validator

from debate_rl.data.left_out import LeftOut, question_fault
from debate_rl.data.sources.nyu_rooms import read_room
from debate_rl.data.splits import parts, sample, split_part
from debate_rl.data.stories import Story
from debate_rl.errors import UserError, existing
from debate_rl.game.protocol import SIDES, Protocol, Side, load_protocol
from debate_rl.game.question import Question, Split
from debate_rl.game.transcript import Origin, Transcript, read_speech
from debate_rl.records import Record, digest, explain, lines, read_json

DOWNLOAD = (
    "clone https://github.com/julianmichael/debate (branch 2023-nyu-experiments) and give its folder pub, "
    "or give a debates.jsonl with stories.jsonl beside it"
)
Condition = Literal["human debate", "human consultancy", "GPT-4 debate", "GPT-4 consultancy"]
CONDITIONS: tuple[Condition, ...] = ("human debate", "human consultancy", "GPT-4 debate", "GPT-4 consultancy")


class Said(Record):
    """One speech as recorded.

    Example:
        Said(side="A", turn=0, speaker="Debater 3", text="It was moved: <quote>moved to the shed</quote>")
    """

    side: Side
    turn: int
    """Turn of the game, counted from 0; the two speeches of a simultaneous round share one."""
    speaker: str
    """The participant's pseudonym, or GPT-4."""
    text: str


class Judgement(Record):
    """What a human judge believed at one moment.

    Example:
        Judgement(judge="Judge 2", mode="live", turns=1, probabilities=(0.3, 0.7), text="B's quote helps", final=False)
    """

    judge: str
    mode: Literal["live", "stepped", "timed"]
    """`live` judges asked questions and ended the game; offline ones read it later, round by round or all at once."""
    turns: int
    """Turns of the game that the judge had read."""
    probabilities: tuple[float, float]
    """Probability that the answer of side A, and of side B, is correct."""
    text: str = ""
    final: bool


class Session(Record):
    """One recorded game.

    Example:
        Session(room="the-shed-0", condition="human debate", question=Question(...), order=(("A", "B"), ("A",), ("B",)),
                said=(Said(...), ...), judgements=(Judgement(...), ...), finished=True, in_paper=True)
    """

    room: str
    title: str = ""
    """Title of the story."""
    condition: Condition
    question: Question
    """The question with the answers as debated: side A argued the first."""
    order: tuple[tuple[Side, ...], ...]
    """Who spoke in each turn."""
    said: tuple[Said, ...]
    """Speeches in their order."""
    judgements: tuple[Judgement, ...]
    """The live judge's in their order, then those of each offline judge."""
    finished: bool
    """The game was played to its end."""
    in_paper: bool | None = None
    """The authors analysed it; None where the metadata file is absent."""

    @property
    def verdict(self) -> Judgement | None:
        """The live judge's final judgement, if there was one."""
        return next((j for j in self.judgements if j.mode == "live" and j.final), None)

    @property
    def continues(self) -> int:
        """How often the live judge asked for another round: the turns that the paper's reward charges for."""
        return sum(j.mode == "live" and not j.final for j in self.judgements)


class _Judged(BaseModel):
    """A judgement of an offline judge."""

    probabilities: tuple[float, float]
    text: str = ""
    endDebate: bool = False


class _Offline(BaseModel):
    """All judgements of one offline judge."""

    judge: str
    mode: Literal["stepped", "timed"]
    judgments: list[_Judged] = []


class _Turn(BaseModel):
    """A debater's speech, a live judge's feedback, or a vote to end."""

    role: Literal["Debater", "Judge", "NegotiateEnd"]
    speaker: str = ""
    index: Literal[0, 1] | None = None
    """Side of a debater: 0 is A."""
    text: str = ""
    probabilities: tuple[float, float] | None = None
    round: Literal["SimultaneousSpeeches", "SequentialSpeeches"] | None = None
    endDebate: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> _Turn:
        if self.role == "Debater" and (self.index is None or self.round is None):
            raise ValueError("a debater's turn needs 'index' and 'round'")
        if self.role == "Judge" and self.probabilities is None:
            raise ValueError("a judge's turn needs 'probabilities'")
        if self.probabilities and (min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1) > 1e-3):
            raise ValueError(f"probabilities {self.probabilities} are not two shares of 1")
        return self


class _Line(BaseModel):
    """One line of debates.jsonl; a room file is brought into this form."""

    roomName: str
    storyId: str
    storyTitle: str = ""
    question: str
    answers: tuple[str, str]
    correctAnswerIndex: Literal[0, 1]
    roles: dict[str, str]
    status: str = ""
    includedInPaper: bool | None = None
    turns: list[_Turn]
    offlineJudgments: list[_Offline] = []


def _question_id(story: str, text: str, answers: Iterable[str]) -> str:
    """Name a question by its content; the same whichever side argued which answer."""
    return f"nyu-{story}-{digest([text.strip(), sorted(answer.strip() for answer in answers)])[:8]}"


def _condition(roles: dict[str, str]) -> Condition:
    """Who debated, and whether against someone."""
    debaters = [name for role, name in roles.items() if role.startswith("Debater")]
    against = len(debaters) == 2
    if "GPT-4" in debaters:
        return "GPT-4 debate" if against else "GPT-4 consultancy"
    return "human debate" if against else "human consultancy"


def _rounds(turns: Sequence[_Turn]) -> tuple[list[list[_Turn]], list[tuple[_Turn, int]]]:
    """Group speeches into rounds.

    A round ends where its kind changes, where a side speaks again, or where the judge or a vote comes between.

    Returns:
        The speeches of each round, and each live judgement with the number of rounds before it.
    """
    rounds: list[list[_Turn]] = []
    judgements: list[tuple[_Turn, int]] = []
    is_open = False
    for turn in turns:
        if turn.role != "Debater":
            is_open = False
            if turn.role == "Judge":
                judgements.append((turn, len(rounds)))
            continue
        if is_open and rounds[-1][0].round == turn.round and all(t.index != turn.index for t in rounds[-1]):
            rounds[-1].append(turn)
        else:
            rounds.append([turn])
        is_open = True
    return rounds, judgements


def _session(line: _Line, passage: str | None) -> Session:
    """Make the record of one line: speeches numbered by turn, judgements by the turns they had seen."""
    rounds, live_judgements = _rounds(line.turns)
    condition = _condition(line.roles)
    order: list[tuple[Side, ...]] = []
    speeches: list[Said] = []
    # Turns before each round, and after the last: a judge who had seen n rounds had read ends[n] turns.
    ends = [0]
    for round_ in rounds:
        together = round_[0].round == "SimultaneousSpeeches"
        # Both sides of a debate share the turn, even where one of them is missing; a consultant has it alone.
        if together:
            order.append(SIDES if condition.endswith("debate") else (SIDES[round_[0].index or 0],))
        for turn in round_:
            side = SIDES[turn.index or 0]
            if not together:
                order.append((side,))
            speeches.append(Said(side=side, turn=len(order) - 1, speaker=turn.speaker, text=turn.text))
        ends.append(len(order))
    judgements = [_live_judgement(turn, ends[seen]) for turn, seen in live_judgements]
    for offline in line.offlineJudgments:
        judgements.extend(_offline_judgements(offline, ends))
    question = Question(
        id=_question_id(line.storyId, line.question, line.answers),
        text=line.question.strip(),
        answers=(line.answers[0].strip(), line.answers[1].strip()),
        correct=line.correctAnswerIndex,
        passage=passage,
        group=line.storyId,
        source="nyu",
    )
    return Session(
        room=line.roomName,
        title=line.storyTitle,
        condition=condition,
        question=question,
        order=tuple(order),
        said=tuple(speeches),
        judgements=tuple(judgements),
        finished=line.status == "Complete",
        in_paper=line.includedInPaper,
    )


def _live_judgement(turn: _Turn, turns_read: int) -> Judgement:
    """The record of a live judge's feedback."""
    return Judgement(
        judge=turn.speaker,
        mode="live",
        turns=turns_read,
        probabilities=turn.probabilities or (0.5, 0.5),  # never missing for a judge: `_Turn` checks it
        text=turn.text,
        final=turn.endDebate,
    )


def _offline_judgements(offline: _Offline, ends: Sequence[int]) -> Iterator[Judgement]:
    """The records of an offline judge: `stepped` before the first round and after each, `timed` at the end."""
    last = len(ends) - 1
    for step, judged in enumerate(offline.judgments):
        # Whoever judges again after the last round has read nothing more.
        seen = min(step, last) if offline.mode == "stepped" else last
        yield Judgement(
            judge=offline.judge,
            mode=offline.mode,
            turns=ends[seen],
            probabilities=judged.probabilities,
            text=judged.text,
            final=judged.endDebate,
        )


def _parse_line(value: Any, where: str) -> _Line:
    """Check one debate.

    Raises:
        UserError: names where it stands and the field.
    """
    try:
        return _Line.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def _stories_by_id(path: Path) -> dict[str, str]:
    """Read a stories.jsonl; no stories if the file is absent.

    Raises:
        UserError: a line lacks its id or its text.
    """
    texts: dict[str, str] = {}
    if not path.exists():
        return texts
    for number, value in lines(path):
        if not isinstance(value.get("storyId"), str) or not isinstance(value.get("story"), str):
            raise UserError(f"{path}:{number}: a story needs the texts 'storyId' and 'story'")
        texts[value["storyId"]] = value["story"]
    return texts


def _sessions_of_lines(path: Path) -> Iterator[Session]:
    """Sessions of a debates.jsonl, with the stories beside it."""
    passages = _stories_by_id(path.with_name("stories.jsonl"))
    for number, value in lines(path):
        line = _parse_line(value, f"{path}:{number}")
        yield _session(line, passages.get(line.storyId))


def _rooms_in_paper(folder: Path) -> dict[str, bool]:
    """Which rooms the authors analysed: debates-metadata.jsonl in the folder of the rooms or up to two above it."""
    for above in (folder, *folder.absolute().parents[:2]):
        if (above / "debates-metadata.jsonl").is_file():
            rows = [row for _, row in lines(above / "debates-metadata.jsonl")]
        elif (above / "debates-metadata.json").is_file():
            rows = read_json(above / "debates-metadata.json")
        else:
            continue
        return {row["name"]: bool(row["includedInPaper"]) for row in rows if "name" in row and "includedInPaper" in row}
    return {}


def _sessions_of_rooms(files: Sequence[Path]) -> Iterator[Session]:
    """Sessions of room files, with what the authors' metadata says of them."""
    in_paper = _rooms_in_paper(files[0].parent)
    for file in files:
        value, story = read_room(file)
        line = _parse_line({**value, "includedInPaper": in_paper.get(file.stem)}, str(file))
        yield _session(line, story)


def sessions(path: str | Path | None) -> list[Session]:
    """Read recorded games, in the order of the file, or of the file names.

    Quotes are not checked here (`transcript` does), so this takes little longer than parsing JSON.

    Args:
        path: a debates.jsonl or its folder, a room file, a folder of room files, or the authors' folder `pub`.

    Raises:
        UserError: no path (says where to download), nothing readable there, or a malformed file (file, line and field).
    """
    if path is None:
        raise UserError(f"source nyu needs a path: {DOWNLOAD}")
    path = existing(path, "NYU debates", DOWNLOAD)
    if path.is_dir() and (path / "debates.jsonl").is_file():
        path = path / "debates.jsonl"
    if path.suffix == ".jsonl":
        return list(_sessions_of_lines(path))
    if path.is_file():
        return list(_sessions_of_rooms([path]))
    for folder in (path / "pub/debates/official", path / "debates/official", path / "official", path):
        files = sorted(folder.glob("*.json"))
        if files:
            return list(_sessions_of_rooms(files))
    raise UserError(f"no debates in {path}: {DOWNLOAD}")


def stories(path: str | Path | None) -> list[Story]:
    """The debated stories, each once; their ids are QuALITY's article ids."""
    by_id: dict[str, Story] = {}
    for session in sessions(path):
        question = session.question
        by_id[question.group] = Story(id=question.group, title=session.title, text=question.passage or "")
    return list(by_id.values())


def _listed_questions(path: Path) -> Iterator[Question]:
    """Questions of a questions.jsonl: one line each with storyId, question, correct and distractor."""
    passages = _stories_by_id(path.with_name("stories.jsonl"))
    for number, value in lines(path):
        fields = [value.get(key) for key in ("storyId", "question", "correct", "distractor")]
        if not all(isinstance(field, str) and field for field in fields):
            raise UserError(f"{path}:{number}: needs the texts 'storyId', 'question', 'correct' and 'distractor'")
        story, text, right, wrong = (str(field) for field in fields)
        yield Question(
            id=_question_id(story, text, (right, wrong)),
            text=text.strip(),
            answers=(right.strip(), wrong.strip()),
            correct=0,
            passage=passages.get(story),
            group=story,
            source="nyu",
        )


def questions(
    path: str | Path | None, split: Split | None = None, limit: int | None = None, seed: int = 0
) -> list[Question]:
    """The distinct questions that were debated; the correct answer's side is a fair draw by seed and question.

    Args:
        path: as for `sessions`, or a questions.jsonl.
        split: a part of the stories (`splits.FRACTIONS`); always the same part, whatever the seed.
        limit: draw this many questions, by seed.
        seed: decides the sides and the draw.

    Raises:
        UserError: as `sessions`.
    """
    debated: Iterable[Question]
    if path is not None and Path(path).name == "questions.jsonl":
        debated = _listed_questions(Path(path))
    else:
        debated = (session.question for session in sessions(path))
    # One question was debated in several rooms, with either answer first.
    distinct = {question.id: question for question in debated}
    left_out = LeftOut("questions")
    drawn = []
    for question in distinct.values():
        fault = question_fault(question)
        if fault is None:
            drawn.append(_on_drawn_side(question, seed))
        else:
            left_out.add(fault, f"{path} {question.id}")
    left_out.say(len(drawn))
    if split is not None:
        drawn = split_part(drawn, split)
    return sample(drawn, limit, seed)


def _on_drawn_side(question: Question, seed: int) -> Question:
    """The question with its correct answer on a side drawn by seed and question."""
    # By a digest of the question, not by its place: the side stays when the list around it changes.
    correct = int(digest(["side", seed, question.id]), 16) % 2
    answers = question.answers if correct == question.correct else question.answers[::-1]
    return question.model_copy(update={"answers": answers, "correct": correct})


@cache
def _protocol(order: tuple[tuple[Side, ...], ...], alone: bool) -> Protocol:
    """The rules of a recorded game: its own order of turns."""
    return load_protocol("single" if alone else "debate", order=order, turns=len(order))


def transcript(session: Session) -> Transcript:
    """The game as a transcript, its quotes checked.

    Its players are called `human` or `GPT-4`, as in the condition; the origin of a speech names the speaker.
    The live judge's questions are not part of it (see `Session.judgements`).

    Raises:
        UserError: the story is missing.
    """
    if session.question.passage is None:
        raise UserError(f"{session.room}: no story {session.question.group!r}; put stories.jsonl beside debates.jsonl")
    player, game_kind = session.condition.rsplit(" ", 1)
    present = set[Side]().union(*session.order)
    game = Transcript(
        question=session.question,
        protocol=_protocol(session.order, game_kind == "consultancy"),
        players={side: player for side in SIDES if side in present},
        # The room's own: two games on one question must differ in something.
        seed=int(digest(session.room)[:8], 16),
    )
    model = "gpt-4" if player == "GPT-4" else None
    speeches = []
    for said in session.said:
        origin = Origin(player=said.speaker or player, model=model)
        speeches.append(read_speech(said.text, game, said.side, said.turn, origin))
    return game.add(speeches)


def games(
    path: str | Path | None, conditions: Iterable[Condition] = CONDITIONS, split: Split | None = None
) -> list[Session]:
    """Recorded games of the given conditions, whose questions name their split.

    Args:
        path: as for `sessions`.
        conditions: who debated, and whether against someone.
        split: only games on the stories of this part, the same stories as in `questions`; None takes all.
    """
    chosen_conditions = set(conditions)
    recorded = sessions(path)
    # The parts are cut over all games: a condition that is left out must not move a story into another part.
    part_of = parts(list({game.question.id: game.question for game in recorded}.values()))
    chosen = []
    for game in recorded:
        part = part_of[game.question.cluster]
        if game.condition in chosen_conditions and split in (None, part):
            question = game.question.model_copy(update={"split": part})
            chosen.append(game.model_copy(update={"question": question}))
    return chosen


def transcripts(
    path: str | Path | None, conditions: Iterable[Condition] = CONDITIONS, split: Split | None = None
) -> list[Transcript]:
    """Transcripts of the `games` that were played to their end; checking the quotes of all takes some seconds."""
    return [transcript(game) for game in games(path, conditions, split) if game.finished]
