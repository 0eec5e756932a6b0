"""Effects of learning by reinforcement: judge hacking, judges compared and attacked, debaters and judge in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from debate_rl.analysis.behaviour.game_features import Played
from debate_rl.analysis.effects.debate import said_row, valid_quotes
from debate_rl.analysis.effects.judge import Seeds, both_orders, brier, is_self_play, order_effect, right, where
from debate_rl.analysis.effects.row import EffectRow, Scored, Unit, mean_rows, paired
from debate_rl.analysis.effects.training import minus, right_of
from debate_rl.judges.attacks.robustness import Trial
from debate_rl.judges.scores import hits
from debate_rl.trainers.grpo.eval_metrics import Measured, game_values

HACKING = {
    "wins": "win rate by the training judge",
    "second_wins": "win rate by the held-out judge",
    "accuracy": "accuracy of the training judge",
    "second": "accuracy of the held-out judge",
}
"""Values of a watched game, and what their rows are called."""


def hacking_rows(first: Sequence[Sequence[Measured]], last: Sequence[Sequence[Measured]], note: str) -> list[EffectRow]:
    """Win rate and truth at the last measurement of an online training minus those at step 0, game by game.

    Args:
        first: by seed, the watched games of step 0.
        last: those of the last measurement.
        note: where they part.
    """
    rows: list[EffectRow] = []
    before = [game_values(games) for games in first]
    after = [game_values(games) for games in last]
    for key, name in HACKING.items():
        changes = []
        for old, new in zip(before, after, strict=True):
            values = {game: Scored(*value) for game, value in new[key].items()}
            changes.append(paired(values, {game: Scored(*value) for game, value in old[key].items()}))
        rows += mean_rows("online", f"{name}: last step - step 0", "points", changes, note=note)
    return rows


def compared_rows(judges: Mapping[str, Seeds]) -> list[EffectRow]:
    """Each judge on the same games, and each minus the first.

    Args:
        judges: by judge, by seed, the games with its verdicts.
    """
    rows: list[EffectRow] = []
    first = next(iter(judges), "")
    scores: dict[tuple[str, str], list[dict[str, Scored]]] = {}
    for judge, seeds in judges.items():
        for name in _COMPARED:
            scores[judge, name] = [_scores(games, name) for games in seeds]
            by_seed = [list(of_seed.values()) for of_seed in scores[judge, name]]
            rows += mean_rows("judges", f"{judge}, {name}", _COMPARED[name].unit, by_seed)
    for judge in list(judges)[1:]:
        for name, measure in _COMPARED.items():
            pairs = list(map(paired, scores[judge, name], scores[first, name]))
            rows += mean_rows("judges", f"{judge} - {first}, {name}", measure.difference_unit, pairs, measure.claim)
    return rows


class _Compared(NamedTuple):
    """Units of a measure of judges, and the claimed sign of a trained judge minus the first."""

    unit: Unit
    difference_unit: Unit
    claim: int


_COMPARED = {
    "accuracy": _Compared("%", "points", 1),
    "Brier": _Compared("Brier", "Brier", -1),
    "order effect": _Compared("%", "points", 0),
}


def _scores(games: Sequence[Played], name: str) -> dict[str, Scored]:
    """A measure of a judge, by game; the order effect only where it was asked in both orders."""
    measure = {"accuracy": right, "Brier": brier, "order effect": order_effect}[name]
    scores = {}
    for game in games:
        if name != "order effect" or both_orders(game):
            scores[game.leg.transcript.id] = Scored(measure(game.leg), game.cluster)
    return scores


def attack_rows(seeds: Sequence[Sequence[Trial]], judges: Sequence[str]) -> list[EffectRow]:
    """What attacks by the side with the wrong answer do to each judge's accuracy, and beside the first judge.

    Args:
        seeds: by seed, the trials on all judges.
        judges: their names; the others are compared with the first over all attacks together.
    """
    changes: dict[str, list[dict[tuple[str, ...], Scored]]] = {}
    attacks: dict[str, None] = {}
    for judge in judges:
        changes[judge] = []
        for trials in seeds:
            wrong = [trial for trial in trials if trial.judge == judge and trial.right is False and _attacks(trial)]
            attacks.update(dict.fromkeys(trial.attack for trial in wrong))
            changes[judge].append({(trial.attack, trial.game, trial.side): _change(trial) for trial in wrong})
    rows: list[EffectRow] = []
    for attack in attacks:
        for judge in judges:
            by_seed = []
            for of_seed in changes[judge]:
                by_seed.append([score for key, score in of_seed.items() if key[0] == attack])
            rows += mean_rows("attacks", f"{attack} on {judge}, change of accuracy", "points", by_seed)
    for judge in judges[1:]:
        pairs = list(map(paired, changes[judge], changes[judges[0]]))
        name = f"all attacks, {judge} - {judges[0]}, change of accuracy"
        rows += mean_rows("attacks", name, "points", pairs, 1, note="above 0: it is fooled less")
    return rows


def _attacks(trial: Trial) -> bool:
    """Whether something was changed; `position` and lone consultants show a judge's leaning without an attack."""
    return trial.attack not in ("position", "sycophancy")


