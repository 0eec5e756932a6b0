"""Does debate help the judge? Every protocol on the same questions with the same debaters, in one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from debate_rl.analysis.accuracy import Difference, Row, accuracy_table, paired_differences
from debate_rl.analysis.columns import cell, columns
from debate_rl.analysis.judging.prior_accuracy import UNSURE, Known, by_knowledge
from debate_rl.analysis.judging.second_judge import SecondJudge
from debate_rl.analysis.slopes import Rated, Slope, slopes
from debate_rl.errors import UserError
from debate_rl.game.verdict import Leg
from debate_rl.records import Record


class Oversight(Record):
    """What an oversight stage found.

    Example:
        Oversight(judge="judge", reference="debate", rows=(Row(protocol="debate", player="dpo", ...), ...),
                  differences=(Difference(first="debate", second="single", ...), ...), slopes=(Slope(...), ...),
                  known=Known(...), second=SecondJudge(...), failed=0)
    """

    judge: str
    reference: str
    """The protocol that the others are compared with."""
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...] = ()
    slopes: tuple[Slope, ...] = ()
    """Of accuracy over the players' rating; empty without a tournament that rated two of them."""
    rated_by: str | None = None
    """The stage of that tournament."""
    known: Known | None = None
    """By the judge's blind verdict; None where it gave none."""
    second: SecondJudge | None = None
    failed: int = 0
    """Legs without a verdict, those of `left_out` as well."""
    left_out: dict[str, int] = {}
    """Protocols (with their players) without any verdict, and their legs; they have no row."""

    def __str__(self) -> str:
        """The tables: scores with differences, slopes, the split by what the judge knew, the second judge."""
        head = [f"judge {self.judge}, {self.failed} failed"]
        head += [f"left out: {name}, no verdict on any of {count} games" for name, count in self.left_out.items()]
        parts = ["\n".join(head), self._scores()]
        if self.slopes:
            rows = [[one.protocol, ", ".join(one.players), cell(one.accuracy)] for one in self.slopes]
            parts.append(columns(["protocol", "players", "accuracy for 100 Elo points of the debater"], rows))
        if self.known is not None:
            parts.append(_known(self.known))
        if self.second is not None:
            parts.append(str(self.second))
        return "\n\n".join(parts)

    def _scores(self) -> str:
        """One line for each protocol and player; blind and open-book have one difference for each player."""
        lines = []
        for row in self.rows:
            found = row.scores
            line = [row.protocol, row.player, *map(cell, (found.accuracy, found.brier, found.log_score))]
            line += [str(found.n), str(row.failed)]
            own = [one for one in self.differences if one.second == row.protocol and row.player in ("-", one.player)]
            effects = [_differences(one, row.player) for one in own] or [["-"] * 3]
            lines += [(line if at == 0 else [""] * len(line)) + cells for at, cells in enumerate(effects)]
        head = ["protocol", "player", "accuracy", "Brier", "log score, bits", "n", "failed"]
        more = [f"{self.reference} minus it: accuracy", "Brier", "log score, bits"]
        return columns([*head, *more] if self.differences else head, lines)


def _differences(one: Difference, player: str) -> list[str]:
    """Three cells; where the line has no player, the one whose reference it is compared with."""
    effects = [cell(effect) for effect in (one.accuracy, one.brier, one.log_score)]
    return effects if player == one.player else [f"{one.player}: {effects[0]}", *effects[1:]]


def _known(known: Known) -> str:
    """The split by what the judge knew beforehand."""
    counts = ", ".join(f"{group} {count}" for group, count in known.questions.items())
    title = (
        f"by the judge's blind verdict, unsure within {known.unsure:g} of one half; questions: {counts}, "
        f"without one {known.left_out}"
    )
    rows = [
        [row.known, row.protocol, row.player, cell(row.accuracy), cell(row.brier), str(row.accuracy.n)]
        for row in known.rows
    ]
    return f"{title}\n{columns(['blind verdict', 'protocol', 'player', 'accuracy', 'Brier', 'n'], rows)}"


def oversight(
    legs: Mapping[tuple[str, str], Sequence[Leg]],
    judge: str,
    reference: str = "debate",
    rated: Rated | None = None,
    rated_by: str | None = None,
    unsure: float = UNSURE,
    second: SecondJudge | None = None,
) -> Oversight:
    """Put the tables together.

    Args:
        legs: self-play by (protocol, player); "-" is the player of a protocol without speeches.
        judge: whose verdicts they hold.
        reference: the protocol that the others are compared with.
        rated: games by which the players are rated.
        rated_by: the stage of these games.
        unsure: see `known.by_knowledge`.
        second: another judge on the same games.

    Raises:
        UserError: no verdict at all.
    """
    judged = {key: found for key, found in legs.items() if any(leg.verdict is not None for leg in found)}
    if not judged:
        failures = (leg.failure.message for found in legs.values() for leg in found if leg.failure is not None)
        raise UserError(f"no verdict of {judge} under any protocol: {next(failures, 'no game was finished')}")
    return Oversight(
        judge=judge,
        reference=reference,
        rows=tuple(accuracy_table(judged)),
        differences=tuple(paired_differences(judged, reference)),
        slopes=() if rated is None else tuple(slopes(judged, rated)),
        rated_by=rated_by,
        known=by_knowledge(judged, unsure),
        second=second,
        failed=sum(leg.verdict is None for found in legs.values() for leg in found),
        left_out={" by ".join(key): len(found) for key, found in legs.items() if key not in judged},
    )
