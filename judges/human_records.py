"""Verdicts of human judges: the debates of Michael et al. 2023 (arXiv 2311.08702), as the paper's table and as legs.

The same table can be made from any file of judged debates, such as the log of `judges.human`.

A judge saw the question, then the speeches round by round. After each round it gave probabilities and either asked for
another round or ended the game. Its reward is log2 p(correct) - .05 for each round it asked for: the last judgement
ends the game and is free. The interface kept probabilities between .01 and .99, so nothing is clipped here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from debate_rl.data.sources.nyu import CONDITIONS, Judgement, Session, sessions, transcript
from debate_rl.errors import UserError
from debate_rl.game.protocol import SIDES
from debate_rl.game.verdict import Ask, JudgedDebate, Verdict
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
    """One of `data.nyu.CONDITIONS` for the paper's debates, otherwise judge and protocol."""
    n: int
    """Games with a final judgement."""
    stories: int
    """Clusters of the intervals."""
    failed: int = 0
    """Games of this protocol whose verdict failed (legs only). A failure names no judge, so every judge counts it."""
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
            _cell(self.accuracy, self.accuracy_interval),
            _cell(self.mean_reward, self.mean_reward_interval),
            _cell(self.brier, self.brier_interval),
        ]
        failed = f" ({self.failed} failed)" if self.failed else ""
        return f"{self.condition:18} {self.n:4} {self.stories:8} " + " ".join(cells).rstrip() + failed


def table(path: str | Path, paper_only: bool = True) -> list[Row]:
    """Accuracy, reward and Brier score of the live human judges, by condition, with story-clustered intervals.

    Args:
        path: the debates, as for `debate_rl.data.sources.nyu.sessions`, or a file of judged debates.
        paper_only: keep only the games that the authors analysed; False keeps every game that a judge ended.

    Returns:
        A row for each condition that has games, in the paper's order; for legs, one for each judge and protocol.

    Raises:
        UserError: nothing is judged there, the authors' selection is unknown, or a file is malformed.
    """
    if _holds_legs(Path(path)):
        return leg_table(read(path, JudgedDebate))
    by_condition: dict[str, list[Session]] = {condition: [] for condition in CONDITIONS}
    for session in _judged_sessions(path, paper_only):
        if session.condition in by_condition:
            by_condition[session.condition].append(session)
    rows = [_session_row(condition, games) for condition, games in by_condition.items() if games]
    if not rows:
        raise UserError(f"{path}: no game with a final judgement of a live judge")
    return rows


def _judged_sessions(path: str | Path, paper_only: bool) -> list[Session]:
    """Recorded games that a live judge ended; of these the ones that the authors analysed, if asked for."""
    judged = [session for session in sessions(path) if session.verdict is not None]
    if not paper_only:
        return judged
    if judged and all(session.in_paper is None for session in judged):
        raise UserError(
            f"{path}: which games the paper analysed is not known; put the authors' debates-metadata.jsonl beside "
            "the folder 'debates', or ask for every judged game"
        )
    return [session for session in judged if session.in_paper]


def leg_table(legs: Sequence[JudgedDebate]) -> list[Row]:
    """Score any judged legs the same way, one row for each judge and protocol.

    A round costs what it cost the paper's judges; `human.rounds` says which rounds are charged. The recorded games as
    `legs` get the rewards of `table`. Legs whose verdict failed are counted and not scored.

    Raises:
        UserError: nothing is judged, a game is there twice, or verdicts of two revisions of one judge are mixed.
    """
    failed: Counter[str] = Counter()
    groups: dict[tuple[str, str], list[JudgedDebate]] = {}
    for leg in legs:
        protocol = leg.transcript.protocol.name
        if leg.verdict is None and leg.failure is not None:
            failed[protocol] += 1
        if leg.verdict is not None and leg.p_correct is not None:
            groups.setdefault((leg.verdict.judge, protocol), []).append(leg)
    if not groups:
        lost = f" ({failed.total()} failed)" if failed else ""
        raise UserError(f"no leg with a verdict and a known answer{lost}; judge some debates with debate-rl judge play")
    rows = []
    for (judge, protocol), judged in sorted(groups.items()):
        check_one_judge(judged)
        p = [leg.p_correct for leg in judged if leg.p_correct is not None]
        stories = [leg.transcript.question.cluster for leg in judged]
        row = _scored(f"{judge}, {protocol}", p, stories, [rounds(leg) for leg in judged])
        rows.append(row.model_copy(update={"failed": failed[protocol]}))
    # A protocol of which every verdict failed has no judge's name, but must not vanish from the table.
    without_verdicts = sorted(set(failed) - {protocol for _, protocol in groups})
    return rows + [Row(condition=f"none, {name}", n=0, stories=0, failed=failed[name]) for name in without_verdicts]


