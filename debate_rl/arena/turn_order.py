"""Who speaks where the rules leave it open: a player picks its side before the game, or the judge's mind calls a side.

Open debate and open consultancy (Kenton et al. 2024, arXiv 2407.04622): the player is asked first, with the passage at
hand, which answer it holds for true. Market-making (Hubinger 2020; one turn of it in Lang et al. 2025): in each turn
the side speaks whose answer the judge now believes less, until the judge's probability stops moving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from debate_rl.engines.request import Engine
from debate_rl.game.protocol import load_protocol
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.judge import Judge, judge_transcripts
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Scorer


def pick_sides(
    games: Sequence[Transcript], players: Mapping[str, Debater], engine: Engine
) -> list[Transcript | Failure]:
    """Let the player of each game say which answer it holds for true; games that leave nothing open stay as they are.

    A tie goes to side A. One call to the engine for all games of a player.
    """
    found: list[Transcript | Failure] = list(games)
    open_ones = [at for at, game in enumerate(games) if game.protocol.open and game.picked is None]
    for name in sorted({games[at].players["A"] for at in open_ones}):
        places = [at for at in open_ones if games[at].players["A"] == name]
        readers = [_as_reader(games[at]) for at in places]
        mind = Judge(name=name, model=players[name].model, adapter=players[name].adapter)
        for at, belief in zip(places, judge_transcripts(readers, mind, engine), strict=True):
            if isinstance(belief, Failure):
                found[at] = belief.model_copy(update={"seat": "A", "turn": 0})
            else:
                side = "A" if belief.p[0] >= belief.p[1] else "B"
                found[at] = games[at].model_copy(update={"picked": side})
    return found


def _as_reader(game: Transcript) -> Transcript:
    """The question as an open-book judge would be asked it, in the game's words."""
    rules = load_protocol("open_book", prompts=game.protocol.prompts, needs_passage=game.protocol.needs_passage)
    return Transcript(question=game.question, protocol=rules, players={}, seed=game.seed)


def call_sides(
    games: Sequence[Transcript], before: Sequence[float | None], score: Scorer | None
) -> list[tuple[Transcript | Failure, float | None]]:
    """Call the side that speaks next in games where the judge's mind decides; other games stay as they are.

    Args:
        games: before a turn.
        before: the judge's probability of answer 0 before the turn that was just played; None before the first.
        score: the judge.

    Returns:
        For each game the game with the side called, or none called where the judge has settled; and the judge's
        probability of answer 0 now.
    """
    found: list[tuple[Transcript | Failure, float | None]] = [(game, None) for game in games]
    asked = [at for at, game in enumerate(games) if _waits(game)]
    if asked and score is None:
        missing = Failure(seat="judge", kind="no judge", message="this protocol needs a judge to call the speakers")
        for at in asked:
            found[at] = missing, None
        return found
    verdicts = score([games[at] for at in asked]) if asked and score is not None else []
    for at, verdict in zip(asked, verdicts, strict=True):
        found[at] = (verdict, None) if isinstance(verdict, Failure) else _called(games[at], verdict, before[at])
    return found


def _waits(game: Transcript) -> bool:
    """Whether somebody may still be called: every side called so far has spoken."""
    rules = game.protocol
    return rules.calls == "rejected" and len(game.called) == len(game.speeches) < rules.turns


def _called(game: Transcript, verdict: Verdict, before: float | None) -> tuple[Transcript, float]:
    """The game after the judge was asked; a tie calls side B."""
    p = verdict.p[0]
    if before is not None and abs(p - before) < game.protocol.settled:
        return game, p
    rejected = "B" if p >= verdict.p[1] else "A"
    return game.model_copy(update={"called": (*game.called, rejected)}), p
