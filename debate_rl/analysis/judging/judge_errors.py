"""What a judge's errors do downstream: verdicts of a finished run spoilt at known rates, and what follows from them.

Nothing is generated or trained: ratings are fitted again, preference pairs are made again, and hits are scored again,
from records with errors put in by `judges.errors.inject`. A training on labels with errors
takes `Labelling(errors=RATE)` of weak_to_strong.labels.

- flip: a verdict p becomes 1 - p with probability `rate`. Which ones is drawn by name and seed, and a verdict that
  is wrong at one rate is wrong at every higher one, so that rates can be compared.
- mix: every verdict becomes (1 - rate) p + rate (1 - p), which is what flips give on average.

The explanation paper (arXiv 2409.07335) asks for such errors and their effect; measures and rates here are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from debate_rl.analysis.behaviour.game_features import read_played
from debate_rl.arena.bradley_terry import RIDGE, fit, sum_matches
from debate_rl.arena.ratings import ELO
from debate_rl.arena.rollout import read_pools
from debate_rl.arena.tournament import outcomes
from debate_rl.errors import UserError, existing
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Estimate, Floats, Replicates, clusters, mean, resample
from debate_rl.judges.errors import Kind, inject
from debate_rl.players.speak import Pool
from debate_rl.records import Record, read_json
from debate_rl.trainers.common.rows import preference_rows
from debate_rl.trainers.common.settings import Objective
from debate_rl.weak_to_strong.results.pgr import recovered
from debate_rl.weak_to_strong.results.predictions import Hits, read_hits

RATES = (0.0, 0.05, 0.1, 0.2, 0.3)
DRAWS = 100
"""Resamples of stories for ratings, each with errors of its own; every one is a fit."""


class RatingErrors(Record):
    """Ratings of a tournament from verdicts with errors, against those from the same games without.

    Example:
        RatingErrors(rate=0.1, spread=Estimate(value=0.79, ...), rank=Estimate(value=0.98, ...),
                     elo={"sft": 1012.4, "dpo": 1029.8})
    """

    rate: float
    spread: Estimate
    """Standard deviation of the players' Elo, in shares of that without errors: errors draw ratings together."""
    rank: Estimate
    """Spearman correlation with the ratings without errors."""
    elo: dict[str, float]


class PreferenceErrors(Record):
    """Pairs for DPO from verdicts with errors, against those from the same pools without.

    Example:
        PreferenceErrors(rate=0.1, flipped=Estimate(value=0.09, ...), target=0.66, target_change=Estimate(...),
                         pairs=598, wrong=Estimate(value=0.12, ...), gap=Estimate(value=0.07, ...))
    """

    rate: float
    flipped: Estimate
    """Share of the pairs without errors whose order flips; scores that become equal count half."""
    target: Estimate
    """Mean soft target of these pairs: the probability that the truly better speech is preferred."""
    target_change: Estimate
    """Mean absolute change of that probability."""
    pairs: int
    """Pairs made anew from the spoilt scores."""
    wrong: Estimate | None
    """Of the pairs made anew, the share whose order is wrong by the scores without errors: pairs are chosen for wide
    gaps, and errors make gaps wide."""
    gap: Estimate | None
    """Of the pairs made anew, the mean gap by the scores without errors: what DPO has left to learn from."""


class TransferErrors(Record):
    """Weak labels with errors: what the labels themselves recover of the gap, before any student is trained on them.

    Example:
        TransferErrors(rate=0.1, method="debate", labels=Estimate(value=0.87, ...),
                       supervisor=Estimate(value=0.86, ...), pgr=Estimate(value=0.55, ...), breaks_even=0.21)
    """

    rate: float
    method: str
    labels: Estimate
    """Accuracy of the hard labels on D2."""
    supervisor: Estimate
    """Accuracy of the supervisor on the test items."""
    pgr: Estimate | None
    """PGR of a student that repeats the supervisor; None where the gap is not above 0."""
    breaks_even: float | None
    """Rate at which that PGR is 0; None where it is below 0 without errors."""