def formatted(rows: Iterable[Row]) -> str:
    """The table as text, for a terminal."""
    head = f"{'condition':18} {'n':>4} {'stories':>8}   {'accuracy':27}{'reward':27}Brier"
    return "\n".join([head, *map(str, rows)])


def legs(games: Iterable[Session], offline: bool = False) -> list[JudgedDebate]:
    """Convert recorded judgements to legs, the records that judges are trained and scored on.

    The verdict is the judge's last judgement. `asks` holds every judgement with the number of turns it had read, so
    that a judge can be trained on human confidences at every round (Arnesen et al. 2024).

    Args:
        games: recorded games; those without a final judgement are left out.
        offline: also make a leg for each offline judge, who read the finished game.

    Raises:
        UserError: a story is missing.
    """
    records: list[JudgedDebate] = []
    for game in games:
        verdicts = _verdicts(game, offline)
        if verdicts:
            played = transcript(game)
            records += [JudgedDebate(transcript=played, verdict=verdict) for verdict in verdicts]
    return records


def _cell(value: float | None, interval: Interval | None) -> str:
    """A number and its interval, in fixed widths."""
    number = "-" if value is None else f"{value:.3f}"
    ends = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    return f"{number:>7} {ends:18}"


def _holds_legs(path: Path) -> bool:
    """Whether a path is a file of judged debates, judged by its first line."""
    if not path.is_file():
        return False
    first_line = next(lines(path), None)
    return first_line is not None and "transcript" in first_line[1]


def _session_row(condition: str, games: Sequence[Session]) -> Row:
    """Score the recorded games of one condition."""
    p, stories, paid = [], [], []
    for game in games:
        if game.verdict is not None:
            p.append(game.verdict.probabilities[game.question.correct or 0])
            stories.append(game.question.cluster)
            paid.append(game.continues)
    return _scored(condition, p, stories, paid)


def _scored(condition: str, p: Sequence[float], stories: Sequence[str], paid: Sequence[int]) -> Row:
    """Score one condition.

    Args:
        condition: name of the row.
        p: (n,) probability of the correct answer.
        stories: (n,) clusters.
        paid: (n,) rounds that the judge paid for.
    """
    accuracy = scores.accuracy(p, stories)
    brier = scores.brier(p, stories)
    reward = scores.reward(p, paid, stories)
    return Row(
        condition=condition,
        n=accuracy.n,
        stories=accuracy.clusters,
        accuracy=accuracy.value,
        accuracy_interval=_interval(accuracy),
        mean_reward=reward.value,
        mean_reward_interval=_interval(reward),
        brier=brier.value,
        brier_interval=_interval(brier),
    )


def _interval(estimate: Estimate) -> Interval | None:
    """Both ends of an estimate's interval; None where there is one story."""
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low, estimate.high


def _verdicts(game: Session, offline: bool) -> list[Verdict]:
    """The verdict of each judge of a game who came to an end."""
    verdicts = []
    # Live and offline judgements are apart even where one person gave both.
    for (judge, mode), group in groupby(game.judgements, key=lambda judgement: (judgement.judge, judgement.mode)):
        if mode != "live" and not offline:
            continue
        given = list(group)
        if given[-1].final:
            asks = tuple(_ask(game, judgement) for judgement in given)
            verdicts.append(Verdict(judge=f"human/{judge}", p=given[-1].probabilities, asks=asks))
    return verdicts


def _ask(game: Session, judgement: Judgement) -> Ask:
    """One judgement in the form of a question to a model judge."""
    speakers = {speech.side for speech in game.said}
    first, second = judgement.probabilities
    return Ask(
        sides=tuple(side for side in SIDES if side in speakers),
        logprobs=(math.log(max(first, scores.LEAST)), math.log(max(second, scores.LEAST))),
        after_turn=None if judgement.final else judgement.turns,
    )
