"""The rows that trainers learn from, and how they are built from records. Each line of a rows file is one of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import Field

from debate_rl.data.sources.instructions import Instruction
from debate_rl.data.sources.provenance import Source
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message, debater_messages, judge_candidates, judge_messages
from debate_rl.game.protocol import Side
from debate_rl.game.question import Split
from debate_rl.game.transcript import Transcript
from debate_rl.judges.judge import Presentation, presentations
from debate_rl.judges.presentation import EQUAL_WITHIN
from debate_rl.judges.readout import Readout, wording_of
from debate_rl.records import Record, digest


class SftRow(Record):
    """A prompt and the speech that answers it.

    Example:
        SftRow(prompt=[{"role": "user", "content": "story : ... argue for shed"}], completion="the answer is shed ...",
               question="lab-7-2", group="lab-7", side="A", turn=0, source="human", corpus="nyu-human",
               licence="CC BY 4.0", split="train")
    """

    prompt: list[Message]
    completion: str
    question: str = ""
    group: str = ""
    side: Side | None = None
    turn: int | None = None
    source: str = ""
    """Who spoke: the player's name."""
    corpus: str = ""
    """The source of transcripts or instructions that the row comes from."""
    licence: str = ""
    split: Split | None = None
    """The question's split in its own data set."""


class PoolTurn(Record):
    """The turn that a pool of speeches was drawn for.

    Example:
        PoolTurn(question="lab-7-2", group="lab-7", side="A", turn=0)
    """

    question: str = ""
    """Id of the question."""
    group: str = ""
    """Cluster of the question."""
    side: Side | None = None
    turn: int | None = None


class PreferenceRow(Record):
    """Two speeches of one side to one prompt, with the judge's probability for that side after each.

    Example:
        PreferenceRow(prompt=[{"role": "user", "content": "... argue for shed"}], chosen="the answer is shed ...",
                      rejected="the answer is shed", p_chosen=0.71, p_rejected=0.52, question="lab-7-2", group="lab-7",
                      side="A", turn=0)
    """

    prompt: list[Message]
    chosen: str
    rejected: str
    p_chosen: float = Field(ge=0, le=1)
    p_rejected: float = Field(ge=0, le=1)
    question: str = ""
    group: str = ""
    side: Side | None = None
    turn: int | None = None


class JudgeRow(Record):
    """A judge's prompt, its two continuations, and the target probability of the first.

    Example:
        JudgeRow(prompt=[{"role": "user", "content": "question : ... the answer is"}], candidates=("shed", "barn"),
                 target=1.0, question="lab-7-2", group="lab-7")
    """

    prompt: list[Message]
    candidates: tuple[str, str]
    target: float = Field(ge=0, le=1)
    """Probability of candidate 0: 1 or 0 for a gold label, in between for a soft one."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the row's loss; the mean divides by the number of rows, not by the sum of weights."""
    per_token: bool = False
    """Compare the candidates by their mean log-probability a token, not by the sum, as the judge will be read."""
    question: str = ""
    group: str = ""


class ClassifierRow(Record):
    """A text, or a prompt in the tokenizer's chat format, with the probability that what it states is correct.

    Example:
        ClassifierRow(id="sciq-12", text="Q: What is the least dangerous radioactive decay? A: alpha decay", target=1.0)
    """

    id: str
    text: str = ""
    prompt: list[Message] = []
    """Encoded as an engine would, up to where the assistant begins; replaces `text`."""
    target: float = Field(default=0.5, ge=0, le=1)
    """P(correct); not read when predicting."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the row's loss; the mean divides by the number of rows, not by the sum of weights."""
    group: str = ""


class RewardRow(Record):
    """Two replies to a prompt, with the probability that the first is the better one.

    Example:
        RewardRow(id="hh-1f0c5577aa90d2e8", prompt=[{"role": "user", "content": "What is a pen?"}],
                  chosen="A tool to write with.", rejected="No.", group="hh-8e1f0c5577aa90d2")
    """

    id: str = ""
    prompt: list[Message]
    chosen: str
    rejected: str
    target: float = Field(default=1.0, ge=0, le=1)
    """P(chosen is better): below 1 for a soft label, below 1/2 where a weaker model prefers `rejected`."""
    margin: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Reward difference by which the better reply should win."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the row's loss; the mean divides by the number of rows, not by the sum of weights."""
    group: str = ""


def sft_rows(transcripts: Iterable[Transcript], source: Source | None = None) -> list[SftRow]:
    """One row for every speech, with the prompt that its speaker saw: earlier turns only, never its own turn.

    Speeches without text are left out: there is nothing to learn from them (`speechless` counts them).
    """
    rows = []
    for transcript in transcripts:
        for speech in transcript.speeches:
            if not speech.text.strip():
                continue
            row = SftRow(
                prompt=debater_messages(transcript, speech.side, speech.turn),
                completion=speech.text,
                question=transcript.question.id,
                group=transcript.question.cluster,
                side=speech.side,
                turn=speech.turn,
                source=transcript.players[speech.side],
                corpus=source.name if source else "",
                licence=source.licence if source else "",
                split=transcript.question.split,
            )
            rows.append(row)
    return rows


