"""Does debate help the judge? Judge accuracy under every protocol, on the same questions with the same debaters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from debate_rl.analysis.accuracy import Difference, Row, accuracy_table, paired_differences
from debate_rl.analysis.columns import cell, columns
from debate_rl.analysis.honesty import Honesty, honesty
from debate_rl.analysis.honesty import formatted as honesty_table
from debate_rl.analysis.judging.consistency import Consistency, consistency
from debate_rl.analysis.judging.consistency import formatted as consistency_table
from debate_rl.analysis.judging.prior_accuracy import UNSURE, Known, by_knowledge
from debate_rl.analysis.judging.second_judge import SecondJudge
from debate_rl.analysis.slopes import Rated, Slope, slopes
from debate_rl.errors import UserError
from debate_rl.game.verdict import JudgedDebate
from debate_rl.records import Record


class Oversight(Record):
    """Results of an oversight stage.

    Example:
        Oversight(judge="judge", reference="debate", rows=(Row(protocol="debate", player="dpo", ...), ...),
                  differences=(Difference(first="debate", second="single", ...), ...), slopes=(Slope(...), ...),
                  known=Known(...), second=SecondJudge(...), failed=0)
    """

    judge: str
    reference: str
    """The protocol with which the others are compared."""
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...] = ()
    slopes: tuple[Slope, ...] = ()
    """Slopes of accuracy over the players' rating; empty without a tournament that rated two of them."""
    rated_by: str | None = None
    """The tournament stage that gave the ratings."""
    known: Known | None = None
    """Accuracy split by the judge's blind verdict; None if it gave none."""
    second: SecondJudge | None = None
    honesty: tuple[Honesty, ...] = ()
    """What honesty pays under each protocol."""
    consistency: tuple[Consistency, ...] = ()
    """The judge in both orders of presentation; empty for a judge that is asked in one."""
    failed: int = 0
    """Number of legs without a verdict, with those of `left_out`."""
    left_out: dict[str, int] = {}
    """Number of legs of each (protocol by player) without any verdict; they have no row."""

    def __str__(self) -> str:
        """The tables: scores with differences, slopes, the split by what the judge knew, the second judge."""
        head = [f"judge {self.judge}, {self.failed} failed"]
        head += [f"left out: {name}, no verdict on any of {count} games" for name, count in self.left_out.items()]
        parts = ["\n".join(head), self._scores()]
        if self.slopes:
            rows = [[slope.protocol, ", ".join(slope.players), cell(slope.accuracy)] for slope in self.slopes]
            parts.append(columns(["protocol", "players", "accuracy for 100 Elo points of the debater"], rows))
        if self.honesty:
            parts.append(honesty_table(self.honesty))
        if self.consistency:
            parts.append(consistency_table(self.consistency))
        if self.known is not None:
            parts.append(_known(self.known))
        if self.second is not None:
            parts.append(str(self.second))
        return "\n\n".join(parts)

    def _scores(self) -> str:
        """One line for each protocol and player; a protocol without players has one difference for each player."""
        lines = []
        for row in self.rows:
            scores = row.scores
            line = [row.protocol, row.player, cell(scores.accuracy), cell(scores.brier), cell(scores.log_score)]
            line += [str(scores.n), str(row.failed)]
            # A protocol without players has a difference for every debater: the further ones get lines of their own.
            effects = [_difference_cells(difference, row.player) for difference in self._differences_of(row)]
            lines.append(line + (effects[0] if effects else ["-"] * 3))
            lines += [[""] * len(line) + cells for cells in effects[1:]]
        head = ["protocol", "player", "accuracy", "Brier", "log score, bits", "n", "failed"]
        if self.differences:
            head += [f"{self.reference} minus it: accuracy", "Brier", "log score, bits"]
        return columns(head, lines)

    def _differences_of(self, row: Row) -> list[Difference]:
        return [
            difference
            for difference in self.differences
            if difference.second == row.protocol and row.player in ("-", difference.player)
        ]


def _difference_cells(difference: Difference, player: str) -> list[str]:
    """Three cells; in the line of a protocol without players, the first one names the player of the reference."""
    accuracy = cell(difference.accuracy)
    if player != difference.player:
        accuracy = f"{difference.player}: {accuracy}"
    return [accuracy, cell(difference.brier), cell(difference.log_score)]


def _known(known: Known) -> str:
    """The accuracies split by what the judge knew beforehand."""
    counts = ", ".join(f"{group} {count}" for group, count in known.questions.items())
    title = (
        f"by the judge's blind verdict, unsure within {known.unsure:g} of one half; questions: {counts}, "
        f"without one {known.left_out}"
    )
    rows = []
    for row in known.rows:
        rows.append([row.known, row.protocol, row.player, cell(row.accuracy), cell(row.brier), str(row.accuracy.n)])
    return f"{title}\n{columns(['blind verdict', 'protocol', 'player', 'accuracy', 'Brier', 'n'], rows)}"


def oversight(
    legs: Mapping[tuple[str, str], Sequence[JudgedDebate]],
    judge: str,
    reference: str = "debate",
    rated: Rated | None = None,
    rated_by: str | None = None,
    unsure: float = UNSURE,
    second: SecondJudge | None = None,
) -> Oversight:
    """Compare protocols on the same questions with the same debaters.

    Args:
        legs: self-play by (protocol, player); "-" is the player of a protocol without speeches.
        judge: name of the judge whose verdicts the legs hold.
        reference: the protocol with which the others are compared.
        rated: games by which the players are rated.
        rated_by: the stage of these games.
        unsure: see `prior_accuracy.by_knowledge`.
        second: verdicts of another judge on the same games.

    Raises:
        UserError: no verdict at all.
    """
    # One protocol whose games all failed must not take the others' results with it.
    judged, left_out = {}, {}
    for key, group in legs.items():
        if any(leg.verdict is not None for leg in group):
            judged[key] = group
        else:
            left_out[" by ".join(key)] = len(group)
    if not judged:
        failures = [leg.failure.message for leg in chain.from_iterable(legs.values()) if leg.failure is not None]
        raise UserError(
            f"no verdict of {judge} under any protocol: {failures[0] if failures else 'no game was finished'}"
        )
    return Oversight(
        judge=judge,
        reference=reference,
        rows=tuple(accuracy_table(judged)),
        differences=tuple(paired_differences(judged, reference)),
        slopes=() if rated is None else tuple(slopes(judged, rated)),
        rated_by=rated_by,
        known=by_knowledge(judged, unsure),
        second=second,
        honesty=honesty(judged),
        consistency=consistency(judged),
        failed=sum(leg.verdict is None for leg in chain.from_iterable(legs.values())),
        left_out=left_out,
    )
