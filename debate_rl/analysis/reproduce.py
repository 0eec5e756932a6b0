"""Published numbers recomputed from the public file they were made of: published beside recomputed.

Each name has a reader that the project uses elsewhere too, so an agreement here says that the project's own numbers are
computed as the published ones were.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from debate_rl.analysis.columns import columns
from debate_rl.errors import UserError, existing, nearest
from debate_rl.records import Record

Interval = tuple[float, float]


class Recomputed(Record):
    """One number.

    Example:
        Recomputed(row="human debate", measure="accuracy", published=0.844, recomputed=0.8441558, digits=3, n=154,
                   interval=(0.788, 0.894), same=True)
    """

    row: str
    measure: str
    published: float | None
    """None where the publication gives no such number."""
    recomputed: float
    digits: int = 3
    """Decimals of the published number."""
    n: int
    interval: Interval | None = None
    same: bool | None = None
    """Whether both are equal to the published digits; where the file is a sample of what was published, whether the
    published number lies in the interval. None without a published number."""


class Reproduction(Record):
    """All numbers of one publication.

    Example:
        Reproduction(name="michael2023", source="Michael et al. 2023, arXiv 2311.08702", rows=(Recomputed(...), ...))
    """

    name: str
    source: str
    note: str = ""
    rows: tuple[Recomputed, ...]

    def __str__(self) -> str:
        """Published beside recomputed, a number a line."""
        head = ["", "", "n", "published", "recomputed", "95 % interval", ""]
        body = []
        for row in self.rows:
            ends = (
                "" if row.interval is None else f"[{row.interval[0]:.{row.digits}f}, {row.interval[1]:.{row.digits}f}]"
            )
            published = "-" if row.published is None else f"{row.published:.{row.digits}f}"
            verdict = {True: "agrees", False: "DIFFERS", None: ""}[row.same]
            line = [row.row, row.measure, str(row.n), published, f"{row.recomputed:.{row.digits}f}", ends, verdict]
            body.append(line)
        compared = [row for row in self.rows if row.same is not None]
        agree = sum(bool(row.same) for row in compared)
        parts = [
            f"{self.name}: {self.source}",
            columns(head, body),
            f"{agree} of {len(compared)} published numbers agree",
        ]
        return "\n".join(parts if not self.note else [*parts, self.note])


class Source(NamedTuple):
    """A publication that can be recomputed."""

    what: str
    file: str
    """The file that is needed, and where its owner publishes it."""
    recompute: Callable[[Path], Reproduction]


def reproduce(name: str, path: str | Path) -> Reproduction:
    """Recompute the numbers of a publication.

    Args:
        name: of `SOURCES`.
        path: the public file.

    Raises:
        UserError: unknown name, or the file is missing, malformed or of another kind.
    """
    if name not in SOURCES:
        raise UserError(f"nothing to reproduce is called {name!r}; {nearest(name, SOURCES)}")
    return SOURCES[name].recompute(existing(path, "file", f"{name} needs {SOURCES[name].file}"))


def _number(
    row: str,
    measure: str,
    published: float | None,
    recomputed: float,
    n: int,
    digits: int = 3,
    interval: Interval | None = None,
) -> Recomputed:
    """A number that must be equal to the published digits."""
    same = None if published is None else abs(recomputed - published) <= 0.5 * 10**-digits + 1e-9
    return Recomputed(
        row=row,
        measure=measure,
        published=published,
        recomputed=recomputed,
        digits=digits,
        n=n,
        interval=interval,
        same=same,
    )


_MICHAEL = {
    "human debate": {"n": 154, "accuracy": 0.844, "mean reward": -0.891, "Brier": 0.136},
    "human consultancy": {"n": 96, "accuracy": 0.745, "mean reward": -1.235, "Brier": 0.207},
}
"""Final judgements of the games that the paper analysed."""
_MICHAEL_ROUNDED = {"GPT-4 debate": 0.78, "GPT-4 consultancy": 0.80}
"""Accuracies that were published to two digits alone."""


def _michael2023(path: Path) -> Reproduction:
    from debate_rl.judges.human_records import table

    rows = []
    for condition in table(path):
        name = condition.condition
        published: dict[str, float] = dict(_MICHAEL.get(name, {}))
        if condition.accuracy is None or condition.mean_reward is None or condition.brier is None:
            continue
        rows.append(_number(name, "games", published.get("n"), condition.n, condition.n, 0))
        digits = 2 if name in _MICHAEL_ROUNDED else 3
        accuracy = published.get("accuracy", _MICHAEL_ROUNDED.get(name))
        interval = condition.accuracy_interval
        rows.append(_number(name, "accuracy", accuracy, condition.accuracy, condition.n, digits, interval))
        reward, interval = published.get("mean reward"), condition.mean_reward_interval
        rows.append(_number(name, "mean reward", reward, condition.mean_reward, condition.n, 3, interval))
        brier, interval = published.get("Brier"), condition.brier_interval
        rows.append(_number(name, "Brier", brier, condition.brier, condition.n, 3, interval))
    return Reproduction(
        name="michael2023",
        source="judges of Michael et al. 2023 (arXiv 2311.08702), games that the paper analysed, final judgements",
        rows=tuple(rows),
    )


_JUDGEBENCH = {
    "claude-3-haiku-20240307": (270, 32.22),
    "o1-mini-2024-09-12": (350, 65.71),
    "Skywork_Skywork-Reward-Llama-3.1-8B": (350, 62.29),
}
"""Pairs and accuracy by judge; another number of pairs is another table."""


def _judgebench(path: Path) -> Reproduction:
    from debate_rl.analysis.judging.decisions import read_decisions, score_decisions

    rows = []
    for row in score_decisions(read_decisions(path)):
        pairs, accuracy = _JUDGEBENCH.get(row.judge, (None, None))
        published = accuracy if pairs == row.n else None
        rows.append(_number(row.judge, "accuracy, %", published, row.accuracy, row.n, 2, row.interval))
    return Reproduction(
        name="judgebench",
        source="JudgeBench (arXiv 2410.12784), its own rule",
        note="another rule gives other numbers: see `half points` of debate-rl judge benchmark --decisions FILE",
        rows=tuple(rows),
    )


def _ratings(path: Path) -> Reproduction:
    from debate_rl.arena.ratings import ELO, VOTES_RIDGE, rate, read_votes

    if path.is_dir():
        raise UserError(f"{path} is a folder; give one file of votes in it, such as {path / 'food.csv'}")
    rated = rate(read_votes(path), ridge=VOTES_RIDGE)
    elo = np.array([row.rating.value for row in rated.standings])
    strength = np.exp((elo - elo.mean()) / ELO)
    published = _golden(path.with_name(f"{path.stem}-golden.csv"))
    rows = []
    for standing, share in zip(rated.standings, strength / strength.sum(), strict=True):
        known = published.get(standing.player)
        number = _number(standing.player, "Bradley-Terry, sum 1", known, float(share), standing.rating.n, 4)
        rows.append(number)
        ends = None
        if standing.rating.low is not None and standing.rating.high is not None:
            ends = (standing.rating.low, standing.rating.high)
        rows.append(_number(standing.player, "Elo", None, standing.rating.value, standing.rating.n, 1, ends))
    note = "" if published else f"no {path.stem}-golden.csv beside it, so nothing published to compare with"
    return Reproduction(
        name="ratings", source=f"maximum-likelihood Bradley-Terry of {path.name}", note=note, rows=tuple(rows)
    )


def _golden(path: Path) -> dict[str, float]:
    """Published Bradley-Terry strengths by player; empty where there is no such file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {row["item"]: float(row["score"]) for row in rows if row["algorithm"] == "bradley_terry"}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a table of algorithm,item,score") from error


