"""The human debates of Michael et al. 2023 (arXiv 2311.08702): questions, speeches and recorded judgements.

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
    """Of the story."""
    condition: Condition
    question: Question
    """With the answers as debated: side A argued the first."""
    order: tuple[tuple[Side, ...], ...]
    """Who spoke in each turn."""
    said: tuple[Said, ...]
    judgements: tuple[Judgement, ...]
    """Live ones in their order, then those of each offline judge."""
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
    text: str = ""
    probabilities: tuple[float, float] | None = None
    round: Literal["SimultaneousSpeeches", "SequentialSpeeches"] | None = None
    endDebate: bool = False

    @model_validator(mode="after")
    def _has_its_part(self) -> _Turn:
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
    who = "GPT-4" if "GPT-4" in debaters else "human"
    return f"{who} debate" if len(debaters) == 2 else f"{who} consultancy"  # type: ignore[return-value]


def _rounds(turns: Sequence[_Turn]) -> tuple[list[list[_Turn]], list[tuple[_Turn, int]]]:
    """Group speeches into rounds; give each live judgement with the number of rounds before it."""
    rounds: list[list[_Turn]] = []
    judged: list[tuple[_Turn, int]] = []
    open_ = False
    for turn in turns:
        if turn.role == "Debater":
            same = open_ and rounds[-1][0].round == turn.round and all(t.index != turn.index for t in rounds[-1])
            rounds[-1].append(turn) if same else rounds.append([turn])
            open_ = True
        else:
            open_ = False
            if turn.role == "Judge":
                judged.append((turn, len(rounds)))
    return rounds, judged


def _session(line: _Line, passage: str | None) -> Session:
    """Make the record of one line: speeches numbered by turn, judgements by the turns they had seen."""
    rounds, judged = _rounds(line.turns)
    condition = _condition(line.roles)
    order: list[tuple[Side, ...]] = []
    said: list[Said] = []
    ends = [0]
    for round_ in rounds:
        together = round_[0].round == "SimultaneousSpeeches"
        if together:
            order.append(SIDES if condition.endswith("debate") else (SIDES[round_[0].index or 0],))
        for turn in round_:
            side = SIDES[turn.index or 0]
            if not together:
                order.append((side,))
            said.append(Said(side=side, turn=len(order) - 1, speaker=turn.speaker, text=turn.text))
        ends.append(len(order))
    judgements = [_live(turn, ends[seen]) for turn, seen in judged]
    judgements += [j for offline in line.offlineJudgments for j in _offline(offline, ends)]
    question = Question(
        id=_question_id(line.storyId, line.question, line.answers), text=line.question.strip(),
        answers=(line.answers[0].strip(), line.answers[1].strip()), correct=line.correctAnswerIndex,
        passage=passage, group=line.storyId, source="nyu",
    )  # fmt: skip
    return Session(
        room=line.roomName, title=line.storyTitle, condition=condition, question=question, order=tuple(order),
        said=tuple(said), judgements=tuple(judgements), finished=line.status == "Complete",
        in_paper=line.includedInPaper,
    )  # fmt: skip


def _live(turn: _Turn, turns: int) -> Judgement:
    """The record of a live judge's feedback."""
    return Judgement(
        judge=turn.speaker, mode="live", turns=turns, probabilities=turn.probabilities or (0.5, 0.5), text=turn.text,
        final=turn.endDebate,
    )  # fmt: skip


def _offline(offline: _Offline, ends: Sequence[int]) -> Iterator[Judgement]:
    """The records of an offline judge: `stepped` before the first round and after each, `timed` at the end."""
    for step, judged in enumerate(offline.judgments):
        seen = min(step, len(ends) - 1) if offline.mode == "stepped" else len(ends) - 1
        yield Judgement(
            judge=offline.judge, mode=offline.mode, turns=ends[seen], probabilities=judged.probabilities,
            text=judged.text, final=judged.endDebate,
        )  # fmt: skip


def _parsed(value: Any, where: str) -> _Line:
    """Check one debate.

    Raises:
        UserError: names where it stands and the field.
    """
    try:
        return _Line.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error)}") from error


def _stories(path: Path) -> dict[str, str]:
    """Stories of a stories.jsonl by id; none if the file is absent.

    Raises:
        UserError: a line lacks its id or its text.
    """
    stories = {}
    for number, value in lines(path) if path.exists() else ():
        if not isinstance(value.get("storyId"), str) or not isinstance(value.get("story"), str):
            raise UserError(f"{path}:{number}: a story needs the texts 'storyId' and 'story'")
        stories[value["storyId"]] = value["story"]
    return stories


def _from_lines(path: Path) -> Iterator[Session]:
    """Sessions of a debates.jsonl, with the stories beside it."""
    stories = _stories(path.with_name("stories.jsonl"))
    for number, value in lines(path):
        line = _parsed(value, f"{path}:{number}")
        yield _session(line, stories.get(line.storyId))


