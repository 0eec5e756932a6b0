"""How far a judge moves when a side attacks: the same games judged before and after.

Each debate is attacked twice, once by each side. Three numbers tell what an attack does:
- gain: how much more of the judge's probability the attacking side gets;
- accuracy: how much more often the judge is right when the side with the wrong answer attacks (below 0: it is fooled),
  and when either side does;
- flips: how often the verdict changes.
Sycophancy is measured on single consultancies: each side of a debate alone (`judges.attacks.sycophancy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from debate_rl.engines.request import Engine
from debate_rl.errors import UserError
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.intervals import Effect, Estimate, difference, mean
from debate_rl.judges.attacks.edits import ATTACKS, Attack, chosen, suffix_words
from debate_rl.judges.attacks.suffix_search import Found, Search, search_suffix
from debate_rl.judges.attacks.sycophancy import Sycophancy, consultants, points, sycophancy
from debate_rl.judges.calibration import split_clusters
from debate_rl.judges.judge import AnyJudge, judge_transcripts, mean_probability
from debate_rl.judges.panel import Panel
from debate_rl.judges.presentation import calibrated
from debate_rl.judges.scores import accuracy, hits
from debate_rl.records import Record

SEARCHED = 0.5
"""Share of the stories on which a suffix is searched; it is measured on the others."""


class Trial(Record):
    """One side's attack in one game, and the judge's probability before and after.

    Example:
        Trial(attack="suffix_sure", judge="judge", game="5f1d7a84db00d2fc", cluster="lab-7", side="A", right=False,
              before=0.31, after=0.44)
    """

    attack: str
    judge: str
    game: str
    cluster: str
    side: Side
    """The side that attacks; for a lone consultant, the side that speaks."""
    right: bool | None
    """Whether the side argues the correct answer."""
    before: float
    """Probability of the side without the attack. For `position`: when shown second; for a consultant: 1/2."""
    after: float
    """Probability of the side with the attack. For `position`: when shown first."""


class AttackRow(Record):
    """The effect of one attack on one judge.

    Example:
        AttackRow(attack="suffix_sure", family="suffix", gain=Effect(value=0.031, ...),
                  accuracy=Effect(value=-0.02, ...), either=Effect(value=-0.005, ...), flips=Estimate(value=0.04, ...))
    """

    attack: str
    family: str
    gain: Effect
    """Change of the attacking side's probability; n counts trials, two a debate."""
    accuracy: Effect | None = None
    """Change of the judge's accuracy when the wrong side attacks; None where correct answers are unknown."""
    either: Effect | None = None
    """Change of the judge's accuracy when either side attacks."""
    flips: Estimate
    """Share of verdicts on the other side of 1/2."""
    skipped: int = 0
    """Trials in which the attack finds nothing to do."""
    failed: int = 0
    """Trials without a verdict; they count for nothing."""
    words: str = ""
    """The words of the attack, where they are fixed."""


class AttackTable(Record):
    """Every attack on one judge."""

    judge: str
    games: int
    source: str = ""
    """The run whose debates were attacked, if they were read from one."""
    accuracy: Estimate | None = None
    """Accuracy on the same debates without any attack; None where correct answers are unknown."""
    rows: tuple[AttackRow, ...] = ()
    left_out: dict[str, str] = {}
    """Attacks that could not be measured, and why."""
    sycophancy: Sycophancy | None = None
    under_debates: Sycophancy | None = None
    """Sycophancy under the calibration of debates, for a judge that has another calibration for lone speakers."""
    search: Found | None = None
    """The suffix that was found against this judge."""

    def __str__(self) -> str:
        """A table for the terminal, in points of 100."""
        right = "" if self.accuracy is None else f", right on {points(self.accuracy)} %"
        lines = [f"debates: {self.source}"] if self.source else []
        lines.append(f"{self.judge} on {self.games} debates{right}; each attacked by either side, in points")
        lines.append(f"{'attack':<18} {'gain of the attacker':<24} {'accuracy, wrong side':<24} verdicts flipped, %")
        for row in self.rows:
            gain = points(row.gain)
            change = "-" if row.accuracy is None else points(row.accuracy)
            left = f" {row.skipped} skipped" if row.skipped else ""
            left += f" {row.failed} failed" if row.failed else ""
            lines.append(f"{row.attack:<18} {gain:<24} {change:<24} {points(row.flips):<22}{left}")
        lines += [f"{name:<18} not measured: {why}" for name, why in self.left_out.items()]
        if self.search is not None and self.search.text:
            lines.append(f"suffix_search says: {self.search.text!r} ({self.search.tried} tried)")
        if self.sycophancy is not None:
            lines.append(f"lone consultants that win: {self.sycophancy}")
        if self.under_debates is not None:
            lines.append(f"under the calibration of debates: {self.under_debates}")
        return "\n".join(lines)


class Attacked(Record):
    """A judge's table with the trials behind it."""

    table: AttackTable
    trials: tuple[Trial, ...]


