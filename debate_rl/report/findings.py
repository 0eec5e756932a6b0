"""The top of the page: what a run asked, and what its numbers say to that in plain sentences.

Which effects make sentences is fixed here, by group and name, before anything is measured: no row is chosen for its
value. A sentence says "not shown" where the interval includes no effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import yaml

from debate_rl.analysis.effects.row import EffectRow
from debate_rl.report.run_folder import RunFolder
from debate_rl.report.wording import count, fixed

MOST = 5
"""Findings shown."""

QUESTIONS = {
    "tournament": "which debaters persuade the judge",
    "iterations": "whether debaters get stronger over rounds of training",
    "grpo": "what online training makes of a debater",
    "oversight": "under which protocols the judge finds the true answer",
    "judge": "what finetuning makes of the judge",
    "judge_grpo": "what paying a judge for the truth makes of it",
    "judges": "which judge is right more often on the same debates",
    "cotraining": "what becomes of quotes and verdicts when debaters and judge learn in turns",
    "weak_to_strong": "how much a strong student learns from a weak supervisor",
    "reading": "how well models answer without a debate",
}
"""What each kind of stage asks."""


PROTOCOLS = {
    "single": "a single consultant",
    "double": "two consultants",
    "blind": "the question alone",
    "open_book": "the story itself",
}
"""Protocols as sentences call them, where the name alone says little."""


class Claim(NamedTuple):
    """A sentence for rows of the table of effects.

    Example:
        Claim("protocols", r"(?P<first>.+) - (?P<second>.+), (?P<player>.+)", "points",
              up="The judge is right more often with {first} than with {second}", down="... less often ...",
              section="oversight")
    """

    group: str
    name: str
    """Pattern of the whole name of a row; its groups are names in the sentences."""
    unit: str
    up: str
    """Said where the whole interval lies above 0."""
    down: str
    """Said where it lies below."""
    section: str
    """Anchor of the section with the numbers."""


CLAIMS = (
    Claim(
        "oversight", r"judge accuracy over debater rating, debate", "points per 100 Elo",
        "In debate, the judge is right more often when the debaters are stronger",
        "In debate, the judge is right less often when the debaters are stronger", "oversight",
    ),
    Claim(
        "protocols", r"(?P<first>.+) - (?P<second>.+), (?P<player>.+)", "points",
        "The judge is right more often with {first} than with {second} (debater {player})",
        "The judge is right less often with {first} than with {second} (debater {player})", "oversight",
    ),
    Claim(
        "weak-to-strong", r"(?P<first>.+) student - (?P<second>.+) student", "points",
        "Students learn more from supervisors with {first} than with {second}",
        "Students learn less from supervisors with {first} than with {second}", "transfer",
    ),
    Claim(
        "judge", r"accuracy, mean of both orders: after - before", "points",
        "Finetuning makes the judge right more often", "Finetuning makes the judge right less often", "judge",
    ),
    Claim(
        "iterations", r"(?P<first>.+) over (?P<second>.+), Elo", "Elo",
        "{first} is stronger than {second}", "{first} is weaker than {second}", "iterations",
    ),
    Claim(
        "online", r"(?P<first>.+) over (?P<second>.+), Elo", "Elo",
        "{first} is stronger than {second}", "{first} is weaker than {second}", "online",
    ),
    Claim(
        "skill", r"(?P<first>.+) over (?P<second>.+), Elo", "Elo",
        "{first} is stronger than {second}", "{first} is weaker than {second}", "ratings",
    ),
    Claim(
        "best-of-n", r"(?P<first>.+) over (?P<second>.+), Elo", "Elo",
        "{first} is stronger than {second}", "{first} is weaker than {second}", "ratings",
    ),
    Claim(
        "quotes", r"(?P<first>.+) - (?P<second>.+), speeches with valid quotes only", "points",
        "{first} quotes more truly than {second}", "{first} quotes less truly than {second}", "behaviour",
    ),
    Claim(
        "cotraining", r"(?P<first>.+) - (?P<second>.+), speeches with valid quotes only( \(.+\))?", "points",
        "{first} quotes more truly than {second}", "{first} quotes less truly than {second}", "cotraining",
    ),
    Claim(
        "cotraining", r"(?P<first>.+) - (?P<second>.+), accuracy of the judge in training( \(.+\))?", "points",
        "The judge that learns is right more often about {first} than about {second}",
        "The judge that learns is right less often about {first} than about {second}", "cotraining",
    ),
    Claim(
        "judges", r"(?P<first>.+) - (?P<second>.+), accuracy( \(.+\))?", "points",
        "Judge {first} is right more often than judge {second}",
        "Judge {first} is right less often than judge {second}", "judges",
    ),
    Claim(
        "attacks", r"all attacks, (?P<first>.+) - (?P<second>.+), change of accuracy( \(.+\))?", "points",
        "Attacks fool judge {first} less than judge {second}",
        "Attacks fool judge {first} more than judge {second}", "judges",
    ),
    Claim(
        "judge online", r"accuracy, mean of both orders: after - before( \(.+\))?", "points",
        "Online training makes the judge right more often", "Online training makes the judge right less often",
        "judge_online",
    ),
    Claim(
        "online", r"accuracy of the training judge: last step - step 0( \(.+\))?", "points",
        "The training judge is right more often about the trained debater",
        "The training judge is right less often about the trained debater", "online",
    ),
)  # fmt: skip
"""Sentences in the order of the page. Of each, the last row that matches is taken: the last step of a training."""
FIRST_ROW = {"protocols"}
"""Groups of which the first row is taken: there the rows compare the main protocol with others in turn."""


class Finding(NamedTuple):
    """A sentence with its numbers.

    Example:
        Finding("The judge is right more often with debate than with single (debater dpo)",
                "+45.0 points [31.7, 58.3]", "shown", "oversight")
    """

    sentence: str
    numbers: str
    status: Literal["shown", "not shown"]
    section: str


def findings(table: Sequence[EffectRow], recovered: Mapping[str, str] | None = None) -> list[Finding]:
    """At most `MOST` findings of a table of effects.

    Args:
        table: the effects.
        recovered: text of the gap that methods recover, for runs whose weak-to-strong makes no rows.
    """
    found = []
    for claim in CLAIMS:
        matching = []
        for row in table:
            match = re.fullmatch(claim.name, row.name)
            if row.group == claim.group and row.unit == claim.unit and match and row.estimate is not None:
                matching.append((row, match))
        if matching:
            row, match = matching[0 if claim.group in FIRST_ROW else -1]
            found.append(_finding(claim, row, match.groupdict()))
    if recovered and not any(finding.section == "transfer" for finding in found):
        for name, text in list(recovered.items())[-1:]:
            found.append(Finding(f"Gap between weak model and ceiling that {name} recovers", text, "shown", "transfer"))
    return found[:MOST]


def _finding(claim: Claim, row: EffectRow, names: Mapping[str, str]) -> Finding:
    estimate = row.estimate
    assert estimate is not None, "rows without an estimate make no sentence"
    low, high = estimate.low, estimate.high
    names = {key: PROTOCOLS.get(name, name) for key, name in names.items()}
    up = claim.up.format(**names)
    numbers = f"{_signed(estimate.value, row.digits)} {row.unit}"
    if low is None or high is None:
        return Finding(f"Not shown: {up}", f"{numbers}, no interval", "not shown", claim.section)
    numbers += f" [{_signed(low, row.digits)}, {_signed(high, row.digits)}]"
    if low > 0:
        return Finding(up, numbers, "shown", claim.section)
    if high < 0:
        return Finding(claim.down.format(**names), numbers, "shown", claim.section)
    return Finding(f"Not shown: {up}", numbers, "not shown", claim.section)


def _signed(value: float, digits: int) -> str:
    text = fixed(value, digits)
    return f"+{text}" if float(f"{value:.{digits}f}") > 0 else text


def asked(run: RunFolder) -> str:
    """What a run asks, in one sentence."""
    planned = [kind for kind in QUESTIONS if run.of(kind)]
    if not planned:
        return "No stage that measures something is finished yet."
    questions = [QUESTIONS[kind] for kind in planned]
    if len(questions) > 1:
        questions = [", ".join(questions[:-1]) + f", and {questions[-1]}"]
    return f"This run asks {questions[0]}."


def basis(run: RunFolder, played: int, failed: int) -> str:
    """What a run's answers rest on, in one line."""
    tree = yaml.safe_load(run.config)
    tree = tree if isinstance(tree, dict) else {}
    questions, models = _part(tree, "questions"), _part(tree, "models")
    facts = []
    if questions.get("test"):
        where = ", ".join(str(questions[key]) for key in ("source", "family") if questions.get(key))
        facts.append(f"{questions['test']} test questions" + (f" ({where})" if where else ""))
    facts += [f"{seat} {models[seat]}" for seat in ("debater", "judge") if models.get(seat)]
    facts.append(f"{count(played)} debates" + (f", {count(failed)} of them failed" if failed else ""))
    return " \u00b7 ".join(facts)


def _part(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = tree.get(key)
    return part if isinstance(part, dict) else {}
