"""Downstream effects of judge errors: verdicts of a finished run are corrupted at known rates and scored again.

Nothing is generated or trained: ratings are fitted again, preference pairs are made again, and the labels of
weak-to-strong studies are scored again, from records with errors put in by `judges.errors.inject`. To train a debater
on such pairs, set `errors` of the stage `preferences`; a student on such labels, `Labelling(errors=RATE)` of
weak_to_strong.labels.

- flip: a verdict p becomes 1 - p with probability `rate`. Name and seed decide which ones, and a verdict that is wrong
  at one rate is wrong at every higher one, so that rates can be compared.
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
from debate_rl.arena.pool_errors import error_name, with_errors
from debate_rl.arena.ratings import ELO
from debate_rl.arena.rollout import read_pools
from debate_rl.arena.tournament import outcomes
from debate_rl.errors import UserError, existing
from debate_rl.game import run_files
from debate_rl.game.verdict import JudgedDebate
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
"""Resamples of stories for ratings; few, because each one draws its own errors and fits ratings."""


class RatingErrors(Record):
    """Ratings of a tournament from verdicts with errors, compared with those from the same games without errors.

    Example:
        RatingErrors(rate=0.1, spread=Estimate(value=0.79, ...), rank=Estimate(value=0.98, ...),
                     elo={"sft": 1012.4, "dpo": 1029.8})
    """

    rate: float
    spread: Estimate
    """Standard deviation of the players' Elo as a share of that without errors; errors draw ratings together."""
    rank: Estimate
    """Spearman correlation with the ratings without errors."""
    elo: dict[str, float]
    """Elo from verdicts with errors, by player."""


class PreferenceErrors(Record):
    """DPO pairs from verdicts with errors, compared with those from the same pools without errors.

    Example:
        PreferenceErrors(rate=0.1, flipped=Estimate(value=0.09, ...), target=0.66, target_change=Estimate(...),
                         pairs=598, wrong=Estimate(value=0.12, ...), gap=Estimate(value=0.07, ...))
    """

    rate: float
    flipped: Estimate
    """Share of the error-free pairs whose order flips; pairs whose scores become equal count half."""
    target: Estimate
    """Mean soft target of these pairs: the probability of preferring the speech that is better without errors."""
    target_change: Estimate
    """Mean absolute change of that probability."""
    pairs: int
    """Pairs made again from the scores with errors."""
    wrong: Estimate | None
    """Share of the pairs made again whose order is wrong by the error-free scores. It can exceed the error rate,
    because pairs are chosen for wide gaps and errors make gaps wide."""
    gap: Estimate | None
    """Mean error-free gap of the pairs made again: the signal that is left for DPO."""


