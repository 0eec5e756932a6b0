"""How two players' speeches differ: can a classifier on simple features tell who gave a speech?

Speeches are paired: one of each player on the same question, side and turn, so the question itself gives nothing away.
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
"""Most common words that are counted, if they stand in LEAST_SHARE of the speeches."""
LEAST_SHARE = 0.01
SHOWN = 5
"""Features that are listed."""


class Feature(Record):
    """A feature of speeches in both players.

    Example:
        Feature(name="words", first=17.2, second=21.9, difference=Effect(value=-4.7, ...), weight=-0.81)
    """

    name: str
    """Name of the length or count; for a word, "word: because"."""
    first: float
    second: float
    """Mean in each player's speeches."""
    difference: Effect
    """first - second, paired. The features listed are the few that differ most of many: read the p-values so."""
    weight: float
    """Weight in a classifier of all speeches, for one standard deviation; above 0 speaks for the first player."""


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
    """Share of speeches from unseen stories that the classifier attributes to the right player; 1/2 is chance."""
    auc: Estimate
    """Probability that a speech of the first player gets a higher score than one of the second player."""
    features: tuple[Feature, ...]
    """The features that differ most, in standard deviations."""


def separation(every: Sequence[Spoken], first: str, second: str) -> Separation | None:
    """Tell two players apart; None if fewer than LEAST_STORIES stories have speeches of both.

    Intervals are bootstraps over stories of the classifiers' answers; the classifiers themselves are not refitted.
    """
    pairs = paired(every, first, second)
    stories = [speech.question.cluster for speech, _ in pairs]
    # Counted in stories, not speeches: the classifier is tested on whole stories.
    if len(set(stories)) < LEAST_STORIES:
        return None
    count = len(pairs)
    speeches = [spoken.speech for spoken, _ in pairs] + [spoken.speech for _, spoken in pairs]
    names, table = features(speeches)
    # The first half of the rows is the first player's, the second half the second's, in the same order.
    is_first = np.repeat([1, 0], count)
    row_stories = [*stories, *stories]
    scores, weights = _fitted(table, is_first, row_stories)
    # An undecided answer is right half the time, as everywhere.
    right = np.where(scores == 0.5, 0.5, (scores > 0.5) == is_first)
    gaps = [column[:count].mean() - column[count:].mean() for column in table.T]
    spread = table.std(axis=0)
    sizes = np.abs(np.divide(gaps, spread, out=np.zeros(len(names)), where=spread > 0))
    listed = []
    # A stable sort: features of equal size stay in their order, whatever the platform.
    for index in np.argsort(-sizes, kind="stable")[:SHOWN]:
        if sizes[index] > 0:
            listed.append(_feature(names[index], table[:, index], stories, float(weights[index])))
    return Separation(
        first=first,
        second=second,
        pairs=count,
        accuracy=mean(right, row_stories),
        auc=auc(scores, is_first, row_stories),
        features=tuple(listed),
    )


def paired(every: Sequence[Spoken], first: str, second: str) -> list[tuple[Spoken, Spoken]]:
    """Pair the players' speeches on the same question, side and turn.

    If a player has several speeches there (games with different opponents), the first by text is taken.
    """
    speeches: dict[str, dict[tuple[str, str, int], Spoken]] = {first: {}, second: {}}
    for spoken in sorted(every, key=lambda spoken: spoken.speech.text):
        if spoken.player in speeches:
            key = (spoken.question.id, spoken.speech.side, spoken.speech.turn)
            speeches[spoken.player].setdefault(key, spoken)
    shared = sorted(speeches[first].keys() & speeches[second].keys())
    return [(speeches[first][key], speeches[second][key]) for key in shared]


def features(speeches: Sequence[Speech]) -> tuple[list[str], Floats]:
    """Describe speeches in numbers: lengths, quotes, and counts of the most common words.

    Returns:
        Names of the m features, and their values, (n, m).
    """
    texts = [own_words(speech) for speech in speeches]
    word_counts = [Counter(re.findall(r"\w+", text)) for text in texts]
    columns: dict[str, list[float]] = {
        "words": [count_words(speech.text) for speech in speeches],
        "letters in a word": [_mean_word_length(text) for text in texts],
        "sentences": [len(re.findall(r"[.!?]+(?:\s|$)", text)) for text in texts],
        "question and exclamation marks": [text.count("?") + text.count("!") for text in texts],
        "quotes": [len(speech.quotes) for speech in speeches],
        "valid quotes": [sum(quote.verdict != "invalid" for quote in speech.quotes) for speech in speeches],
        "quoted words": [quoted_words(speech) for speech in speeches],
    }
    for word in _common_words(word_counts):
        columns[f"word: {word}"] = [counts[word] for counts in word_counts]
    return list(columns), np.array(list(columns.values()), dtype=float).T


def _mean_word_length(text: str) -> float:
    lengths = [len(word) for word in text.split()]
    return float(np.mean(lengths)) if lengths else 0.0


def _common_words(word_counts: Sequence[Counter[str]]) -> list[str]:
    """The most common words, in alphabetical order; rare ones would only name single stories."""
    totals: Counter[str] = Counter()
    for counts in word_counts:
        totals.update(counts.keys())  # speeches with the word, not occurrences: one speech can repeat a name
    least = max(2, LEAST_SHARE * len(word_counts))
    return sorted(word for word, count in totals.most_common(WORDS) if count >= least)


def _fitted(table: Floats, is_first: Any, stories: Sequence[str]) -> tuple[Floats, Floats]:
    """P(first player) of each speech by a classifier of other stories, (n,); weights of one of all speeches, (m,)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    # Folds are whole stories: with speeches of one story on both sides, the classifier could learn the story.
    folds = GroupKFold(n_splits=FOLDS)
    scores = cross_val_predict(model, table, is_first, groups=stories, cv=folds, method="predict_proba")[:, 1]
    return scores, model.fit(table, is_first)[-1].coef_[0]


def auc(scores: Floats, is_first: Any, labels: Sequence[str]) -> Estimate:
    """Area under the ROC curve with an interval over stories; equal scores count half."""
    levels, level_of_row = np.unique(scores, return_inverse=True)
    positive = np.asarray(is_first, dtype=bool)

    def statistic(weights: Floats) -> float:
        firsts = np.bincount(level_of_row[positive], weights=weights[positive], minlength=len(levels))
        seconds = np.bincount(level_of_row[~positive], weights=weights[~positive], minlength=len(levels))
        # Pairs in which the first player's speech scores higher, and half of those with equal scores.
        below = np.cumsum(seconds) - seconds / 2
        total = firsts.sum() * seconds.sum()
        return float(firsts @ below / total) if total else float("nan")

    return bootstrap(statistic, len(scores), labels).estimate()


def _feature(name: str, column: Floats, stories: Sequence[str], weight: float) -> Feature:
    """One feature in both players' paired speeches; the first player's are the first half of the column."""
    first, second = np.split(column, 2)
    return Feature(
        name=name,
        first=float(first.mean()),
        second=float(second.mean()),
        difference=difference(first, second, stories),
        weight=weight,
    )