def _change(trial: Trial) -> Scored:
    """How much more often the judge is right about a game after its wrong side attacked."""
    before, after = hits([1 - trial.before, 1 - trial.after])
    return Scored(float(after - before), trial.cluster)


class Turns(NamedTuple):
    """The test games of the first and the last measurement of a training in turns, by seed, as each judge saw them.

    Attributes:
        start: the first debater.
        last: the debater after the last turn.
        judged: with the verdicts of the judge of that time.
        paying: with those of the judge, or judges, that the debater was trained against; with games against the start.
        held_out: with those of the held-out judge, likewise.
    """

    start: str
    last: str
    judged: Seeds
    paying: Seeds
    held_out: Seeds


def turn_rows(turns: Turns) -> list[EffectRow]:
    """The debater after the last turn against the first one: quotes, three judges' accuracy, and win rates."""
    group, start, last = "cotraining", turns.start, turns.last
    alone = where(turns.judged, is_self_play)
    rows = said_row(group, alone, start, last, "speeches with valid quotes only", "points", valid_quotes, 0)
    judges = {
        "the judge in training": turns.judged,
        "the judge that pays": turns.paying,
        "the held-out judge": turns.held_out,
    }
    for judge, seeds in judges.items():
        changes = minus(where(seeds, is_self_play), last, start, right_of)
        rows += mean_rows(group, f"{last} - {start}, accuracy of {judge}", "points", changes)
    for judge in list(judges)[1:]:
        wins = []
        for games in judges[judge]:
            wins.append([_favour(game, last) for game in games if set(game.players) == {last, start}])
        rows += mean_rows(group, f"{last} against {start}, win rate by {judge}", "%", wins)
    return rows


def arm_rows(learning: Turns, frozen: Turns) -> list[EffectRow]:
    """Debaters that learnt against a judge that learns too, minus those that learnt against one that does not."""
    group, name, other = "cotraining", learning.last, frozen.last
    judged = _joined(learning.judged, frozen.judged)
    rows = said_row(group, judged, other, name, "speeches with valid quotes only", "points", valid_quotes, 1)
    changes = minus(judged, name, other, right_of)
    rows += mean_rows(group, f"{name} - {other}, accuracy of the judge in training", "points", changes, 1)
    changes = minus(_joined(learning.held_out, frozen.held_out), name, other, right_of)
    return rows + mean_rows(group, f"{name} - {other}, accuracy of the held-out judge", "points", changes, 1)


def _joined(first: Seeds, second: Seeds) -> list[list[Played]]:
    """By seed, the games of players with themselves in both."""
    joined = [[*one, *two] for one, two in zip(first, second, strict=True)]
    return where(joined, is_self_play)


def _favour(game: Played, player: str) -> Scored:
    """The judge's probability for a player in its game against another."""
    verdict, seats = game.leg.verdict, game.leg.transcript.players
    if verdict is None:
        raise ValueError("a leg without a verdict")
    side = next(side for side, name in seats.items() if name == player)
    return Scored(verdict.p_side(side), game.cluster)