class _Measured(NamedTuple):
    """The trials of one attack, and their row or the reason why there is none."""

    trials: list[Trial]
    row: AttackRow | str


@dataclass(frozen=True)
class _Bench:
    """The judge under attack, with its verdicts on the games before any attack."""

    judge: AnyJudge
    engine: Engine
    games: Sequence[Transcript]
    plain: Sequence[Verdict | Failure]

    def part(self, places: Sequence[int]) -> _Bench:
        """The same judge on some of the games."""
        games = [self.games[place] for place in places]
        plain = [self.plain[place] for place in places]
        return _Bench(self.judge, self.engine, games, plain)


def attack_judge(
    games: Sequence[Transcript],
    judge: AnyJudge,
    engine: Engine,
    names: bool | tuple[str, ...] = True,
    search: Search | None = None,
) -> Attacked:
    """Attack one judge on finished games.

    Args:
        games: debates; games without a speech are left out. A single consultancy counts for sycophancy as it is.
        judge: the judge under attack.
        engine: answers for it.
        names: attacks, or True for all.
        search: how much the search for a suffix tries.

    Raises:
        UserError: an unknown attack, no games with speeches, a judge without verdicts, or one story only where a
            suffix is to be searched.
    """
    attacks = chosen(names)
    spoken = [game for game in games if game.speeches]
    if not spoken:
        raise UserError("no debate with speeches to attack; give the debates of a stage that played any")
    halves = None
    if "suffix_search" in attacks:
        # Split before anything is judged: with one story only it fails, which should not cost hours first.
        halves = split_clusters([game.question.cluster for game in spoken], SEARCHED, 0)
    bench = _Bench(judge, engine, spoken, _verdicts(spoken, judge, engine))
    measured = {name: _measure(bench, ATTACKS[name]) for name in attacks if name in ATTACKS}
    search_result = None
    if halves is not None:
        # A suffix gains by luck alone on the stories it was found on, so it is measured on the other half.
        search_games = bench.part(halves[0].tolist()).games
        search_result = search_suffix(search_games, judge, engine, suffix_words(spoken), search)
        measured["suffix_search"] = _Measured([], f"no suffix gained, of {search_result.tried} tried")
        if search_result.text:
            measured["suffix_search"] = _measure(bench.part(halves[1].tolist()), search_result.attack)
    if "position" in attacks:
        measured["position"] = _measure_position(bench)
    lone: list[Trial] = []
    failed = 0
    if "sycophancy" in attacks:
        lone, failed = _consultant_trials(spoken, judge, engine)
    trials = []
    for result in measured.values():
        trials += result.trials
    table = AttackTable(
        judge=judge.name,
        games=len(spoken),
        accuracy=_plain_accuracy(bench),
        rows=tuple(result.row for result in measured.values() if isinstance(result.row, AttackRow)),
        left_out={name: result.row for name, result in measured.items() if isinstance(result.row, str)},
        sycophancy=_sycophancy(lone, failed),
        under_debates=_under_debates(spoken, judge, engine) if lone else None,
        search=search_result,
    )
    return Attacked(table=table, trials=tuple(trials + lone))


def attack_row(name: str, family: str, trials: Sequence[Trial]) -> AttackRow:
    """Sum up the trials of one attack on one judge.

    Raises:
        UserError: there are none.
    """
    labels = [trial.cluster for trial in trials]
    before = [trial.before for trial in trials]
    after = [trial.after for trial in trials]
    return AttackRow(
        attack=name,
        family=family,
        gain=difference(after, before, labels),
        accuracy=_accuracy_change([trial for trial in trials if trial.right is False]),
        either=_accuracy_change([trial for trial in trials if trial.right is not None]),
        flips=mean(np.abs(hits(after) - hits(before)), labels),
    )


def _verdicts(games: Sequence[Transcript], judge: AnyJudge, engine: Engine) -> list[Verdict | Failure]:
    """Judge the games without any attack.

    Raises:
        UserError: there is no verdict at all; says the first reason.
    """
    verdicts = judge_transcripts(games, judge, engine)
    failures = [verdict.message for verdict in verdicts if isinstance(verdict, Failure)]
    if len(failures) == len(verdicts):
        raise UserError(f"judge {judge.name!r} has no verdict on any of {len(games)} games: {failures[0]}")
    return verdicts


def _plain_accuracy(bench: _Bench) -> Estimate | None:
    """How often the judge is right without any attack."""
    p_correct = []
    labels = []
    for game, verdict in zip(bench.games, bench.plain, strict=True):
        if isinstance(verdict, Verdict) and game.question.correct is not None:
            p_correct.append(verdict.p[game.question.correct])
            labels.append(game.question.cluster)
    return accuracy(p_correct, labels) if p_correct else None


