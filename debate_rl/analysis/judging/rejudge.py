"""Judge the saved games of any stage again with another judge; no new text is generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from debate_rl.analysis.judging.second_judge import SecondJudge, beside, finished, judge_again
from debate_rl.analysis.oversight import Oversight, oversight
from debate_rl.arena.consultancy import Converted, to_double
from debate_rl.engines.request import Engine
from debate_rl.errors import UserError, existing, nearest
from debate_rl.game import run_files
from debate_rl.game.verdict import JudgedDebate
from debate_rl.judges.check import check_games
from debate_rl.judges.judge import AnyJudge
from debate_rl.records import Record, read


class Rejudged(Record):
    """Another judge's scores on saved games.

    Example:
        Rejudged(table=Oversight(judge="lab-base", ...), beside=SecondJudge(...), unfinished=0)
    """

    table: Oversight
    """Scores of the new judge alone."""
    beside: SecondJudge | None = None
    """Comparison with the judge of the saved verdicts; None where games were converted, never judged, or judged by
    several judges."""
    several: tuple[str, ...] = ()
    """Names of the saved verdicts' judges, where they are more than one judge (or one with changed weights)."""
    repeated: int = 0
    """Copies of games that were judged only once."""
    unfinished: int
    """Games that were not played to their end, which are not judged."""
    pairs: int = 0
    """Games made by pairing two single consultancies."""
    unpaired: int = 0
    """Single consultancies left out because the other side's consultancy is missing."""

    def __str__(self) -> str:
        """The tables, and how many games were left out."""
        note = f"{self.unfinished} games were not finished"
        if self.pairs or self.unpaired:
            note += f"; {self.pairs} made of two single consultancies each, {self.unpaired} of these unpaired"
        if self.repeated:
            note += f"; {self.repeated} were there more than once and count once"
        if self.several:
            note += f"; the saved verdicts are of several judges ({', '.join(self.several)}), so none stands beside"
        paragraphs = [note, str(self.table)]
        if self.beside is not None:
            paragraphs.append(str(self.beside))
        return "\n\n".join(paragraphs)


def saved_legs(paths: Sequence[str | Path]) -> list[JudgedDebate]:
    """Read legs from finished stages (`debates.jsonl` in their folders) or from files.

    Raises:
        UserError: a path is missing, has no legs, or holds a malformed line.
    """
    legs: list[JudgedDebate] = []
    for given in paths:
        path = existing(given, "stage")
        file = path
        if path.is_dir():
            file = path / run_files.DEBATES
            if not file.is_file():
                raise UserError(
                    f"no debates.jsonl in {path}; give the folder of a stage that has it{stages_with(path)}"
                )
        stage_legs = read(file, JudgedDebate)
        if not stage_legs:
            raise UserError(f"no legs in {path}; give the folder of a finished stage that plays games")
        legs += stage_legs
    return legs


def stages_with(folder: Path, file: str = run_files.DEBATES) -> str:
    """List the finished stages below a folder that hold a file, as the end of a message: `: judge, oversight`."""
    names = []
    # A user most often gives the folder of the run in place of a stage in it.
    for path in sorted(folder.rglob(file)):
        stage = path.relative_to(folder).parent
        hidden = any(part.startswith(".") for part in stage.parts)
        if path.parent != folder and not hidden:
            names.append(str(stage))
    if not names:
        return ""
    more = ", ..." if len(names) > 8 else ""
    return f": {', '.join(names[:8])}{more}"