def _analysed(folder: Path) -> dict[str, bool]:
    """Which rooms the authors analysed: debates-metadata.jsonl in the folder of the rooms or up to two above it."""
    for place in (folder, *folder.absolute().parents[:2]):
        if (place / "debates-metadata.jsonl").is_file():
            rows = [row for _, row in lines(place / "debates-metadata.jsonl")]
        elif (place / "debates-metadata.json").is_file():
            rows = read_json(place / "debates-metadata.json")
        else:
            continue
        return {row["name"]: bool(row["includedInPaper"]) for row in rows if "name" in row and "includedInPaper" in row}
    return {}


def _from_rooms(files: Sequence[Path]) -> Iterator[Session]:
    """Sessions of room files, with what the authors' metadata says of them."""
    analysed = _analysed(files[0].parent)
    for file in files:
        value, story = read_room(file)
        line = _parsed({**value, "includedInPaper": analysed.get(file.stem)}, str(file))
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
        return list(_from_lines(path))
    if path.is_file():
        return list(_from_rooms([path]))
    for folder in (path / "pub/debates/official", path / "debates/official", path / "official", path):
        files = sorted(folder.glob("*.json"))
        if files:
            return list(_from_rooms(files))
    raise UserError(f"no debates in {path}: {DOWNLOAD}")


def stories(path: str | Path | None) -> list[Story]:
    """The debated stories, each once; their ids are QuALITY's article ids."""
    told = {
        session.question.group: Story(
            id=session.question.group, title=session.title, text=session.question.passage or ""
        )
        for session in sessions(path)
    }
    return list(told.values())


def _listed(path: Path) -> Iterator[Question]:
    """Questions of a questions.jsonl: one line each with storyId, question, correct and distractor."""
    passages = _stories(path.with_name("stories.jsonl"))
    for number, value in lines(path):
        fields = [value.get(key) for key in ("storyId", "question", "correct", "distractor")]
        if not all(isinstance(field, str) and field for field in fields):
            raise UserError(f"{path}:{number}: needs the texts 'storyId', 'question', 'correct' and 'distractor'")
        story, text, right, wrong = (str(field) for field in fields)
        yield Question(
            id=_question_id(story, text, (right, wrong)), text=text.strip(), answers=(right.strip(), wrong.strip()),
            correct=0, passage=passages.get(story), group=story, source="nyu",
        )  # fmt: skip


def questions(
    path: str | Path | None, split: Split | None = None, limit: int | None = None, seed: int = 0
) -> list[Question]:
    """The distinct questions that were debated; the correct answer's side is a fair draw by seed and question.

    Args:
        path: as for `sessions`, or a questions.jsonl.
        split: a part of the stories (`splits.FRACTIONS`); always the same part, whatever the seed.
        limit: draw so many, by seed.
        seed: of the sides and the draw.

    Raises:
        UserError: as `sessions`.
    """
    listed = path is not None and Path(path).name == "questions.jsonl"
    found = _listed(Path(str(path))) if listed else (session.question for session in sessions(path))
    distinct = {question.id: question for question in found}
    left_out = LeftOut("questions")
    turned = []
    for question in distinct.values():
        fault = question_fault(question)
        if fault is None:
            turned.append(_turned(question, seed))
        else:
            left_out.add(fault, f"{path} {question.id}")
    left_out.say(len(turned))
    return sample(turned if split is None else split_part(turned, split), limit, seed)


def _turned(question: Question, seed: int) -> Question:
    """The question with its correct answer on a side drawn by seed and question."""
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

    The live judge's questions are not part of it (see `Session.judgements`). The seed names the room, so that two games
    on one question differ.

    Raises:
        UserError: the story is missing.
    """
    if session.question.passage is None:
        raise UserError(f"{session.room}: no story {session.question.group!r}; put stories.jsonl beside debates.jsonl")
    player, kind = session.condition.rsplit(" ", 1)
    present: set[Side] = {side for turn in session.order for side in turn}
    game = Transcript(
        question=session.question,
        protocol=_protocol(session.order, kind == "consultancy"),
        players={side: player for side in SIDES if side in present},
        seed=int(digest(session.room)[:8], 16),
    )
    model = "gpt-4" if player == "GPT-4" else None
    return game.add(
        read_speech(said.text, game, said.side, said.turn, Origin(player=said.speaker or player, model=model))
        for said in session.said
    )


def games(
    path: str | Path | None, conditions: Iterable[Condition] = CONDITIONS, split: Split | None = None
) -> list[Session]:
    """Recorded games of the given conditions, whose questions name their split.

    Args:
        path: as for `sessions`.
        conditions: who debated, and whether against someone.
        split: only games on the stories of this part, the same stories as in `questions`; None takes all.
    """
    wanted = set(conditions)
    found = sessions(path)
    part = parts(list({game.question.id: game.question for game in found}.values()))
    chosen = []
    for game in found:
        told = part[game.question.cluster]
        if game.condition in wanted and split in (None, told):
            question = game.question.model_copy(update={"split": told})
            chosen.append(game.model_copy(update={"question": question}))
    return chosen


def transcripts(
    path: str | Path | None, conditions: Iterable[Condition] = CONDITIONS, split: Split | None = None
) -> list[Transcript]:
    """Transcripts of the `games` that were played to their end; checking the quotes of all takes some seconds."""
    return [transcript(game) for game in games(path, conditions, split) if game.finished]