class JudgeErrors(Record):
    """Everything that could be scored again in a run."""

    run: str
    kind: Kind
    ratings: dict[str, tuple[RatingErrors, ...]] = {}
    """By tournament stage."""
    preferences: dict[str, tuple[PreferenceErrors, ...]] = {}
    """By preferences stage."""
    transfer: dict[str, tuple[TransferErrors, ...]] = {}
    """By weak-to-strong stage."""

    def __str__(self) -> str:
        """Tables for the terminal."""
        lines = [f"{self.run}: verdicts with errors ({self.kind})"]
        for name, ratings in self.ratings.items():
            lines.append(f"ratings of {name}\n {'rate':<6} {'spread of Elo, share':<26} rank correlation")
            lines += [f" {row.rate:<6g} {f'{row.spread:.2f}':<26} {row.rank:.2f}" for row in ratings]
        for name, pairs in self.preferences.items():
            head = f" {'rate':<6} {'pairs flipped':<24} {'soft target':<24} {'its change':<24} {'new pairs wrong':<24}"
            lines.append(f"pairs of {name}\n{head} gap left")
            lines += [
                f" {row.rate:<6g} {_shown(row.flipped):<24} {_shown(row.target):<24} {_shown(row.target_change):<24} "
                f"{_shown(row.wrong):<24} {_shown(row.gap)}"
                for row in pairs
            ]
        for name, transfer in self.transfer.items():
            head = (
                f" {'rate':<6} {'method':<10} {'labels right':<24} {'supervisor right':<24} {'PGR of its labels':<24}"
            )
            lines.append(f"labels of {name}\n{head} breaks even at")
            lines += [
                f" {row.rate:<6g} {row.method:<10} {f'{row.labels:.3f}':<24} {f'{row.supervisor:.3f}':<24} "
                f"{_shown(row.pgr, 2):<24} {'-' if row.breaks_even is None else f'{row.breaks_even:.3f}'}"
                for row in transfer
            ]
        return "\n".join(lines)


def _shown(found: Estimate | None, digits: int = 3) -> str:
    return "-" if found is None else f"{found:.{digits}f}"


def _name(game: Transcript) -> str:
    """A game's name for drawing errors; unlike its id it stays when protocols get new fields."""
    return f"{game.question.id} {game.protocol.name} {sorted(game.players.items())} {game.seed}"


