"""Judge accuracy under every protocol, on the same questions and with the same debaters."""

from __future__ import annotations

from pathlib import Path

from debate_rl.analysis.accuracy import accuracy_table, paired_differences
from debate_rl.arena.rollout import play_to_file
from debate_rl.arena.schedule import self_play
from debate_rl.config import OversightStage
from debate_rl.experiment import Metrics, Run
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Leg
from debate_rl.records import write


def _keyed(stage: OversightStage, run: Run) -> list[tuple[tuple[str, str], Transcript]]:
    """Every game with its (protocol, player); a protocol without speeches is asked once, for no player."""
    questions = run.questions("test", stage.questions)
    found = []
    for name in stage.protocols:
        protocol = run.protocol(name)
        for player in stage.players if protocol.turns else ("-",):
            games = self_play([player], questions, protocol, run.config.seed)
            found += [((name, player), game) for game in games]
    return found


def games(stage: OversightStage, run: Run) -> list[Transcript]:
    """Self-play of each player under each protocol."""
    return [game for _, game in _keyed(stage, run)]


def run(stage: OversightStage, run: Run, out: Path) -> Metrics:
    """Play, judge, compare."""
    keyed = _keyed(stage, run)
    players = {name: run.debater(name, stage.opponents) for name in stage.players}
    legs = play_to_file(
        [game for _, game in keyed], players, run.engine, run.judge(), out / "legs.jsonl", progress=run.progress(out)
    )
    write(out / "legs.jsonl", legs)
    by_key: dict[tuple[str, str], list[Leg]] = {}
    for (key, _), leg in zip(keyed, legs, strict=True):
        by_key.setdefault(key, []).append(leg)
    rows = accuracy_table(by_key)
    for row in rows:
        run.say(f"  {row.protocol:<12} {row.player:<10} accuracy {row.scores.accuracy}")
    run.log_debates(out.name.lstrip("."), legs)
    return {
        "rows": [row.model_dump(mode="json") for row in rows],
        "differences": [row.model_dump(mode="json") for row in paired_differences(by_key)],
        "failed": sum(leg.failure is not None for leg in legs),
    }