class TransferErrors(Record):
    """Weak labels with errors: how much of the gap the labels recover, before a student is trained on them.

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
    """Error rate at which that PGR is 0; None where it is below 0 without errors."""


class JudgeErrors(Record):
    """All results of a run that could be scored again with errors."""

    run: str
    kind: Kind
    ratings: dict[str, tuple[RatingErrors, ...]] = {}
    """Ratings by tournament stage."""
    preferences: dict[str, tuple[PreferenceErrors, ...]] = {}
    """Pairs by preferences stage."""
    transfer: dict[str, tuple[TransferErrors, ...]] = {}
    """Labels by weak-to-strong stage."""

    def __str__(self) -> str:
        """Tables for the terminal."""
        lines = [f"{self.run}: verdicts with errors ({self.kind})"]
        for name, ratings in self.ratings.items():
            lines.append(f"ratings of {name}")
            lines.append(_line(_RATING_WIDTHS, "rate", "spread of Elo, share", "rank correlation"))
            lines += [_line(_RATING_WIDTHS, f"{row.rate:g}", f"{row.spread:.2f}", f"{row.rank:.2f}") for row in ratings]
        for name, preferences in self.preferences.items():
            lines.append(f"pairs of {name}")
            heads = ["rate", "pairs flipped", "soft target", "its change", "new pairs wrong", "gap left"]
            lines.append(_line(_PREFERENCE_WIDTHS, *heads))
            for pairs in preferences:
                estimates = [pairs.flipped, pairs.target, pairs.target_change, pairs.wrong, pairs.gap]
                cells = [_cell(estimate) for estimate in estimates]
                lines.append(_line(_PREFERENCE_WIDTHS, f"{pairs.rate:g}", *cells))
        for name, transfer in self.transfer.items():
            lines.append(f"labels of {name}")
            heads = ["rate", "method", "labels right", "supervisor right", "PGR of its labels", "breaks even at"]
            lines.append(_line(_TRANSFER_WIDTHS, *heads))
            for labels in transfer:
                cells = [_cell(labels.labels), _cell(labels.supervisor), _cell(labels.pgr, 2)]
                even = "-" if labels.breaks_even is None else f"{labels.breaks_even:.3f}"
                lines.append(_line(_TRANSFER_WIDTHS, f"{labels.rate:g}", labels.method, *cells, even))
        return "\n".join(lines)


_RATING_WIDTHS = (6, 26, 0)
_PREFERENCE_WIDTHS = (6, 24, 24, 24, 24, 0)
_TRANSFER_WIDTHS = (6, 10, 24, 24, 24, 0)


def _line(widths: Sequence[int], *cells: str) -> str:
    """One indented line of a table; the last column has no padding."""
    return " " + " ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))


def _cell(estimate: Estimate | None, digits: int = 3) -> str:
    """An estimate with its interval; a dash for none."""
    return "-" if estimate is None else f"{estimate:.{digits}f}"


def rating_errors(
    legs: Sequence[JudgedDebate],
    rates: Sequence[float] = RATES,
    kind: Kind = "flip",
    *,
    ridge: float = RIDGE,
    seed: int = 0,
    draws: int = DRAWS,
) -> list[RatingErrors]:
    """Rate players from verdicts with errors.

    Args:
        legs: legs of a tournament, with or without self-play; those without a verdict are left out.
        rates: error rates.
        kind: flip or mix.
        ridge: penalty of the fit, see `arena.ratings.rate`.
        seed: seed of errors and resamples.
        draws: resamples of stories. Each draws its own errors and is compared with its own error-free ratings, so the
            intervals cover both.

    Raises:
        UserError: no cross-play, or a comparison graph that is not connected.
    """
    judged = [leg for leg in legs if leg.verdict is not None and len(set(leg.transcript.players.values())) == 2]
    clean = outcomes(judged)
    names = [error_name(leg.transcript) for leg in judged]
    codes = clusters(clean.labels, len(judged))
    count = int(codes.max()) + 1
    # Draw 0 is the data themselves; the others weigh each game by how often its story was drawn.
    weights: list[Floats | None] = [None]
    for block in resample(count, draws, seed):
        weights += [story_weights[codes] for story_weights in block]

    def fit_draw(rate: float, draw: int) -> Floats:
        # Each draw has errors of its own; the same draw at two rates has the same ones and more.
        scores = inject(clean.score, names, rate, kind, seed + draw)
        cells = sum_matches(clean._replace(score=scores, weights=weights[draw]))
        return ELO * fit(cells, ridge)[: len(cells.players)]

    clean_elo = [fit_draw(0.0, draw) for draw in range(draws + 1)]
    players = sum_matches(clean).players
    rows = []
    for rate in rates:
        elo_by_draw = [fit_draw(rate, draw) for draw in range(draws + 1)]
        spreads = []
        ranks = []
        for elo, true_elo in zip(elo_by_draw, clean_elo, strict=True):
            # A resample may miss every game of a player; its ratings can not be compared with the others.
            if len(elo) == len(players):
                spreads.append(float(np.std(elo) / np.std(true_elo)))
                ranks.append(_spearman(elo, true_elo))
        rows.append(
            RatingErrors(
                rate=rate,
                spread=_estimate(spreads, len(judged), count),
                rank=_estimate(ranks, len(judged), count),
                elo={name: 1000 + float(elo) for name, elo in zip(players, elo_by_draw[0], strict=True)},
            )
        )
    return rows


def _estimate(draws: Sequence[float], games: int, stories: int) -> Estimate:
    """Estimate of a statistic from its value on the data, which comes first, and on the resamples."""
    return Replicates(float(draws[0]), np.array(draws[1:]), games, stories).estimate()


def _spearman(first: Floats, second: Floats) -> float:
    """Rank correlation; 0 where all ratings are equal, since no order is left."""
    if np.ptp(first) < 1e-6 or np.ptp(second) < 1e-6:
        return 0.0
    from scipy.stats import spearmanr  # here: it takes a second to load

    return float(spearmanr(first, second).statistic)


class _Pairing(Record):
    """How a preferences stage makes pairs, as its config says."""

    pairs_per_pool: int = 1
    min_gap: float = 0.0


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
    """Make preference pairs from verdicts with errors, drawn for each judged pair of speeches on its own.

    Args:
        pools: candidates with the judge's probabilities.
        rates: error rates.
        kind: flip or mix.
        objective: objective whose soft targets are compared; None takes the default one.
        pairs_per_pool: pairs made of each pool, as in the stage.
        min_gap: smallest gap of scores in a pair, as in the stage.
        seed: seed of the errors.

    Raises:
        UserError: the pools give no pair without errors.
    """
    objective = objective or Objective()
    pairing = _Pairing(pairs_per_pool=pairs_per_pool, min_gap=min_gap)
    clean_pairs = [_pairs(pool, pool.scores, pairing) for pool in pools]
    if not any(clean_pairs):
        raise UserError("no pool gives a pair without errors; there is nothing to compare")
    rows = []
    for rate in rates:
        noisy_scores = [with_errors(pool, rate, kind, seed).scores for pool in pools]
        rows.append(_compare_pairs(rate, pools, clean_pairs, noisy_scores, objective, pairing))
    return rows


def _compare_pairs(
    rate: float,
    pools: Sequence[Pool],
    clean_pairs: Sequence[Sequence[tuple[int, int]]],
    noisy_scores: Sequence[tuple[float, ...]],
    objective: Objective,
    pairing: _Pairing,
) -> PreferenceErrors:
    """Compare the pairs of all pools with and without errors at one rate."""
    # Two questions: what becomes of the pairs made without errors, and which pairs are made with them.
    labels = []
    before = []
    after = []
    new_labels = []
    new_gaps = []
    for pool, pairs, scores in zip(pools, clean_pairs, noisy_scores, strict=True):
        cluster = pool.transcript.question.cluster
        for better, worse in pairs:
            labels.append(cluster)
            before.append((pool.scores[better], pool.scores[worse]))
            after.append((scores[better], scores[worse]))
        for better, worse in _pairs(pool, scores, pairing):
            new_labels.append(cluster)
            new_gaps.append(pool.scores[better] - pool.scores[worse])
    clean_targets = _targets(before, objective)
    noisy_targets = _targets(after, objective)
    order = np.sign([better - worse for better, worse in after])
    return PreferenceErrors(
        rate=rate,
        flipped=mean((1 - order) / 2, labels),
        target=mean(noisy_targets, labels),
        target_change=mean(np.abs(noisy_targets - clean_targets), labels),
        pairs=len(new_gaps),
        wrong=mean((1 - np.sign(new_gaps)) / 2, new_labels) if new_gaps else None,
        gap=mean(new_gaps, new_labels) if new_gaps else None,
    )


def _pairs(pool: Pool, scores: Sequence[float], pairing: _Pairing) -> list[tuple[int, int]]:
    """Indices (better, worse) of the candidates that the preferences stage would pair by these scores."""
    candidates = [(speech.text, score) for speech, score in zip(pool.candidates, scores, strict=True)]
    rows = preference_rows([], candidates, pairs_per_pool=pairing.pairs_per_pool, min_gap=pairing.min_gap)
    # Rows hold texts and scores but no indices; of equal candidates the first one stands for all.
    first_index: dict[tuple[str, float], int] = {}
    for index, candidate in enumerate(candidates):
        first_index.setdefault(candidate, index)
    pairs = []
    for row in rows:
        better = first_index[row.chosen, row.p_chosen]
        worse = first_index[row.rejected, row.p_rejected]
        pairs.append((better, worse))
    return pairs


def _targets(pairs: Sequence[tuple[float, float]], objective: Objective) -> Floats:
    """(n,) soft targets of the first speech over the second; below 1/2 where it has become the worse one.

    A hard target (binary) prefers whichever speech scores higher.
    """
    first, second = np.array(pairs, dtype=float).T
    if objective.target == "binary":
        return (1 + np.sign(first - second)) / 2
    import torch  # here: a command that only reads ratings need not load it

    from debate_rl.trainers.common.losses import preference_target

    targets = preference_target(
        torch.tensor(first), torch.tensor(second), objective.target, objective.gamma, objective.m, objective.t
    )
    return np.asarray(targets.numpy(), dtype=float)


def transfer_errors(
    hits: Hits, rates: Sequence[float] = RATES, kind: Kind = "flip", *, seed: int = 0
) -> list[TransferErrors]:
    """Score weak labels with errors, for every method of a study.

    The student is not trained again: PGR here is that of a student that repeats its supervisor, a bound for learning by
    heart. Students are known to do better than their labels (Burns et al. 2023).

    Raises:
        UserError: tables whose shapes do not match.
    """
    rows = []
    weak = hits.right("weak")
    ceiling = hits.right("ceiling")
    for method in hits.methods:
        if f"{method}/supervisor" not in hits.test:
            continue  # its labels come from a file
        supervisor = hits.right(f"{method}/supervisor")
        breaks_even = _breaks_even(float(np.mean(supervisor)), float(weak.mean()))
        for rate in rates:
            labels = _noisy_hits(hits.labels_right(method), hits.label_items, rate, kind, f"{seed} {method} labels")
            test = _noisy_hits(supervisor, hits.test_items, rate, kind, f"{seed} {method} test")
            scored = recovered(weak, test, ceiling, hits.test_clusters)
            rows.append(
                TransferErrors(
                    rate=rate,
                    method=method,
                    labels=mean(labels.mean(axis=0), hits.label_clusters),
                    supervisor=scored.student,
                    pgr=scored.pgr,
                    breaks_even=breaks_even,
                )
            )
    return rows


def _breaks_even(supervisor: float, weak: float) -> float | None:
    """Error rate at which a supervisor's accuracy falls to the weak model's; None where none can."""
    # Errors at rate e turn an accuracy a into (1 - e) a + e (1 - a); solved here for e at the weak model's accuracy.
    if supervisor <= max(weak, 0.5):
        return None
    return (supervisor - weak) / (2 * supervisor - 1)


def _noisy_hits(table: Floats, items: Sequence[str], rate: float, kind: Kind, prefix: str) -> Floats:
    """Hits (seeds, items) with errors."""
    # A hit of 1 or 0 flips like a probability; the number of the seed keeps the errors of seeds apart.
    rows = []
    for number, row in enumerate(table):
        names = [f"{prefix} {number} {item}" for item in items]
        rows.append(inject(row, names, rate, kind))
    return np.array(rows)


def judge_errors(
    folder: str | Path, rates: Sequence[float] = RATES, kind: Kind = "flip", *, seed: int = 0, draws: int = DRAWS
) -> JudgeErrors:
    """Score a finished run again with errors in its verdicts, leaving out unfinished stages.

    Raises:
        UserError: the folder is no run, or has no stage with verdicts.
    """
    root = existing(folder, "run")
    settings = _stage_settings(root)
    objective = _objective(settings)
    ratings = {}
    preferences = {}
    transfer = {}
    for path in sorted(root.glob(f"[!.]*/{run_files.STAGE}")):
        stage = path.parent
        name = stage.name
        if read_json(path).get("kind", "") == "tournament":
            legs = [game.leg for game in read_played(stage / run_files.DEBATES)]
            ratings[name] = tuple(rating_errors(legs, rates, kind, ridge=_ridge(stage), seed=seed, draws=draws))
        if (stage / run_files.POOLS).is_file():
            stage_settings = settings.get(name) or {}
            pairing = {key: stage_settings[key] for key in _Pairing.model_fields if key in stage_settings}
            pools = read_pools(stage / run_files.POOLS)
            preferences[name] = tuple(preference_errors(pools, rates, kind, objective=objective, seed=seed, **pairing))
        hits = read_hits(stage)
        if hits is not None:
            transfer[name] = tuple(transfer_errors(hits, rates, kind, seed=seed))
    if not (ratings or preferences or transfer):
        raise UserError(f"{root}: no finished tournament, preferences or weak_to_strong stage; run one of these first")
    return JudgeErrors(run=root.name, kind=kind, ratings=ratings, preferences=preferences, transfer=transfer)


def _ridge(stage: Path) -> float:
    """The ridge that the stage's own ratings were fitted with."""
    # With another ridge the spread would change even without errors.
    return float((read_json(stage / run_files.METRICS).get("ratings") or {}).get("ridge", RIDGE))


def _stage_settings(root: Path) -> dict[str, Any]:
    """The `stages` of the run's config as they are written, by name."""
    import yaml

    tree = yaml.safe_load(existing(root / run_files.CONFIG, "config").read_text(encoding="utf-8"))
    return dict(tree.get("stages") or {})


def _objective(settings: dict[str, Any]) -> Objective:
    """The objective of the first dpo stage; errors change its soft targets. Without such a stage the default one."""
    for name, written in settings.items():
        stage = written or {}  # a stage without settings is written as `dpo:`
        if stage.get("kind", name) == "dpo":
            return Objective.model_validate(stage.get("objective") or {})
    return Objective()
