"""Decides who speaks when the protocol leaves it open (open debate, open consultancy, market-making).

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
    """Ask the player of each open game which answer it holds for true; other games stay as they are.

    A tie goes to side A. All games of a player are one call to the engine.
    """
    picked: list[Transcript | Failure] = list(games)
    open_by_player: dict[str, list[int]] = {}
    for index, game in enumerate(games):
        if game.protocol.open and game.picked is None:
            open_by_player.setdefault(game.players["A"], []).append(index)
    for name, indexes in sorted(open_by_player.items()):
        # The player picks as an open-book judge does: from the probabilities of the two answers, passage in view.
        questions = [_open_book(games[index]) for index in indexes]
        player = Judge(name=name, model=players[name].model, adapter=players[name].adapter)
        for index, belief in zip(indexes, judge_transcripts(questions, player, engine), strict=True):
            if isinstance(belief, Failure):
                picked[index] = belief.model_copy(update={"seat": "A", "turn": 0})
            else:
                side = "A" if belief.p[0] >= belief.p[1] else "B"
                picked[index] = games[index].model_copy(update={"picked": side})
    return picked


def _open_book(game: Transcript) -> Transcript:
    """The game's question as an open-book judge is asked it, with the game's prompts."""
    rules = load_protocol("open_book", prompts=game.protocol.prompts, needs_passage=game.protocol.needs_passage)
    return Transcript(question=game.question, protocol=rules, players={}, seed=game.seed)


def call_sides(
    games: Sequence[Transcript], before: Sequence[float | None], score: Scorer | None
) -> list[tuple[Transcript | Failure, float | None]]:
    """Call the side that speaks next in games where the judge's belief decides; other games stay as they are.

    Args:
        games: before a turn.
        before: the judge's probability of answer 0 before the turn that was just played; None before the first.
        score: the judge.

    Returns:
        One pair per game: the game with the side called, or with none called where the judge has settled; and the
        judge's probability of answer 0 now.
    """
    outcomes: list[tuple[Transcript | Failure, float | None]] = [(game, None) for game in games]
    waiting = [index for index, game in enumerate(games) if _waits_for_call(game)]
    if not waiting:
        return outcomes
    if score is None:
        no_judge = Failure(seat="judge", kind="no judge", message="this protocol needs a judge to call the speakers")
        for index in waiting:
            outcomes[index] = (no_judge, None)
        return outcomes
    verdicts = score([games[index] for index in waiting])
    for index, verdict in zip(waiting, verdicts, strict=True):
        if isinstance(verdict, Failure):
            outcomes[index] = (verdict, None)
        else:
            outcomes[index] = _call_side(games[index], verdict, before[index])
    return outcomes


def _waits_for_call(game: Transcript) -> bool:
    """Whether the judge may call a side now: turns are left, and every side called so far has spoken."""
    rules = game.protocol
    return rules.calls == "rejected" and len(game.called) == len(game.speeches) < rules.turns


def _call_side(game: Transcript, verdict: Verdict, before: float | None) -> tuple[Transcript, float]:
    """Call the side that the judge believes less (B in a tie), unless the judge has settled."""
    p = verdict.p[0]
    # A settled game is asked again in every later turn. Nothing was said since: p has not moved, so it stays settled.
    if before is not None and abs(p - before) < game.protocol.settled:
        return game, p
    rejected = "B" if p >= verdict.p[1] else "A"
    return game.model_copy(update={"called": (*game.called, rejected)}), p