def speechless(transcripts: Iterable[Transcript]) -> int:
    """Number of speeches without text, for which `sft_rows` makes no rows."""
    count = 0
    for transcript in transcripts:
        count += sum(not speech.text.strip() for speech in transcript.speeches)
    return count


def instruction_rows(instructions: Iterable[Instruction], source: Source) -> list[SftRow]:
    """One row for every instruction: a user asks it, the assistant answers."""
    return [
        SftRow(
            prompt=[{"role": "user", "content": instruction.text}],
            completion=instruction.answer,
            question=instruction.id,
            source=source.name,
            corpus=source.name,
            licence=source.licence,
        )
        for instruction in instructions
    ]


def judge_rows(
    transcripts: Sequence[Transcript],
    labels: Sequence[float] | None = None,
    both_orders: bool = True,
    readout: Readout = "letters",
) -> list[JudgeRow]:
    """Rows to finetune a judge on finished games, each shown as the judge will be shown them.

    Args:
        transcripts: the games.
        labels: target probability of answer 0 for each game (a human's confidence, another judge's verdict); None
            takes the correct answer.
        both_orders: show every game in both presentation orders; else in one order, drawn by the game's name, so that
            no position is favoured.
        readout: what the judge's verdict will be read from. Nothing is subtracted while it learns.

    Raises:
        UserError: a game without a label has a question whose correct answer is unknown.
    """
    # Answer 0 is candidate 0 in either order (see `judge_candidates`), so a label holds for both rows of a game.
    if labels is None:
        labels = [_gold(transcript) for transcript in transcripts]
    wording = wording_of(readout)
    rows = []
    for transcript, label in zip(transcripts, labels, strict=True):
        for sides, order in _presentations(transcript, both_orders):
            row = JudgeRow(
                prompt=judge_messages(transcript, sides, order, reply=wording),
                candidates=judge_candidates(transcript, order, wording),
                target=label,
                per_token=readout != "letters",
                question=transcript.question.id,
                group=transcript.question.cluster,
            )
            rows.append(row)
    return rows


def _gold(transcript: Transcript) -> float:
    """1 where answer 0 is correct, 0 where answer 1 is."""
    if transcript.question.correct is None:
        raise UserError(f"question {transcript.question.id!r} has no correct answer; give labels or leave it out")
    return 1.0 - transcript.question.correct


def _presentations(transcript: Transcript, both_orders: bool) -> list[Presentation]:
    """How the judge is shown a game: in both orders, or in one drawn by the game's name."""
    shown = presentations(transcript)
    if both_orders:
        return shown
    # A digest, not a generator: a game keeps its order whichever other games stand in the list.
    drawn = ((0, 1), (1, 0))[int(digest(["judge order", transcript.id]), 16) % 2]
    return [(sides, order) for sides, order in shown if order == drawn]


def preference_rows(
    prompt: list[Message],
    candidates: Sequence[tuple[str, float]],
    pairs_per_pool: int = 1,
    min_gap: float = 0.0,
    turn: PoolTurn | None = None,
    dropped: Counter[str] | None = None,
) -> list[PreferenceRow]:
    """Pairs of a pool of speeches to one prompt, the widest gaps first.

    Args:
        prompt: what the speaker saw.
        candidates: (speech, judge's probability for the speaker's side).
        pairs_per_pool: most pairs to return.
        min_gap: least difference of probabilities; equal ones never make a pair, nor do equal texts or empty ones.
        turn: the turn that the speeches were drawn for.
        dropped: if given, counts the pairs that make no row by reason: `empty_speech`, `equal_texts`, `equal_scores`,
            `below_gap`, and `narrower` for those after the first `pairs_per_pool`.
    """
    turn = PoolTurn() if turn is None else turn
    dropped = Counter() if dropped is None else dropped
    # Sorting is stable: of equal scores the earlier candidate comes first, so a pool always makes the same pairs.
    ranked = sorted(candidates, key=lambda candidate: -candidate[1])
    pairs = []
    for better, worse in itertools.combinations(ranked, 2):
        reason = _no_pair(better, worse, min_gap)
        if reason is None:
            pairs.append((better, worse))
        else:
            dropped[reason] += 1
    # Stable too: equal gaps stay in the order of the better speech's score.
    pairs.sort(key=lambda pair: pair[1][1] - pair[0][1])
    dropped["narrower"] += len(pairs[pairs_per_pool:])
    return [
        PreferenceRow(
            prompt=prompt,
            chosen=better,
            rejected=worse,
            p_chosen=p_better,
            p_rejected=p_worse,
            question=turn.question,
            group=turn.group,
            side=turn.side,
            turn=turn.turn,
        )
        for (better, p_better), (worse, p_worse) in pairs[:pairs_per_pool]
    ]


def _no_pair(better: tuple[str, float], worse: tuple[str, float], min_gap: float) -> str | None:
    """Why two speeches with their probabilities make no pair; None if they do."""
    if not better[0].strip() or not worse[0].strip():
        return "empty_speech"
    if better[0] == worse[0]:
        return "equal_texts"
    if better[1] - worse[1] <= EQUAL_WITHIN:
        return "equal_scores"
    if better[1] - worse[1] < min_gap:
        return "below_gap"
    return None
