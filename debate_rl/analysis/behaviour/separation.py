"""How two players' speeches differ, found automatically: a classifier on simple features tells them apart, or not.

Speeches are paired: the same question, side and turn, one of each player, so what a question asks for separates nobody.
The classifier (logistic regression) is always tested on stories it has not seen. If it can not tell who spoke, the
players do not differ in what is counted here; if it can, the features say how.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from debate_rl.analysis.behaviour.behaviour import Spoken, count_words, quoted_words
from debate_rl.analysis.behaviour.concessions import own_words
from debate_rl.game.transcript import Speech
from debate_rl.intervals import Effect, Estimate, Floats, bootstrap, difference, mean
from debate_rl.records import Record

FOLDS = 5
LEAST_STORIES = 10
"""With fewer stories a classifier has too little to learn from and to be tested on."""
WORDS = 60
"""Commonest words that are counted, of those that stand in LEAST_SHARE of the speeches."""
LEAST_SHARE = 0.01
SHOWN = 5
"""Features that are listed."""


class Feature(Record):
    """A feature of speeches in both players.

    Example:
        Feature(name="words", first=17.2, second=21.9, difference=Effect(value=-4.7, ...), weight=-0.81)
    """

    name: str
    """Of lengths and counts their name; of a word, "word: because"."""
    first: float
    second: float
    """Mean in each player's speeches."""
    difference: Effect
    """first - second, paired. Of many features the few that differ most are listed: read the p-values so."""
    weight: float
    """In a classifier of all speeches, for one standard deviation; above 0 speaks for the first player."""


class Separation(Record):
    """How well two players' speeches can be told apart.

    Example:
        Separation(first="sft", second="dpo", pairs=320, accuracy=Estimate(value=0.71, low=0.66, high=0.76, ...),
                   auc=Estimate(value=0.78, low=0.72, high=0.83, ...), features=(Feature(name="words", ...), ...))
    """

    first: str
    second: str
    pairs: int
    """Paired speeches."""
    accuracy: Estimate
    """Share of speeches of unseen stories that the classifier gives to the right player; 1/2 is chance."""
    auc: Estimate
    """Chance that it finds a speech of the first player likelier to be the first's than one of the second's."""
    features: tuple[Feature, ...]
    """Those that differ most, in standard deviations."""


def separation(every: Sequence[Spoken], first: str, second: str) -> Separation | None:
    """Tell two players apart; None where fewer than LEAST_STORIES stories have speeches of both.

    Intervals are bootstraps over stories of the classifiers' answers; the classifiers themselves are not refitted.
    """
    pairs = paired(every, first, second)
    labels = [said.question.cluster for said, _ in pairs]
    if len(set(labels)) < LEAST_STORIES:
        return None
    one, two = [said.speech for said, _ in pairs], [said.speech for _, said in pairs]
    names, table = features([*one, *two])
    is_first = np.repeat([1, 0], len(pairs))
    both = [*labels, *labels]
    scores, weights = _fitted(table, is_first, both)
    right = np.where(scores == 0.5, 0.5, (scores > 0.5) == is_first)
    gaps = [column[: len(pairs)].mean() - column[len(pairs) :].mean() for column in table.T]
    spread = table.std(axis=0)
    sizes = np.abs(np.divide(gaps, spread, out=np.zeros(len(names)), where=spread > 0))
    ranked = np.argsort(-sizes, kind="stable")[:SHOWN]
    return Separation(
        first=first,
        second=second,
        pairs=len(pairs),
        accuracy=mean(right, both),
        auc=auc(scores, is_first, both),
        features=tuple(
            _feature(names[index], table[:, index], labels, float(weights[index]))
            for index in ranked
            if sizes[index] > 0
        ),
    )


def paired(every: Sequence[Spoken], first: str, second: str) -> list[tuple[Spoken, Spoken]]:
    """Speeches of both players on the same question, side and turn; of several of one player the first by text."""
    found: dict[str, dict[tuple[str, str, int], Spoken]] = {first: {}, second: {}}
    for said in sorted(every, key=lambda said: said.speech.text):
        if said.player in found:
            found[said.player].setdefault((said.question.id, said.speech.side, said.speech.turn), said)
    return [(found[first][key], found[second][key]) for key in sorted(found[first].keys() & found[second].keys())]


def features(speeches: Sequence[Speech]) -> tuple[list[str], Floats]:
    """Names of m features and their values, (n, m): lengths, quotes, and counts of the commonest words."""
    texts = [own_words(speech) for speech in speeches]
    counts = [Counter(re.findall(r"\w+", text)) for text in texts]
    common = Counter(word for count in counts for word in count)
    least = max(2, LEAST_SHARE * len(texts))
    words = sorted(word for word, found in common.most_common(WORDS) if found >= least)
    named: dict[str, list[float]] = {
        "words": [count_words(speech.text) for speech in speeches],
        "letters in a word": [float(np.mean([len(word) for word in text.split()] or [0])) for text in texts],
        "sentences": [len(re.findall(r"[.!?]+(?:\s|$)", text)) for text in texts],
        "question and exclamation marks": [text.count("?") + text.count("!") for text in texts],
        "quotes": [len(speech.quotes) for speech in speeches],
        "valid quotes": [sum(quote.verdict != "invalid" for quote in speech.quotes) for speech in speeches],
        "quoted words": [quoted_words(speech) for speech in speeches],
        **{f"word: {word}": [count[word] for count in counts] for word in words},
    }
    return list(named), np.array(list(named.values()), dtype=float).T


def _fitted(table: Floats, is_first: Any, labels: Sequence[str]) -> tuple[Floats, Floats]:
    """P(first player) of each speech by classifiers of other stories, (n,); weights of one of all speeches, (m,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = GroupKFold(n_splits=FOLDS)
    scores = cross_val_predict(model, table, is_first, groups=labels, cv=folds, method="predict_proba")[:, 1]
    return scores, model.fit(table, is_first)[-1].coef_[0]


def auc(scores: Floats, is_first: Any, labels: Sequence[str]) -> Estimate:
    """Area under the ROC curve with an interval over stories; equal scores count half."""
    levels, place = np.unique(scores, return_inverse=True)
    positive = np.asarray(is_first, dtype=bool)

    def statistic(weights: Floats) -> float:
        firsts, seconds = (
            np.bincount(place[kept], weights=weights[kept], minlength=len(levels)) for kept in (positive, ~positive)
        )
        below = np.cumsum(seconds) - seconds / 2
        total = firsts.sum() * seconds.sum()
        return float(firsts @ below / total) if total else float("nan")

    return bootstrap(statistic, len(scores), labels).estimate()


def _feature(name: str, column: Floats, labels: Sequence[str], weight: float) -> Feature:
    """One feature of both players' paired speeches; the first player's are the first half of the column."""
    one, two = np.split(column, 2)
    return Feature(
        name=name, first=float(one.mean()), second=float(two.mean()), difference=difference(one, two, labels),
        weight=weight,
    )  # fmt: skip
