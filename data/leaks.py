"""Leaks of a task: texts that are nearly the same in two groups, and answers whose wording gives their label away.

Both are measured, with what was found: a split that cuts by group only is as good as its groups, and a student that
reads the label off the wording of an answer learns nothing from its supervisor.
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
"""Groups from which a run is wording of the task ("which of the following is"), not a sign of a copy (ours)."""
SHORT = 24
"""Words below which two texts must be alike letter by letter as well: runs of a question are few (ours)."""
ALIKE = 90.0
"""Similarity of short texts, in percent of rapidfuzz's ratio (ours)."""
FOLDS = 5


def near_duplicates(texts: Sequence[str], groups: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places whose texts are nearly the same although their groups differ.

    Half of the shorter text's runs of four words stand in the other; texts under 24 words have to be alike in 90 % of
    their letters too. Only runs that few groups hold are looked up, so the cost is close to that of reading the texts.

    Args:
        texts: (n,) what is to be told apart, such as question and passage.
        groups: (n,) group of each; texts of one group are not compared.

    Returns:
        Pairs (i, j), i < j, in order.
    """
    found = [runs(text, RUN) for text in texts]
    holders: dict[int, list[int]] = defaultdict(list)
    for place, run_set in enumerate(found):
        for run in run_set:
            holders[run].append(place)
    held = {run: places for run, places in holders.items() if len(places) > 1}
    held = {run: places for run, places in held.items() if 1 < len({groups[place] for place in places}) <= COMMON}
    tidy = [" ".join(words(text)) for text in texts]
    pairs = []
    for place, run_set in enumerate(found):
        shared = Counter(other for run in run_set for other in held.get(run, ()) if other > place)
        for other, count in shared.items():
            if groups[place] == groups[other] or count < SAME * min(len(run_set), len(found[other])):
                continue
            short = min(tidy[place].count(" "), tidy[other].count(" ")) + 1 < SHORT
            if not short or fuzz.ratio(tidy[place], tidy[other]) >= ALIKE:
                pairs.append((place, other))
    return sorted(pairs)


def joined_groups(groups: Sequence[str], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Groups in which pairs of places, such as near-duplicates, are together: what a split must not cut.

    Returns:
        (n,) group of each place; a joined group has the name that sorts first among its own.
    """
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    for first, second in pairs:
        low, high = sorted((root(groups[first]), root(groups[second])))
        parent[high] = low
    return [root(group) for group in groups]


class Leak(Record):
    """How well the label is told from the answer alone, question unseen; cross-validated, no group in two folds.

    Example:
        Leak(items=988, chance=0.5, form=Estimate(value=0.51, ...), words=Estimate(value=0.56, ...))
    """

    items: int
    chance: float
    """Share of the commoner label."""
    form: Estimate
    """Accuracy from lengths, case, digits and punctuation."""
    words: Estimate
    """Accuracy from the words as well."""

    @property
    def leaks(self) -> bool:
        """Whether an interval lies above chance."""
        return any(one.low is not None and one.low > self.chance for one in (self.form, self.words))

    def __str__(self) -> str:
        """One line for the log."""
        said = "above chance" if self.leaks else "not above chance"
        return (
            f"label from the answer alone, {said} ({self.chance:.3f}): by form {self.form:.3f}, by words "
            f"{self.words:.3f} (n {self.items}, {self.words.clusters} groups)"
        )


def answer_leak(items: Sequence[BinaryItem], seed: int = 0) -> Leak | None:
    """Train classifiers to tell the label from the answer text alone.

    Args:
        items: of one task; those without a label are left out. What is read is `answer`; a task whose items offer
            none (BoolQ: the answer is always yes) has no answer to leak.
        seed: of the folds.

    Returns:
        Accuracies with intervals over groups, or None where items have no answers.

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
    hits = {name: _hits(answers, labels, groups, seed, name == "words") for name in ("form", "words")}
    estimates = {name: mean(found, groups, seed=seed) for name, found in hits.items()}
    return Leak(items=len(known), chance=float(counts.max() / counts.sum()), **estimates)


def _form(answers: Sequence[str]) -> np.ndarray:
    """Lengths, case, digits and punctuation of answers, (n, 10)."""
    return np.array(
        [
            [
                np.log1p(len(answer)), np.log1p(answer.count(" ")), answer[:1].isupper(), answer[-1:] in ".!?",
                answer.isupper(), any(c.isdigit() for c in answer), "," in answer, any(c in "'\"-" for c in answer),
                sum(c.isupper() for c in answer) / max(1, len(answer)), answer != answer.strip(),
            ]
            for answer in answers
        ],
        dtype=float,
    )  # fmt: skip


def _hits(
    answers: Sequence[str], labels: np.ndarray, groups: Sequence[Hashable], seed: int, with_words: bool
) -> np.ndarray:
    """1 where the label of a left-out fold was told, else 0, (n,)."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    form, found = _form(answers), np.zeros(len(answers))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(form, labels, groups):
        scale = StandardScaler().fit(form[train])
        sets: list[Any] = [csr_matrix(scale.transform(form[part])) for part in (train, test)]
        if with_words:
            texts = [[answers[place] for place in part] for part in (train, test)]
            counted = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", lowercase=False).fit(texts[0])
            sets = [hstack([one, counted.transform(part)]).tocsr() for one, part in zip(sets, texts, strict=True)]
        model = LogisticRegression(max_iter=1000).fit(sets[0], labels[train])
        found[test] = model.predict(sets[1]) == labels[test]
    return found
