"""What the project's intervals cover and how often its paired tests find what is not there; figures with `-s`."""

import numpy as np
import pytest

from debate_rl.analysis.significance import Condition, compare
from debate_rl.intervals import mean

SIMULATIONS = 2000
RESAMPLES = 999
LARGE = np.random.default_rng(7)


def stories(random, count, size=4):
    """The story of each question: 1 to `size` questions a story."""
    return np.repeat(np.arange(count), random.integers(1, size + 1, count))


def hits(random, labels):
    """Whether a judge is right, .8 of the time; stories differ in how hard they are."""
    return (random.random(len(labels)) < random.beta(4, 1, labels.max() + 1)[labels]).astype(float)


def briers(random, labels):
    """Brier scores of a judge, skewed: most are near 0."""
    logits = random.normal(1, 1.2, labels.max() + 1)[labels] + random.normal(size=len(labels))
    return (1 / (1 + np.exp(logits))) ** 2


def words(random, labels):
    """A symmetric measure, alike inside a story."""
    return random.normal(size=labels.max() + 1)[labels] + random.normal(size=len(labels))


def binomial(rate, n=SIMULATIONS):
    """What a rate of n simulations can be off by, 2 standard errors."""
    return 2 * np.sqrt(rate * (1 - rate) / n)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 12, 20, 40, 80])
@pytest.mark.parametrize("measure", [hits, briers, words])
def test_a_nominal_95_percent_covers_92_to_97(measure, count):
    truth = measure(LARGE, stories(LARGE, 1_000_000)).mean()
    covered = 0
    for seed in range(SIMULATIONS):
        random = np.random.default_rng([seed, count])
        labels = stories(random, count)
        found = mean(measure(random, labels), labels, resamples=RESAMPLES, seed=seed)
        covered += found.low is not None and found.low <= truth <= found.high
    share = covered / SIMULATIONS
    print(f"coverage  {measure.__name__:<8} {count:>3} stories  {share:.3f} +- {binomial(share):.3f}")
    assert 0.92 - binomial(0.92) <= share <= 0.97


def paired_p(random, labels, measure, seed):
    """Two protocols of the same worth on the same questions, which are hard for both or for neither."""
    base = random.beta(3, 1, len(labels))
    if measure == "hits":
        values = [(random.random(len(labels)) < base).astype(float) for _ in range(2)]
    else:
        values = [(1 - np.clip(base + random.normal(0, 0.15, len(labels)), 0, 1)) ** 2 for _ in range(2)]
    names = [f"q{index}" for index in range(len(labels))]
    one, two = (Condition(name, names, value, labels.tolist()) for name, value in zip("ab", values, strict=True))
    return compare(one, two, resamples=RESAMPLES, seed=seed).difference.p


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 40, 80])
@pytest.mark.parametrize(("test", "measure"), [(paired_p, "hits"), (paired_p, "Brier")])
def test_the_null_of_every_paired_test_is_rejected_in_4_to_6_percent(test, measure, count):
    p = []
    for seed in range(SIMULATIONS):
        random = np.random.default_rng([seed, count, 1])
        p.append(test(random, stories(random, count), measure, seed))
    share = float(np.mean(np.array(p) < 0.05))
    print(f"null      {test.__name__:<8} {measure:<6} {count:>3} stories  {share:.3f} +- {binomial(0.05):.3f}")
    assert 0.04 - binomial(0.04) <= share <= 0.06 + binomial(0.06)
    # A difference of hits is a whole number of questions: resamples that are 0 count on both sides, as they must.
    fewest = 0.38 if measure == "hits" else 0.45
    assert fewest < np.mean(np.array(p) < 0.5) < 0.55