def rejudge(
    legs: Sequence[JudgedDebate], judge: AnyJudge, engine: Engine, view: str | None = None, protocol: str | None = None
) -> tuple[Rejudged, list[JudgedDebate]]:
    """Have saved games judged by another judge.

    Args:
        legs: legs of one or more stages.
        judge: the other judge.
        engine: answers the judge's requests; no speeches are generated.
        view: protocol into which consultancies are converted first (`consultancy.to_double`).
        protocol: judge only the games of this protocol.

    Returns:
        The tables, and the legs with the new verdicts.

    Raises:
        UserError: no game matches, two games share an id but not their speeches (two runs mixed), an answer is unknown,
            games can not be converted, or the judge gives no verdict at all.
    """
    selected = list(legs) if protocol is None else _of_protocol(legs, protocol)
    distinct = _without_repeats(selected)
    check_games([leg.transcript for leg in distinct])
    complete = [leg for leg in distinct if finished(leg)]
    unfinished = len(distinct) - len(complete)
    saved_judges: list[tuple[str, str | None]] = []
    pairs = unpaired = 0
    if view is None:
        # From all copies of a game: `distinct` holds one verdict per game even where several judges gave one.
        saved_judges = _saved_judges(selected)
    else:
        converted = _convert(complete, view)
        complete = [JudgedDebate(transcript=game) for game in converted.games]
        pairs = converted.pairs
        unpaired = converted.unpaired
    rejudged = judge_again(complete, judge, engine)
    _check_any_verdict(rejudged, judge)
    new_legs = _by_protocol_and_player(rejudged)
    comparison = None
    if len(saved_judges) == 1:
        first_name, _ = saved_judges[0]
        comparison = beside(_by_protocol_and_player(complete), new_legs, (first_name, judge.name))
    several: tuple[str, ...] = ()
    if len(saved_judges) > 1:
        several = tuple(sorted({name for name, _ in saved_judges}))
    summary = Rejudged(
        table=oversight(new_legs, judge.name, _reference_protocol(new_legs)),
        beside=comparison,
        several=several,
        repeated=len(selected) - len(distinct),
        unfinished=unfinished,
        pairs=pairs,
        unpaired=unpaired,
    )
    return summary, rejudged


def _of_protocol(legs: Sequence[JudgedDebate], protocol: str) -> list[JudgedDebate]:
    """Select the legs of one protocol, and refuse a name that no leg has."""
    selected = [leg for leg in legs if leg.transcript.protocol.name == protocol]
    if not selected:
        protocols = sorted({leg.transcript.protocol.name for leg in legs})
        raise UserError(f"no game of protocol {protocol!r}; {nearest(protocol, protocols)}")
    return selected


def _without_repeats(legs: Sequence[JudgedDebate]) -> list[JudgedDebate]:
    """Keep the first leg of every game: several people may have judged the same one."""
    first_legs: dict[tuple[str, tuple[str, ...]], JudgedDebate] = {}
    for leg in legs:
        # The speeches are part of the key: games of one id with other speeches come from two runs, and `check_games`
        # refuses them only if both are still here.
        speeches = tuple(f"{speech.turn}{speech.side}{speech.text}" for speech in leg.transcript.speeches)
        asked = tuple(f"{question.turn}?{question.text}" for question in leg.transcript.asked)
        first_legs.setdefault((leg.transcript.id, speeches + asked), leg)
    return list(first_legs.values())


def _saved_judges(legs: Sequence[JudgedDebate]) -> list[tuple[str, str | None]]:
    """Name and revision of every judge with a verdict in the legs, in order of appearance."""
    judges = [(leg.verdict.judge, leg.verdict.revision) for leg in legs if leg.verdict is not None]
    return list(dict.fromkeys(judges))


def _convert(legs: Sequence[JudgedDebate], view: str) -> Converted:
    """Convert consultancies to another protocol, and refuse a result without games."""
    converted = to_double([leg.transcript for leg in legs], view)
    if not converted.games:
        raise UserError(
            f"none of {converted.unpaired} single consultancies has one for the other side of its question; "
            "give the same stage of other seeds as well"
        )
    check_games(converted.games)
    return converted


def _check_any_verdict(legs: Sequence[JudgedDebate], judge: AnyJudge) -> None:
    """Refuse a judge that could not judge a single game."""
    # Without this the command would end in a table of dashes, as if the judge had been compared.
    reason = "no game was finished"
    for leg in reversed(legs):
        if leg.verdict is not None:
            return
        if leg.failure is not None:
            reason = leg.failure.message
    raise UserError(f"{judge.name} could not judge any game ({reason}); does the model fit the transcripts?")


def _reference_protocol(legs: dict[tuple[str, str], list[JudgedDebate]]) -> str:
    """The protocol that others are compared with: debate where it was judged, else the first one with a verdict."""
    judged = []
    for (protocol, _), group in legs.items():
        if any(leg.verdict is not None for leg in group):
            judged.append(protocol)
    return "debate" if "debate" in judged else judged[0]


def _by_protocol_and_player(legs: Sequence[JudgedDebate]) -> dict[tuple[str, str], list[JudgedDebate]]:
    """Group legs by protocol and player; the player is "a + b" where two meet, "-" where nobody speaks."""
    groups: dict[tuple[str, str], list[JudgedDebate]] = {}
    for leg in legs:
        game = leg.transcript
        player = " + ".join(sorted(set(game.players.values()))) or "-"
        groups.setdefault((game.protocol.name, player), []).append(leg)
    return groups
