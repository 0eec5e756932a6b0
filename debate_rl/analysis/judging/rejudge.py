"""Judging saved games again: another judge's verdicts and tables on the legs of any stage, without new text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.analysis.judging.second_judge import SecondJudge, beside, finished, judge_again
from debate_rl.analysis.oversight import Oversight, oversight
from debate_rl.arena.consultancy import Converted, to_double
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError, existing, nearest
from debate_rl.game.verdict import Leg
from debate_rl.judges.check import check_games
from debate_rl.judges.judge import AnyJudge
from debate_rl.records import Record, read


class Rejudged(Record):
    """What another judge makes of saved games.

    Example:
        Rejudged(table=Oversight(judge="lab-base", ...), beside=SecondJudge(...), unfinished=0)
    """

    table: Oversight
    """Of the new judge alone."""
    beside: SecondJudge | None = None
    """The new judge beside the one whose verdicts were saved; None where games were converted, never judged, or judged
    by several."""
    several: tuple[str, ...] = ()
    """Judges of the saved verdicts where they are more than one (or one with other weights): none stands beside."""
    repeated: int = 0
    """Games that were there more than once and are judged again once."""
    unfinished: int
    """Games that were not played to their end; nobody judged them."""
    pairs: int = 0
    """Games put together of two single consultancies each."""
    unpaired: int = 0
    """Single consultancies without one for the other side, left out."""

    def __str__(self) -> str:
        """The tables, and what was left out."""
        parts = [f"{self.unfinished} games were not finished", str(self.table)]
        if self.pairs or self.unpaired:
            parts[0] += f"; {self.pairs} made of two single consultancies each, {self.unpaired} of these unpaired"
        if self.repeated:
            parts[0] += f"; {self.repeated} were there more than once and count once"
        if self.several:
            parts[0] += f"; the saved verdicts are of several judges ({', '.join(self.several)}), so none stands beside"
        return "\n\n".join(parts + ([str(self.beside)] if self.beside is not None else []))


def saved_legs(places: Sequence[str | Path]) -> list[Leg]:
    """Legs of finished stages (`legs.jsonl` in their folders) or of files.

    Raises:
        UserError: one is missing, has no legs, or holds a malformed line.
    """
    found: list[Leg] = []
    for place in places:
        path = existing(place, "stage")
        if path.is_dir() and not (path / "legs.jsonl").is_file():
            raise UserError(f"no legs.jsonl in {path}; give the folder of a stage that has it{stages_with(path)}")
        legs = read(path / "legs.jsonl" if path.is_dir() else path, Leg)
        if not legs:
            raise UserError(f"no legs in {path}; give the folder of a finished stage that plays games")
        found += legs
    return found


def stages_with(folder: Path, file: str = "legs.jsonl") -> str:
    """The finished stages below a folder that hold a file, for the end of a message: `: judge, oversight`."""
    inside = [path.relative_to(folder).parent for path in sorted(folder.rglob(file)) if path.parent != folder]
    names = [str(path) for path in inside if not any(part.startswith(".") for part in path.parts)]
    return f": {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""


def rejudge(
    legs: Sequence[Leg], judge: AnyJudge, engine: Engine, view: str | None = None, protocol: str | None = None
) -> tuple[Rejudged, list[Leg]]:
    """Have saved games judged by another judge.

    Args:
        legs: of one or more stages.
        judge: the other judge.
        engine: asked for verdicts only.
        view: turn consultancies into games of this protocol first (`consultancy.to_double`).
        protocol: only the games of this protocol.

    Returns:
        The tables, and the legs with the new verdicts.

    Raises:
        UserError: no such games, two games of one name with other speeches (two runs mixed), an unknown answer, games
            that can not be converted, or no verdict at all.
    """
    names = sorted({leg.transcript.protocol.name for leg in legs})
    if protocol is not None and protocol not in names:
        raise UserError(f"no game of protocol {protocol!r}; {nearest(protocol, names)}")
    given = [leg for leg in legs if protocol in (None, leg.transcript.protocol.name)]
    kept = _each_once(given)
    check_games([leg.transcript for leg in kept])
    whole = [leg for leg in kept if finished(leg)]
    counts = {"unfinished": len(kept) - len(whole), "repeated": len(given) - len(kept)}
    judges = {} if view is not None else _saved_judges(given)
    if view is not None:
        made = _converted(whole, view)
        whole = [Leg(transcript=game) for game in made.games]
        counts |= {"pairs": made.pairs, "unpaired": made.unpaired}
    before = next(iter(judges))[0] if len(judges) == 1 else None
    again = judge_again(whole, judge, engine)
    old, new = _keyed(whole), _keyed(again)
    if not any(leg.verdict is not None for leg in again):
        why = next((leg.failure.message for leg in again if leg.failure is not None), "no game was finished")
        raise UserError(f"{judge.name} could not judge any game ({why}); does the model fit the transcripts?")
    judged = [name for (name, _), found in new.items() if any(leg.verdict is not None for leg in found)]
    reference = "debate" if "debate" in judged else judged[0]
    found = Rejudged(
        table=oversight(new, judge.name, reference),
        beside=None if before is None else beside(old, new, (before, judge.name)),
        several=tuple(sorted({name for name, _ in judges})) if len(judges) > 1 else (),
        **counts,
    )
    return found, again


def _each_once(legs: Sequence[Leg]) -> list[Leg]:
    """Legs without the further ones of a game, such as those of several people who read it.

    Games of one name with other speeches stay, and are refused later: they are of two runs.
    """
    found: dict[tuple[str, tuple[str, ...]], Leg] = {}
    for leg in legs:
        said = tuple(f"{speech.turn}{speech.side}{speech.text}" for speech in leg.transcript.speeches)
        found.setdefault((leg.transcript.id, said), leg)
    return list(found.values())


def _saved_judges(legs: Sequence[Leg]) -> dict[tuple[str, str | None], None]:
    """Name and revision of every judge whose verdicts legs hold, in order."""
    return {(leg.verdict.judge, leg.verdict.revision): None for leg in legs if leg.verdict is not None}


def _converted(legs: Sequence[Leg], view: str) -> Converted:
    """Consultancies in another view, each once."""
    made = to_double([leg.transcript for leg in legs], view)
    if not made.games:
        raise UserError(
            f"none of {made.unpaired} single consultancies has one for the other side of its question; "
            "give the same stage of other seeds as well"
        )
    check_games(made.games)
    return made


def _keyed(legs: Sequence[Leg]) -> dict[tuple[str, str], list[Leg]]:
    """Legs by protocol and player; "a + b" where two meet, "-" where nobody speaks."""
    found: dict[tuple[str, str], list[Leg]] = {}
    for leg in legs:
        game = leg.transcript
        player = " + ".join(sorted(set(game.players.values()))) or "-"
        found.setdefault((game.protocol.name, player), []).append(leg)
    return found