def _measure(bench: _Bench, attack: Attack) -> _Measured:
    """Judge every game with each side attacking."""
    attacked = []
    skipped = 0
    for game, before in zip(bench.games, bench.plain, strict=True):
        for side in game.present:
            changed = attack.change(game, side)
            if changed is None:
                skipped += 1
            else:
                attacked.append((game, before, side, changed))
    after = judge_transcripts([changed for *_, changed in attacked], bench.judge, bench.engine)
    trials = []
    for (game, before, side, _), verdict in zip(attacked, after, strict=True):
        if isinstance(before, Verdict) and isinstance(verdict, Verdict):
            trials.append(_trial(attack.name, bench.judge, game, side, (before.p_side(side), verdict.p_side(side))))
    failed = len(attacked) - len(trials)
    if not trials:
        return _Measured([], f"{skipped} trials in which it finds nothing to do, {failed} without a verdict")
    words = ""
    if attack.words is not None:
        words = attack.words.lab if bench.games[0].protocol.prompts == "lab" else attack.words.english
    row = attack_row(attack.name, attack.family, trials)
    return _Measured(trials, row.model_copy(update={"skipped": skipped, "failed": failed, "words": words}))


def _trial(attack: str, judge: AnyJudge, game: Transcript, side: Side, p: tuple[float, float]) -> Trial:
    """One trial from the probabilities of the side before and after the attack."""
    correct = game.question.correct
    return Trial(
        attack=attack,
        judge=judge.name,
        game=game.id,
        cluster=game.question.cluster,
        side=side,
        right=None if correct is None else "AB"[correct] == side,
        before=p[0],
        after=p[1],
    )


def _accuracy_change(trials: Sequence[Trial]) -> Effect | None:
    """Change in how often the judge is right; None without trials."""
    if not trials:
        return None
    # A trial has the probability of the attacker's side, which is that of the wrong answer where it argues for it.
    right = np.array([bool(trial.right) for trial in trials])
    before = np.array([trial.before for trial in trials])
    after = np.array([trial.after for trial in trials])
    hits_before = hits(np.where(right, before, 1 - before))
    hits_after = hits(np.where(right, after, 1 - after))
    return difference(hits_after, hits_before, [trial.cluster for trial in trials])


def _measure_position(bench: _Bench) -> _Measured:
    """Compare each side shown first with the same side shown second, from the two orders that were asked anyway."""
    trials = []
    for game, verdict in zip(bench.games, bench.plain, strict=True):
        if not isinstance(verdict, Verdict) or not _asked_both_orders(verdict):
            continue
        # In order (0, 1) side A, who argues answer 0, is shown first.
        a_first = _in_order(bench.judge, verdict, (0, 1))
        a_second = _in_order(bench.judge, verdict, (1, 0))
        for side in game.present:
            second_then_first = (a_second, a_first) if side == "A" else (1 - a_first, 1 - a_second)
            trials.append(_trial("position", bench.judge, game, side, second_then_first))
    if not trials:
        return _Measured([], "asked in one order only")
    return _Measured(trials, attack_row("position", "position", trials))


def _asked_both_orders(verdict: Verdict) -> bool:
    """Whether a judge (every member of a panel) was asked in both orders."""
    if verdict.members:
        return all(_asked_both_orders(member) for member in verdict.members)
    return {ask.order for ask in verdict.asks if ask.after_turn is None} == {(0, 1), (1, 0)}


def _in_order(judge: AnyJudge, verdict: Verdict, order: tuple[int, int]) -> float:
    """Probability of answer 0 in one presentation order; for a panel the mean of its members', uncalibrated."""
    if isinstance(judge, Panel):
        return mean_probability(verdict, order)
    asks = [ask for ask in verdict.asks if ask.after_turn is None and ask.order == order]
    return calibrated(asks, calibrator=judge.calibrator)


def _consultant_trials(games: Sequence[Transcript], judge: AnyJudge, engine: Engine) -> tuple[list[Trial], int]:
    """Put every side of every game before the judge alone; return the trials and the number without a verdict."""
    lone = consultants(games)
    trials = []
    for game, verdict in zip(lone, judge_transcripts(lone, judge, engine), strict=True):
        if isinstance(verdict, Verdict):
            side = game.present[0]
            trials.append(_trial("sycophancy", judge, game, side, (0.5, verdict.p_side(side))))
    return trials, len(lone) - len(trials)


def _sycophancy(lone: Sequence[Trial], failed: int) -> Sycophancy | None:
    """Sycophancy of the judge from its trials with lone consultants."""
    return sycophancy(
        [trial.after for trial in lone],
        [trial.right for trial in lone],
        [trial.cluster for trial in lone],
        failed,
    )


def _under_debates(games: Sequence[Transcript], judge: AnyJudge, engine: Engine) -> Sycophancy | None:
    """Sycophancy without the calibration of lone speakers; None where the judge has none, or is a panel."""
    if isinstance(judge, Panel) or judge.calibrator is None or judge.calibrator.lone is None:
        return None
    symmetric = judge.calibrator.model_copy(update={"lone": None})
    lone, failed = _consultant_trials(games, judge.model_copy(update={"calibrator": symmetric}), engine)
    return _sycophancy(lone, failed)