_SCIQ = {"alone": 0.729, "with the passage": 0.761}
"""Accuracy of the recorded labels over the full 10,000 rows."""
_SCIQ_ROWS = 10_000


def _sciq_labels(path: Path) -> Reproduction:
    from debate_rl.data.tasks.binary_items import load
    from debate_rl.intervals import mean

    files = sorted(path.glob("*weak_labels*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no file of recorded labels in it, such as sciq_weak_labels_naive.jsonl")
    rows = []
    whole = True
    for file in files:
        items = [item for item in load("sciq", file, balanced=False).items if item.label is not None]
        labelled = [item for item in items if item.soft_label is not None]
        if not labelled:
            raise UserError(f"{file}: no soft_label in it; give rows with txt, label and soft_label")
        # A label of one half names no answer; the authors' counts take it as "incorrect".
        hits = [float(((item.soft_label or 0.0) > 0.5) == bool(item.label)) for item in labelled]
        right = mean(hits, [item.group for item in labelled])
        how = "with the passage" if "support" in file.name else "alone"
        interval = None if right.low is None or right.high is None else (right.low, right.high)
        number = _number(f"labels {how}", "accuracy", _SCIQ[how], right.value, right.n, 3, interval)
        if right.n < _SCIQ_ROWS and interval is not None:
            whole = False
            number = number.model_copy(update={"same": interval[0] <= _SCIQ[how] <= interval[1]})
        rows.append(number)
    note = "" if whole else "fewer rows than the 10,000 published: agrees where the published number is in the interval"
    return Reproduction(
        name="sciq_labels", source="soft labels of Qwen-1.8B-chat on SciQ train rows", note=note, rows=tuple(rows)
    )


SOURCES: dict[str, Source] = {
    "michael2023": Source(
        "judges of Michael et al. 2023: accuracy, reward and Brier by condition",
        "debates.jsonl with stories.jsonl beside it, or the folder `pub` of github julianmichael/debate, branch "
        "2023-nyu-experiments",
        _michael2023,
    ),
    "judgebench": Source(
        "judges on JudgeBench by its own rule",
        "decisions.jsonl, or `outputs` of github ScalerLab/JudgeBench (a file or the folder)",
        _judgebench,
    ),
    "ratings": Source(
        "Bradley-Terry strengths of public votes",
        "a CSV with left,right,winner; NAME-golden.csv beside it (algorithm,item,score) holds the published ones",
        _ratings,
    ),
    "sciq_labels": Source(
        "accuracy of a real weak model's labels on SciQ",
        "sciq_weak_labels_naive.jsonl or ..._with_support.jsonl (txt, label, soft_label), or the folder of both",
        _sciq_labels,
    ),
}
"""What can be recomputed, by name."""


def listed() -> str:
    """Every name with what it recomputes and the file it needs."""
    rows = [[name, source.what, source.file] for name, source in SOURCES.items()]
    return columns(["name", "recomputes", "needs --file"], rows)
