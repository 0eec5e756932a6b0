"""What human judges decided: the debates of Michael et al. 2023 (arXiv 2311.08702) as the paper's table and as legs.

The same table is made of any file of legs, such as the log of `judges.person`.

A judge saw the question, then the speeches round by round, and after each round gave probabilities and either asked for
another round or ended the game. Its reward is log2 p(correct) - .05 for each round it asked for: the last judgement
ends the game and is free, so the charge is for judgements that went on. Probabilities were kept between .01 and .99 by
the interface, so nothing is clipped here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from debate_rl.data.sources.nyu import CONDITIONS, Condition, Judgement, Session, sessions, transcript
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES
from debate_rl.game.verdict import Ask, Leg, Verdict
from debate_rl.intervals import Estimate
from debate_rl.judges import scores
from debate_rl.judges.check import check_one_judge
from debate_rl.judges.human import rounds
from debate_rl.records import Record, lines, read

Interval = tuple[float, float]


class Row(Record):
    """One condition of the table.

    Example:
        Row(condition="human debate", n=154, stories=61, accuracy=0.844, accuracy_interval=(0.788, 0.894),
            mean_reward=-0.891, mean_reward_interval=(-1.1, -0.7), brier=0.136, brier_interval=(0.093, 0.184))
    """

    condition: str
    """Of the paper's debates one of `data.nyu.CONDITIONS`, else judge and protocol."""
    n: int
    """Games with a final judgement."""
    stories: int
    """Clusters of the intervals."""
    failed: int = 0
    """Of legs: games of this protocol whose verdict failed. A failure names no judge, so each of several counts it."""
    accuracy: float | None = None
    """Share of games whose judge favoured the correct answer; .5 counts half. None where every verdict failed."""
    accuracy_interval: Interval | None = None
    """95 % bootstrap over stories; None where there is one story."""
    mean_reward: float | None = None
    """Mean of log2 p(correct) - .05 for each round that was asked for, in bits."""
    mean_reward_interval: Interval | None = None
    brier: float | None = None
    """Mean (1 - p(correct))^2."""
    brier_interval: Interval | None = None

    def __str__(self) -> str:
        """One line of the table."""
        cells = [
            f"{'-' if value is None else format(value, '.3f'):>7} "
            f"{'[' + ', '.join(f'{end:.3f}' for end in ends) + ']' if ends else '':18}"
            for value, ends in (
                (self.accuracy, self.accuracy_interval),
                (self.mean_reward, self.mean_reward_interval),
                (self.brier, self.brier_interval),
            )
        ]
        failed = f" ({self.failed} failed)" if self.failed else ""
        return f"{self.condition:18} {self.n:4} {self.stories:8} " + " ".join(cells).rstrip() + failed


def table(path: str | Path, paper_only: bool = True) -> list[Row]:
    """Accuracy, reward and Brier score of the live human judges, by condition, with story-clustered intervals.

    Args:
        path: the debates, as for `debate_rl.data.sources.nyu.sessions`, or a file of legs.
        paper_only: keep the games that the authors analysed; False keeps every game that a judge ended.

    Returns:
        A row for each condition that has games, in the paper's order; of legs one for each judge and protocol.

    Raises:
        UserError: nothing is judged there, the authors' selection is unknown, or a file is malformed.
    """
    if _holds_legs(Path(path)):
        return leg_table(read(path, Leg))
    judged = [session for session in sessions(path) if session.verdict is not None]
    if paper_only and judged and all(session.in_paper is None for session in judged):
        raise UserError(
            f"{path}: which games the paper analysed is not known; put the authors' debates-metadata.jsonl beside "
            "the folder 'debates', or ask for every judged game"
        )
    kept = [session for session in judged if session.in_paper or not paper_only]
    rows = [
        _row(condition, part) for condition in CONDITIONS if (part := [s for s in kept if s.condition == condition])
    ]
    if not rows:
        raise UserError(f"{path}: no game with a final judgement of a live judge")
    return rows