def rating_errors(
    legs: Sequence[Leg],
    rates: Sequence[float] = RATES,
    kind: Kind = "flip",
    *,
    ridge: float = RIDGE,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[RatingErrors]:
    """Rate players from verdicts with errors.

    Args:
        legs: of a tournament, self-play included or not; those without a verdict are left out.
        rates: of errors.
        kind: flip or mix.
        ridge: see `arena.ratings.rate`.
        seed: of errors and resamples.
        draws: resamples of stories. Each has errors of its own and is compared with its own ratings without errors, so
            the intervals hold both.

    Raises:
        UserError: no cross-play, or a comparison graph that is not connected.
    """
    played = [leg for leg in legs if leg.verdict is not None and len(set(leg.transcript.players.values())) == 2]
    clean = outcomes(played)
    names = [_name(leg.transcript) for leg in played]
    codes = clusters(clean.labels, len(played))
    count = int(codes.max()) + 1
    weights = [None, *(row[codes] for block in resample(count, draws, seed) for row in block)]

    def ratings(rate: float, number: int) -> Floats:
        spoilt = inject(clean.score, names, rate, kind, seed + number)
        cells = sum_matches(clean._replace(score=spoilt, weights=weights[number]))
        return ELO * fit(cells, ridge)[: len(cells.players)]

    true = [ratings(0.0, number) for number in range(draws + 1)]
    players = sum_matches(clean).players
    found = []
    for rate in rates:
        own = [ratings(rate, number) for number in range(draws + 1)]
        pairs = [(one, two) for one, two in zip(own, true, strict=True) if len(one) == len(players)]
        spreads = np.array([np.std(one) / np.std(two) for one, two in pairs])
        ranks = np.array([_spearman(one, two) for one, two in pairs])
        found.append(
            RatingErrors(
                rate=rate,
                spread=Replicates(float(spreads[0]), spreads[1:], len(played), count).estimate(),
                rank=Replicates(float(ranks[0]), ranks[1:], len(played), count).estimate(),
                elo={name: 1000 + float(elo) for name, elo in zip(players, own[0], strict=True)},
            )
        )
    return found


def _spearman(one: Floats, two: Floats) -> float:
    """Rank correlation; 0 where all ratings are equal, since no order is left."""
    if np.ptp(one) < 1e-6 or np.ptp(two) < 1e-6:
        return 0.0
    from scipy.stats import spearmanr  # here: it takes a second to load

    return float(spearmanr(one, two).statistic)


def preference_errors(
    pools: Sequence[Pool],
    rates: Sequence[float] = RATES,
    kind: Kind = "flip",
    *,
    objective: Objective | None = None,
    pairs_per_pool: int = 1,
    min_gap: float = 0.0,
    seed: int = 0,
) -> list[PreferenceErrors]:
    """Make preference pairs from verdicts with errors; every judged pair of speeches may be wrong by itself.

    Args:
        pools: candidates with the judge's probabilities.
        rates: of errors.
        kind: flip or mix.
        objective: whose soft targets are compared; None takes the default ones.
        pairs_per_pool: as in the stage.
        min_gap: as in the stage.
        seed: of the errors.

    Raises:
        UserError: the pools give no pair without errors.
    """
    wanted = objective or Objective()
    clean = [_pairs(pool, pool.scores, pairs_per_pool, min_gap) for pool in pools]
    if not any(clean):
        raise UserError("no pool gives a pair without errors; there is nothing to compare")
    return [_preference(pools, clean, rate, kind, wanted, pairs_per_pool, min_gap, seed) for rate in rates]


def _preference(
    pools: Sequence[Pool],
    clean: Sequence[Sequence[tuple[int, int]]],
    rate: float,
    kind: Kind,
    objective: Objective,
    pairs_per_pool: int,
    min_gap: float,
    seed: int,
) -> PreferenceErrors:
    """One rate."""
    labels, before, after = list[str](), list[tuple[float, float]](), list[tuple[float, float]]()
    new_labels, gaps = list[str](), list[float]()
    for pool, pairs in zip(pools, clean, strict=True):
        scores = _spoilt(pool, rate, kind, seed)
        cluster = pool.transcript.question.cluster
        for better, worse in pairs:
            labels.append(cluster)
            before.append((pool.scores[better], pool.scores[worse]))
            after.append((scores[better], scores[worse]))
        for better, worse in _pairs(pool, scores, pairs_per_pool, min_gap):
            new_labels.append(cluster)
            gaps.append(pool.scores[better] - pool.scores[worse])
    was, now = _targets(before, objective), _targets(after, objective)
    order = np.sign([better - worse for better, worse in after])
    return PreferenceErrors(
        rate=rate,
        flipped=mean((1 - order) / 2, labels),
        target=mean(now, labels),
        target_change=mean(np.abs(now - was), labels),
        pairs=len(gaps),
        wrong=mean((1 - np.sign(gaps)) / 2, new_labels) if gaps else None,
        gap=mean(gaps, new_labels) if gaps else None,
    )


def _spoilt(pool: Pool, rate: float, kind: Kind, seed: int) -> tuple[float, ...]:
    """Scores of a pool's candidates from verdicts with errors."""
    where = f"{_name(pool.transcript)} {pool.side} {pool.turn}"
    rows = [
        inject(row, [f"{where} {index} {column}" for column in range(len(row))], rate, kind, seed)
        for index, row in enumerate(pool.p)
    ]
    return tuple(float(row.min() if pool.aggregate == "min" else row.mean()) for row in rows)


def _pairs(pool: Pool, scores: Sequence[float], pairs_per_pool: int, min_gap: float) -> list[tuple[int, int]]:
    """Pairs (better, worse) of a pool by some scores, made as the stage makes them; indices of candidates."""
    places: dict[tuple[str, float], int] = {}
    for index, (speech, score) in enumerate(zip(pool.candidates, scores, strict=True)):
        places.setdefault((speech.text, score), index)
    rows = preference_rows(
        [], [(speech.text, score) for speech, score in zip(pool.candidates, scores, strict=True)],
        pairs_per_pool=pairs_per_pool, min_gap=min_gap,
    )  # fmt: skip
    return [(places[row.chosen, row.p_chosen], places[row.rejected, row.p_rejected]) for row in rows]


def _targets(pairs: Sequence[tuple[float, float]], objective: Objective) -> Floats:
    """Soft targets of (n,) pairs, of the first speech over the second; below 1/2 where it has become the worse one.

    A hard target (binary) prefers whichever speech scores higher.
    """
    one, two = np.array(pairs, dtype=float).T
    if objective.target == "binary":
        return (1 + np.sign(one - two)) / 2
    import torch  # here: a command that only reads ratings need not load it

    from debate_rl.trainers.common.losses import preference_target

    found = preference_target(
        torch.tensor(one), torch.tensor(two), objective.target, objective.gamma, objective.m, objective.t
    )
    return np.asarray(found.numpy(), dtype=float)


def transfer_errors(
    hits: Hits, rates: Sequence[float] = RATES, kind: Kind = "flip", *, seed: int = 0
) -> list[TransferErrors]:
    """Weak labels with errors, for every method of a study.

    The student is not trained again: PGR here is that of a student that repeats its supervisor, a bound for what can
    be learnt by heart. Students are known to do better than their labels (Burns et al. 2023).

    Raises:
        UserError: tables whose shapes do not match.
    """
    found = []
    weak, ceiling = hits.right("weak"), hits.right("ceiling")
    for method in hits.methods:
        if f"{method}/supervisor" not in hits.test:
            continue  # its labels come from a file
        supervisor = hits.right(f"{method}/supervisor")
        own = float(np.mean(supervisor))
        even = (own - weak.mean()) / (2 * own - 1) if own > max(weak.mean(), 0.5) else None
        for rate in rates:
            labels = _spoilt_table(hits.labels_right(method), hits.label_items, rate, kind, f"{seed} {method} labels")
            tests = _spoilt_table(supervisor, hits.test_items, rate, kind, f"{seed} {method} test")
            scored = recovered(weak, tests, ceiling, hits.test_clusters)
            found.append(
                TransferErrors(
                    rate=rate, method=method, labels=mean(labels.mean(axis=0), hits.label_clusters),
                    supervisor=scored.student, pgr=scored.pgr, breaks_even=even,
                )
            )  # fmt: skip
    return found


def _spoilt_table(table: Floats, items: Sequence[str], rate: float, kind: Kind, seed: str) -> Floats:
    """Hits (seeds, items) with errors."""
    return np.array(
        [
            inject(row, [f"{seed} {number} {item}" for item in items], rate, kind)
            for number, row in enumerate(table)
        ]
    )  # fmt: skip


def judge_errors(
    folder: str | Path, rates: Sequence[float] = RATES, kind: Kind = "flip", *, seed: int = 0, draws: int = DRAWS
) -> JudgeErrors:
    """Score a finished run again with errors in its verdicts; stages that it has not finished are left out.

    Raises:
        UserError: the folder is no run, or has no stage with verdicts to spoil.
    """
    root = existing(folder, "run")
    kinds = {path.parent.name: str(read_json(path).get("kind", "")) for path in sorted(root.glob("[!.]*/stage.json"))}
    objective = _objective(root)
    found = JudgeErrors(
        run=root.name,
        kind=kind,
        ratings={
            name: tuple(
                rating_errors([game.leg for game in read_played(root / name / "legs.jsonl")], rates, kind,
                              ridge=_ridge(root / name), seed=seed, draws=draws)
            )
            for name in kinds if kinds[name] == "tournament"
        },
        preferences={
            name: tuple(preference_errors(read_pools(root / name / "pools.jsonl"), rates, kind, objective=objective,
                                          seed=seed, **_pairing(root, name)))
            for name in kinds if (root / name / "pools.jsonl").is_file()
        },
        transfer={
            name: tuple(transfer_errors(hits, rates, kind, seed=seed))
            for name in kinds if (hits := read_hits(root / name)) is not None
        },
    )  # fmt: skip
    if not (found.ratings or found.preferences or found.transfer):
        raise UserError(f"{root}: no finished tournament, preferences or weak_to_strong stage; run one of these first")
    return found


def _ridge(stage: Path) -> float:
    """The ridge that the stage's own ratings were fitted with."""
    return float((read_json(stage / "metrics.json").get("ratings") or {}).get("ridge", RIDGE))


def _settings(root: Path) -> dict[str, Any]:
    """Stages of the run's config, as they are written."""
    import yaml

    tree = yaml.safe_load(existing(root / "config.yaml", "config").read_text(encoding="utf-8"))
    return dict(tree.get("stages") or {})


def _pairing(root: Path, name: str) -> dict[str, Any]:
    """How the stage made its pairs."""
    stage = _settings(root).get(name) or {}
    return {key: stage[key] for key in ("pairs_per_pool", "min_gap") if key in stage}


def _objective(root: Path) -> Objective:
    """The objective of the run's first dpo stage, whose soft targets are what errors change; else the default one."""
    stages = [stage or {} for name, stage in _settings(root).items() if (stage or {}).get("kind", name) == "dpo"]
    return Objective.model_validate((stages[0].get("objective") if stages else None) or {})
