"""Play debates and turn them into preferences, in plain function calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from debate_rl.api.results import Debates
from debate_rl.arena.rollout import LogOptions, own_engine, play_to_file, read_pools
from debate_rl.arena.rollout import play as play_games
from debate_rl.engines.request import Engine
from debate_rl.engines.store import StoredEngine
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.protocol import Protocol, Side, load_protocol
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript, open_transcript
from debate_rl.judges.judge import AnyJudge, FunctionJudge
from debate_rl.players.debater import Debater
from debate_rl.records import Record
from debate_rl.stages.preferences import rows_of
from debate_rl.trainers.common.rows import PreferenceRow

JudgeLike = AnyJudge | Callable[[Sequence[Transcript]], Sequence[Any]]
"""A judge, or a function from transcripts to verdicts (or to probabilities that answer 0 is correct)."""


@lru_cache(maxsize=1)
def shared_engine() -> Engine:
    """The transformers engine of this process, opened once: its models and their caches stay loaded between calls."""
    return own_engine()


def as_judge(judge: JudgeLike) -> AnyJudge:
    """A judge record; a function, or an object with a method `judge`, is wrapped in one.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(judge, Record):
        return judge
    if not callable(judge) and not hasattr(judge, "judge"):
        raise UserError(f"{judge!r} is no judge; give a Judge, a function of transcripts, or an object with .judge()")
    decide = judge.judge if hasattr(judge, "judge") else judge
    name = getattr(judge, "name", None) or getattr(judge, "__name__", type(judge).__name__)
    return FunctionJudge(name=str(name), decide=decide)


def play(
    first: Debater,
    second: Debater,
    questions: Sequence[Question],
    judge: JudgeLike | None = None,
    protocol: str | Protocol = "debate",
    *,
    folder: str | Path | None = None,
    engine: Engine | None = None,
    seed: int = 0,
) -> Debates:
    """Play one game on each question and judge it.

    Args:
        first: speaks for answer 0 (side A).
        second: speaks for answer 1 (side B); in single consultancy one of the two speaks, by the side that is drawn.
        questions: what is debated.
        judge: gives the verdicts and chooses for Best-of-N players; None plays without.
        protocol: a shipped protocol's name, a YAML file or a `Protocol`.
        folder: keeps the games and the models' answers; the same call goes on where it was stopped.
        engine: answers for all models; None runs them with transformers in this process.
        seed: of all speeches.

    Returns:
        Judged debates, in the order of the questions; those that failed say why.

    Raises:
        UserError: no questions, a protocol that does not exist, or two different players of one name.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="test", limit=2)
        >>> player = dr.Debater("base", model="lab-base")
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> debates = dr.play(player, player, questions, dr.Judge(model="lab-base"), rules)
        >>> len(debates), debates[0].verdict is not None
        (2, True)
    """
    if not questions:
        raise UserError("play needs at least one question")
    if first.name == second.name and first != second:
        raise UserError(f"two different players are both named {first.name!r}; give them different names")
    rules = load_protocol(protocol) if isinstance(protocol, str) else protocol
    # Both are named under every protocol: where one side speaks, the question's draw says which.
    seats: dict[Side, str] = {"A": first.name, "B": second.name}
    games = [open_transcript(question, rules, seats, seed) for question in questions]
    players = {first.name: first, second.name: second}
    decider = None if judge is None else as_judge(judge)
    engine = shared_engine() if engine is None else engine
    if folder is None:
        pools: list[Any] = []
        return Debates(play_games(games, players, engine, decider, pools=pools), pools)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = StoredEngine(engine, folder / "store")
    options = LogOptions(pool_path=folder / run_files.POOLS)
    legs = play_to_file(games, players, stored, decider, folder / run_files.DEBATES, options=options)
    played = {game.id for game in games}
    kept_pools = [pool for pool in read_pools(folder / run_files.POOLS) if pool.transcript.id in played]
    return Debates(list(legs), kept_pools)


def preferences(debates: Debates, pairs_per_pool: int = 1, min_gap: float = 0.0) -> list[PreferenceRow]:
    """Chosen and rejected speeches to one prompt, with the judge's probability for the speaker after each.

    Args:
        debates: played by at least one Best-of-N player (`Debater(best_of=4)`), whose candidates were judged.
        pairs_per_pool: pairs of each set of candidates, the widest gaps first.
        min_gap: least difference of the judge's probabilities.

    Returns:
        Rows for `train_dpo` (Arnesen et al. 2024, section 3.2).

    Raises:
        UserError: nobody played Best-of-N, or no pair differs; says what became of them.

    Example:
        >>> import debate_rl as dr
        >>> questions = dr.load_questions("lab", split="train", limit=4)
        >>> rules = dr.load_protocol("debate", prompts="lab", max_new_tokens=16)
        >>> player = dr.Debater("base@4", model="lab-base", best_of=4, temperature=1.0)
        >>> debates = dr.play(player, player, questions, dr.Judge(model="lab-base"), rules)
        >>> pairs = dr.preferences(debates, min_gap=0.01)
        >>> all(pair.p_chosen - pair.p_rejected >= 0.01 for pair in pairs)
        True
    """
    if not debates.pools:
        raise UserError("preferences needs candidates to compare; play with Debater(..., best_of=4) and a judge")
    rows: list[PreferenceRow] = []
    dropped: Counter[str] = Counter()
    for pool in debates.pools:
        rows += rows_of(pool, pairs_per_pool, min_gap, dropped)
    if not rows:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count)
        raise UserError(f"preferences: no pair makes a row ({reasons}); raise best_of, lower min_gap, or see the judge")
    return rows