def leg_table(legs: Sequence[Leg]) -> list[Row]:
    """The same scores of any judged legs, for each judge and protocol; a round costs what it cost the paper's judges.

    Which rounds are charged is said by `person.rounds`; the recorded games as `legs` get the rewards of `table`. Legs
    whose verdict failed are counted and not scored.

    Raises:
        UserError: nothing is judged, a game is there twice, or verdicts of two revisions of one judge are mixed.
    """
    judged = [leg for leg in legs if leg.p_correct is not None]
    failed = Counter(leg.transcript.protocol.name for leg in legs if leg.verdict is None and leg.failure is not None)
    if not judged:
        lost = f" ({failed.total()} failed)" if failed else ""
        raise UserError(f"no leg with a verdict and a known answer{lost}; judge some debates with debate-rl judge play")
    groups: dict[tuple[str, str], list[Leg]] = {}
    for leg in judged:
        groups.setdefault((leg.verdict.judge if leg.verdict else "", leg.transcript.protocol.name), []).append(leg)
    rows = []
    for (judge, protocol), own in sorted(groups.items()):
        check_one_judge(own)
        p = [leg.p_correct for leg in own if leg.p_correct is not None]
        stories = [leg.transcript.question.cluster for leg in own]
        row = _scored(f"{judge}, {protocol}", p, stories, [rounds(leg) for leg in own])
        rows.append(row.model_copy(update={"failed": failed[protocol]}))
    unseen = sorted(set(failed) - {protocol for _, protocol in groups})
    return rows + [Row(condition=f"none, {name}", n=0, stories=0, failed=failed[name]) for name in unseen]


def _holds_legs(path: Path) -> bool:
    """Whether a file is one of legs."""
    return path.is_file() and "transcript" in next((value for _, value in lines(path)), {})


def _row(condition: Condition, games: Sequence[Session]) -> Row:
    """Score the games of one condition."""
    p = [game.verdict.probabilities[game.question.correct or 0] for game in games if game.verdict]
    return _scored(condition, p, [game.question.cluster for game in games], [game.continues for game in games])


def _scored(condition: str, p: Sequence[float], stories: Sequence[str], paid: Sequence[int]) -> Row:
    """One row from probabilities of the correct answer, stories, and rounds that were paid for; (n,) each."""
    accuracy, brier = scores.accuracy(p, stories), scores.brier(p, stories)
    reward = scores.reward(p, paid, stories)
    return Row(
        condition=condition,
        n=accuracy.n,
        stories=accuracy.clusters,
        accuracy=accuracy.value,
        accuracy_interval=_ends(accuracy),
        mean_reward=reward.value,
        mean_reward_interval=_ends(reward),
        brier=brier.value,
        brier_interval=_ends(brier),
    )


def _ends(estimate: Estimate) -> Interval | None:
    """Both ends of an interval, if it has them."""
    return None if estimate.low is None or estimate.high is None else (estimate.low, estimate.high)


def formatted(rows: Iterable[Row]) -> str:
    """The table as text, for a terminal."""
    head = f"{'condition':18} {'n':>4} {'stories':>8}   {'accuracy':27}{'reward':27}Brier"
    return "\n".join([head, *map(str, rows)])


def legs(games: Iterable[Session], offline: bool = False) -> list[Leg]:
    """Recorded judgements as legs, the records that judges are trained and scored on.

    The verdict is the judge's last judgement; `asks` holds each one with the number of turns it had read, so that a
    judge can be trained on human confidences at every round (Arnesen et al. 2024).

    Args:
        games: recorded games; those without a final judgement are left out.
        offline: also make a leg for each offline judge, who read the finished game.

    Raises:
        UserError: a story is missing.
    """
    made: list[Leg] = []
    for game in games:
        verdicts = [verdict for verdict in _verdicts(game, offline) if verdict is not None]
        if verdicts:
            played = transcript(game)
            made += [Leg(transcript=played, verdict=verdict) for verdict in verdicts]
    return made


def _verdicts(game: Session, offline: bool) -> Iterator[Verdict | None]:
    """The verdict of each judge of a game; None for one who did not come to an end."""
    for (judge, mode), group in groupby(game.judgements, key=lambda judgement: (judgement.judge, judgement.mode)):
        given = list(group)
        if (offline or mode == "live") and given[-1].final:
            asks = [_ask(game, judgement) for judgement in given]
            yield Verdict(judge=f"human/{judge}", p=given[-1].probabilities, asks=tuple(asks))


def _ask(game: Session, judgement: Judgement) -> Ask:
    """One judgement in the form of a question to a model judge."""
    seen = {said.side for said in game.said}
    low, high = (math.log(max(p, scores.LEAST)) for p in judgement.probabilities)
    return Ask(
        sides=tuple(side for side in SIDES if side in seen),
        logprobs=(low, high),
        after_turn=None if judgement.final else judgement.turns,
    )
