"""Leaks of a task: texts that are nearly the same in two groups, and answers whose wording gives their label away.

A split by group is only as good as its groups, and a student that reads the label off the wording of an answer learns
nothing from its supervisor. So both leaks are measured.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from rapidfuzz import fuzz

from debate_rl.data.stories import SAME, runs, words
from debate_rl.data.tasks.binary_items import BinaryItem
from debate_rl.errors import UserError
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record

RUN = 4
"""Words of a run."""
COMMON = 50
"""A run that more groups hold is wording of the task ("which of the following is"), no sign of a copy (ours)."""
SHORT = 24
"""Shorter texts, in words, must also be alike letter by letter, because they have few runs (ours)."""
ALIKE = 90.0
"""Least similarity of short texts, in percent of rapidfuzz's ratio (ours)."""
FOLDS = 5
"""Folds of the cross-validation."""


def near_duplicates(texts: Sequence[str], groups: Sequence[str]) -> list[tuple[int, int]]:
    """Find pairs of texts that are nearly the same although their groups differ.

    Half of the shorter text's runs of four words must stand in the other; texts under 24 words must be alike in 90 % of
    their letters too. Only runs that few groups hold are looked up, so the cost is close to that of reading the texts.

    Args:
        texts: (n,) texts to compare, such as question and passage.
        groups: (n,) group of each; texts of one group are not compared.

    Returns:
        Pairs of positions (i, j), i < j, in order.
    """
    run_sets = [runs(text, RUN) for text in texts]
    shared_runs = _shared_runs(run_sets, groups)
    tidy = [" ".join(words(text)) for text in texts]
    pairs = []
    for place, run_set in enumerate(run_sets):
        in_common: Counter[int] = Counter()
        for run in run_set:
            in_common.update(shared_runs.get(run, ()))
        for other, count in in_common.items():
            if other <= place:
                continue  # the pair was looked at from the other text
            if groups[place] == groups[other] or count < SAME * min(len(run_set), len(run_sets[other])):
                continue
            fewest_words = min(tidy[place].count(" "), tidy[other].count(" ")) + 1
            if fewest_words >= SHORT or fuzz.ratio(tidy[place], tidy[other]) >= ALIKE:
                pairs.append((place, other))
    return sorted(pairs)


def _shared_runs(run_sets: Sequence[frozenset[int]], groups: Sequence[str]) -> dict[int, list[int]]:
    """Runs that texts of two groups or a few more hold, with the places of these texts."""
    shared = {}
    every_holder: dict[int, list[int]] = defaultdict(list)
    for place, run_set in enumerate(run_sets):
        for run in run_set:
            every_holder[run].append(place)
    for run, holders in every_holder.items():
        holding_groups = {groups[place] for place in holders}
        # A run that many groups hold is wording of the task. Leaving it out also keeps the number of pairs small.
        if 1 < len(holding_groups) <= COMMON:
            shared[run] = holders
    return shared


def joined_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Join the groups of paired texts, such as near-duplicates: a split must not cut them.

    Returns:
        (n,) group of each text; a joined group has the name that sorts first among its members.
    """
    # Union-find: each group points towards the name that sorts first.
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for first, second in pairs:
        low, high = sorted((root(groups[first]), root(groups[second])))
        parent[high] = low
    return [root(group) for group in groups]


class Leak(Record):
    """How well a classifier predicts the label from the answer alone; cross-validated, no group in two folds.

    Example:
        Leak(items=988, chance=0.5, form=Estimate(value=0.51, ...), words=Estimate(value=0.56, ...))
    """

    items: int
    chance: float
    """Share of the more frequent label."""
    form: Estimate
    """Accuracy from lengths, case, digits and punctuation."""
    words: Estimate
    """Accuracy from the words as well."""

    @property
    def leaks(self) -> bool:
        """Whether an interval lies above chance."""
        lows = (self.form.low, self.words.low)
        return any(low is not None and low > self.chance for low in lows)

    def __str__(self) -> str:
        """One line for the log."""
        verdict = "above chance" if self.leaks else "not above chance"
        return (
            f"label from the answer alone, {verdict} ({self.chance:.3f}): by form {self.form:.3f}, by words "
            f"{self.words:.3f} (n {self.items}, {self.words.clusters} groups)"
        )


def answer_leak(items: Sequence[BinaryItem], seed: int = 0) -> Leak | None:
    """Train classifiers to predict the label from the answer text alone.

    Args:
        items: items of one task; those without a label are left out. Only the field `answer` is read. A task whose
            items have none (BoolQ: the answer is always yes) has no answer to leak.
        seed: seed of the folds.

    Returns:
        Accuracies with intervals over groups, or None if items have no answers.

    Raises:
        UserError: there are fewer than five groups or one label only.
    """
    known = [item for item in items if item.label is not None]
    if not any(item.answer for item in known):
        return None
    labels = np.array([item.label for item in known])
    groups = [item.cluster for item in known]
    counts = np.bincount(labels, minlength=2)
    if len(set(groups)) < FOLDS or counts.min() < FOLDS:
        raise UserError(
            f"answer leak: {counts[0]} items with label 0 and {counts[1]} with label 1 in {len(set(groups))} groups; "
            f"give at least {FOLDS} of each"
        )
    answers = [item.answer for item in known]
    form_hits = _hits(answers, labels, groups, seed, with_words=False)
    word_hits = _hits(answers, labels, groups, seed, with_words=True)
    return Leak(
        items=len(known),
        chance=float(counts.max() / counts.sum()),
        form=mean(form_hits, groups, seed=seed),
        words=mean(word_hits, groups, seed=seed),
    )


def _form(answers: Sequence[str]) -> np.ndarray:
    """Lengths, case, digits and punctuation of answers, (n, 10)."""
    rows = []
    for answer in answers:
        row = [
            np.log1p(len(answer)),
            np.log1p(answer.count(" ")),
            answer[:1].isupper(),
            answer[-1:] in ".!?",
            answer.isupper(),
            any(character.isdigit() for character in answer),
            "," in answer,
            any(character in "'\"-" for character in answer),
            sum(character.isupper() for character in answer) / max(1, len(answer)),
            answer != answer.strip(),
        ]
        rows.append(row)
    return np.array(rows, dtype=float)


def _hits(
    answers: Sequence[str], labels: np.ndarray, groups: Sequence[Hashable], seed: int, with_words: bool
) -> np.ndarray:
    """Cross-validated hits, (n,): 1 where the label of an answer was predicted from the other folds, else 0."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    form = _form(answers)
    hits = np.zeros(len(answers))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(form, labels, groups):
        # Scale and vocabulary are fitted on the training folds alone, or the test fold would leak into them.
        scale = StandardScaler().fit(form[train])
        train_features: Any = csr_matrix(scale.transform(form[train]))
        test_features: Any = csr_matrix(scale.transform(form[test]))
        if with_words:
            train_texts = [answers[place] for place in train]
            test_texts = [answers[place] for place in test]
            vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False).fit(train_texts)
            train_features = hstack([train_features, vectorizer.transform(train_texts)]).tocsr()
            test_features = hstack([test_features, vectorizer.transform(test_texts)]).tocsr()
        model = LogisticRegression(max_iter=1000).fit(train_features, labels[train])
        hits[test] = model.predict(test_features) == labels[test]
    return hits
