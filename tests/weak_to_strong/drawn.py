"""Studies without models: what each says is drawn, as good as it is to be."""

import numpy as np

from debate_rl.weak_to_strong.results.predictions import Hits


def said(random, truth, skill, seeds):
    """P(answer 0) of a model that favours the true answer at this rate, surer where it is right."""
    table = []
    for _ in range(seeds):
        right = random.random(len(truth)) < skill
        sure = 0.5 + 0.45 * random.beta(2 + 2 * right, 2)
        table.append(tuple(np.where(right == (truth == 1), sure, 1 - sure).tolist()))
    return tuple(table)


def study(skills, seeds=3, items=300, seed=0, methods=("none", "debate"), untrained=0.6, name="t"):
    """Hits of models with these accuracies, `METHOD` for a method's supervisor and student alike; stories of two."""
    random = np.random.default_rng(seed)
    truth = np.arange(items) % 2
    names, stories = [f"{name}{i}" for i in range(items)], [f"s{i // 2}" for i in range(items)]
    test = {end: said(random, truth, skills[end], seeds) for end in ("weak", "strong", "ceiling") if end in skills}
    for method in methods:
        test[f"{method}/supervisor"] = said(random, truth, skills[method] - 0.03, seeds)
        test[f"{method}/student"] = said(random, truth, skills[method], seeds)
    test["untrained"] = said(random, truth, untrained, 1)
    return Hits(
        test_items=names, test_clusters=stories, test_truth=truth.tolist(), label_items=names, label_clusters=stories,
        label_truth=truth.tolist(), test=test,
        labels={method: said(random, truth, skills[method], seeds) for method in methods},
    )  # fmt: skip


GOOD = {"weak": 0.6, "strong": 0.85, "ceiling": 0.95, "none": 0.7, "debate": 0.88}
