"""Preferences: Best-of-N pools or branching trees on training questions become rows of chosen and rejected speeches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from debate_rl.arena.game_tree import Opponents, Tree, grow, grow_to_file, pools_of
from debate_rl.arena.pool_errors import with_errors
from debate_rl.arena.rollout import LogOptions, play, play_to_file, read_pools
from debate_rl.arena.schedule import branching, self_play
from debate_rl.errors import UserError
from debate_rl.game import run_files
from debate_rl.game.prompts import debater_messages
from debate_rl.game.protocol import Protocol, load_protocol, shipped_protocols
from debate_rl.game.question import Question
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Critic, Debater
from debate_rl.players.speak import Pool
from debate_rl.records import digest, write
from debate_rl.stages.base import Stage, StageResult, is_absent
from debate_rl.stages.workload import Rehearsed, Rows, rough_tokens, some_games
from debate_rl.trainers.common.rows import PoolTurn, PreferenceRow, preference_rows

if TYPE_CHECKING:
    from debate_rl.plan.counting_engine import CountingEngine
    from debate_rl.runs.run import Run

REASONS = (
    "speech_failed",
    "judge_failed",
    "empty_speech",
    "equal_texts",
    "equal_scores",
    "below_gap",
    "narrower",
    "unbalanced",
)
"""Why two speeches to one prompt make no row; `narrower`: their pool gave enough pairs with wider gaps. Every possible
pair is a row or is counted under one of these."""


class PreferencesResult(StageResult):
    """Rows made, and what became of every other pair of speeches: possible_pairs is pairs plus all that was dropped."""

    questions: int
    pools: int
    generated_tokens: int
    """Of candidates and simulated opponents."""
    pairs: int
    """Rows."""
    mean_gap: float
    """Mean of P(chosen) - P(rejected)."""
    side_a: float
    """Share of the rows that are speeches of side A."""
    wrong: float | None = Field(default=None, exclude_if=is_absent)
    """Share of the pairs, before sides are balanced, whose rejected speech scores higher by the verdicts without
    `errors`; None where there are none."""
    trees: int | None = Field(default=None, exclude_if=is_absent)
    """None for best_of_n."""
    transcripts: int | None = Field(default=None, exclude_if=is_absent)
    """Finished games of the trees; None for best_of_n."""
    failed: int
    """Games."""
    possible_pairs: int
    dropped_speech_failed: int
    dropped_judge_failed: int
    dropped_empty_speech: int
    dropped_equal_texts: int
    dropped_equal_scores: int
    dropped_below_gap: int
    dropped_narrower: int
    dropped_unbalanced: int


class PreferencesStage(Stage):
    """Speeches to one prompt on training questions, scored by the judge: the rows of DPO."""

    kind: Literal["preferences"] = "preferences"
    method: Literal["best_of_n", "full", "half", "single"] = "best_of_n"
    """best_of_n: each speech against simulated opponents, before the game goes on. Or trees of games, a speech scored
    by the mean verdict of the finished games through it, that branch in every turn of one side (full), in one drawn by
    seed (half), or in the first (single)."""
    player: str = "sft"
    """Player whose speeches are compared."""
    best_of: int = Field(default=4, ge=2)
    """Candidates for each speech (best_of_n)."""
    opponents: int = Field(default=2, ge=0)
    """Simulated opponents that each candidate meets (best_of_n)."""
    opponents_from: tuple[str, ...] = ()
    """Players that speak for the other side: simulated by best_of_n, of trees one really plays, drawn by seed for each
    tree. Empty is the player itself."""
    aggregate: Literal["mean", "min"] = "mean"
    """Over the simulated opponents, or over the finished games: expected or worst case."""
    branches: int = Field(default=2, ge=2)
    """Speeches at a branching node (trees)."""
    flip: bool = True
    """Grow a tree for each side of a question; else for one side, drawn by seed (trees)."""
    refine: int = Field(default=0, ge=0)
    """Rounds of critique and refinement of every speech."""
    critic: str | None = None
    """Player whose model criticises; empty is the player itself."""
    questions: int = Field(default=200, ge=1)
    """Training questions."""
    skip: int = Field(default=0, ge=0)
    """Training questions left out before the first, so that another stage can have them."""
    pairs_per_pool: int = Field(default=1, ge=1)
    """Pairs of each set of candidates, the widest gaps first."""
    min_gap: float = Field(default=0.0, ge=0, le=1)
    """Least difference in the judge's probability between chosen and rejected."""
    errors: float = Field(default=0.0, ge=0, le=1)
    """Share of the judge's verdicts that are turned round (p becomes 1 - p) before pairs are made, drawn by seed: what
    training by a judge with so many errors does. The games go on by the verdicts as they are."""
    balance_sides: bool = False
    """Leave out pairs of the side that has more, drawn by their content, until both sides have as many."""
    protocol: str | None = None
    """Protocol of the games; empty takes the run's."""

    @field_validator("protocol")
    @classmethod
    def _someone_speaks(cls, name: str | None) -> str | None:
        if name in shipped_protocols() and load_protocol(name).turns == 0:
            raise ValueError(f"under {name!r} nobody speaks, so it makes no preferences; choose another")
        return name

    @model_validator(mode="after")
    def _critic_has_work(self) -> PreferencesStage:
        if self.critic is not None and self.refine == 0:
            raise ValueError("a critic needs rounds of refinement; set refine: 1, or leave the critic out")
        return self

    @model_validator(mode="after")
    def _candidates_are_set_here(self) -> PreferencesStage:
        stage, at, _ = self.player.partition("@")
        if at and self.method == "best_of_n":
            raise ValueError(
                f"player {self.player!r} sets its own candidates, which best_of does here; write player: {stage} and "
                "best_of (with refine for rounds of critique), or choose a method that grows trees"
            )
        for name in self.opponents_from if self.method == "best_of_n" else ():
            if "@" in name:
                raise ValueError(
                    f"opponents_from: {name!r}: simulated opponents draw one speech each; name it without @, or "
                    "choose a method that grows trees"
                )
        return self

    def references(self) -> set[str]:
        """Who speaks and who criticises."""
        return {self.player, *self.opponents_from} | ({self.critic} if self.critic else set())

    @property
    def asks_judge(self) -> bool:
        """Every speech is scored."""
        return True

    def games(self, run: Run) -> list[Transcript]:
        """Self-play of the Best-of-N player, or the trees' games before they branch."""
        return games(self, run)

    def rehearse(self, run: Run, name: str, engine: CountingEngine) -> Rehearsed:
        """Pools or trees of some questions."""
        debates, played = rehearse(self, run, run.judge(name), engine)
        return Rehearsed(debates, debates / max(played, 1), engine.asked)

    def plan_note(self, run: Run) -> str:
        """How many trees it grows."""
        return "" if self.method == "best_of_n" else f"{len(trees(self, run))} trees"

    def execute(self, run: Run, out: Path) -> PreferencesResult:
        """Play, keep the pools, make rows."""
        return execute(self, run, out)


class Played(NamedTuple):
    """What was generated and judged."""

    pools: list[Pool]
    possible: int
    """Pairs that the pools would give if nothing failed."""
    lost: Counter[str]
    """Pairs among them whose speeches could not be written or scored, by reason."""
    failures: list[Failure]
    trees: int | None = None
    """None for best_of_n."""
    games: int | None = None
    """Finished games of the trees."""


def trees(stage: PreferencesStage, run: Run) -> list[Tree]:
    """The trees to grow; none where the method is Best-of-N."""
    if stage.method == "best_of_n":
        return []
    return branching(
        stage.player,
        questions(stage, run),
        protocol(stage, run),
        stage.method,
        stage.branches,
        stage.opponents_from,
        stage.flip,
        run.config.seed,
    )


def games(stage: PreferencesStage, run: Run) -> list[Transcript]:
    """Self-play of the Best-of-N player on training questions, or the trees' games before they branch."""
    if stage.method != "best_of_n":
        return [tree.game for tree in trees(stage, run)]
    name = f"{stage.player}@{stage.best_of}"
    return self_play([name], questions(stage, run), protocol(stage, run), run.config.seed)


def questions(stage: PreferencesStage, run: Run) -> list[Question]:
    """The stage's training questions, fewer than it asks for where there are no more.

    Raises:
        UserError: `skip` leaves none.
    """
    training_questions = run.questions("train")
    if stage.skip >= len(training_questions):
        raise UserError(
            f"preferences: skip {stage.skip} leaves no training questions of {len(training_questions)}; "
            "lower skip, or raise questions.train"
        )
    return training_questions[stage.skip : stage.skip + stage.questions]


def protocol(stage: PreferencesStage, run: Run) -> Protocol:
    """The protocol of the stage's games.

    Raises:
        UserError: nobody speaks under it.
    """
    rules = run.protocol(stage.protocol)
    if rules.turns == 0:
        raise UserError(
            f"protocol {rules.name!r} has no speeches to make preferences of; choose one in which someone speaks"
        )
    return rules


def rows_of(pool: Pool, pairs: int, min_gap: float, dropped: Counter[str] | None = None) -> list[PreferenceRow]:
    """Preference rows of one pool: the pairs with the widest gaps in score (see `preference_rows`)."""
    question = pool.transcript.question
    scored = [(speech.text, score) for speech, score in zip(pool.candidates, pool.scores, strict=True)]
    return preference_rows(
        debater_messages(pool.transcript, pool.side, pool.turn),
        scored,
        pairs_per_pool=pairs,
        min_gap=min_gap,
        turn=PoolTurn(question=question.id, group=question.cluster, side=pool.side, turn=pool.turn),
        dropped=dropped,
    )


def balanced(rows: Sequence[PreferenceRow], seed: int = 0) -> list[PreferenceRow]:
    """As many rows of one side as of the other.

    Rows are dropped by a draw over their content, so that their gap has no part in it.
    """

    def draw(index: int) -> str:
        return digest(["balance", seed, rows[index].model_dump(mode="json")])

    by_side: dict[str, list[int]] = {"A": [], "B": []}
    for index, row in enumerate(rows):
        if row.side in by_side:
            by_side[row.side].append(index)
    count = min(map(len, by_side.values()))
    chosen: set[int] = set()
    for indices in by_side.values():
        chosen.update(sorted(indices, key=draw)[:count])
    return [row for index, row in enumerate(rows) if index in chosen]


def execute(stage: PreferencesStage, run: Run, out: Path) -> PreferencesResult:
    """Play, write the pools, make rows of them.

    Raises:
        UserError: no pair makes a row; says what became of them.
    """
    training_questions = questions(stage, run)
    if len(training_questions) < stage.questions:
        run.say(
            f"  preferences: {len(training_questions)} training questions; {stage.questions} were asked for, "
            "there are no more"
        )
    player = player_of(stage, run)
    generate = _best_of_n if stage.method == "best_of_n" else _grow_trees
    played = generate(stage, run, out, player)
    dropped = Counter(dict.fromkeys(REASONS, 0))
    dropped.update(played.lost)
    rows: list[PreferenceRow] = []
    generated_tokens, wrong = 0, 0
    for pool in played.pools:
        seen = with_errors(pool, stage.errors, seed=run.config.seed) if stage.errors else pool
        made = rows_of(seen, stage.pairs_per_pool, stage.min_gap, dropped)
        wrong += _wrong(made, pool)
        rows += made
        generated_tokens += sum(speech.origin.new_tokens for speech in (*pool.candidates, *pool.opponents))
    wrong_share = wrong / max(len(rows), 1) if stage.errors else None
    if stage.balance_sides:
        even = balanced(rows, run.config.seed)
        dropped["unbalanced"] += len(rows) - len(even)
        rows = even
    if not rows:
        raise UserError(_no_rows(played, dropped))
    write(out / run_files.POOLS, played.pools)
    write(out / "rows.jsonl", rows)
    return PreferencesResult(
        questions=len(training_questions),
        pools=len(played.pools),
        generated_tokens=generated_tokens,
        pairs=len(rows),
        mean_gap=sum(row.p_chosen - row.p_rejected for row in rows) / len(rows),
        side_a=sum(row.side == "A" for row in rows) / len(rows),
        trees=played.trees,
        transcripts=played.games,
        wrong=wrong_share,
        failed=len(played.failures),
        possible_pairs=played.possible,
        **{f"dropped_{reason}": count for reason, count in dropped.items()},
    )


def _wrong(rows: Sequence[PreferenceRow], pool: Pool) -> int:
    """How many rows of a pool prefer the speech that its verdicts score lower; of equal texts the first one counts."""
    scores: dict[str, float] = {}
    for speech, score in zip(pool.candidates, pool.scores, strict=True):
        scores.setdefault(speech.text, score)
    return sum(scores[row.chosen] < scores[row.rejected] for row in rows)


def _no_rows(played: Played, dropped: Counter[str]) -> str:
    """What became of the pairs, and what to do about it."""
    reasons = [f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count]
    advice = "raise best_of or branches, lower min_gap, or look at the judge"
    if played.failures:
        advice = f"the first failure: {played.failures[0].message}"
    return f"preferences: none of {played.possible} pairs makes a row ({', '.join(reasons)}); {advice}"


def player_of(stage: PreferencesStage, run: Run) -> Debater:
    """The debater whose speeches are compared."""
    name = f"{stage.player}@{stage.best_of}" if stage.method == "best_of_n" else stage.player
    critic = None
    if stage.critic is not None:
        debater = run.debater(stage.critic)
        critic = Critic(model=debater.model, adapter=debater.adapter)
    changes = {"aggregate": stage.aggregate, "refine": stage.refine, "critic": critic}
    return run.debater(name, stage.opponents).model_copy(update=changes)


def _best_of_n(stage: PreferencesStage, run: Run, out: Path, player: Debater) -> Played:
    """Self-play in which every speech is the best of N."""
    planned = games(stage, run)
    opponents = [run.debater(name) for name in stage.opponents_from]
    legs = play_to_file(
        planned,
        {player.name: player},
        run.engine,
        run.judge(),
        out / run_files.DEBATES,
        {player.name: opponents} if opponents else None,
        run.progress(out),
        LogOptions(pool_path=out / run_files.POOLS),
    )
    # The log has pools in the order in which they were finished, which differs from run to run.
    position = {game.id: index for index, game in enumerate(planned)}
    pools = read_pools(out / run_files.POOLS)
    pools.sort(key=lambda pool: (position[pool.transcript.id], pool.turn, pool.side))
    write(out / run_files.DEBATES, legs)
    pools_of_game = Counter(pool.transcript.id for pool in pools)
    pairs_per_pool = comb(player.best_of, 2)
    lost: Counter[str] = Counter()
    failures: list[Failure] = []
    possible = 0
    for leg in legs:
        game = leg.transcript
        speeches = _called_speeches(game)
        possible += speeches * pairs_per_pool
        lost[_reason(leg.failure)] += (speeches - pools_of_game[game.id]) * pairs_per_pool
        if leg.failure is not None:
            failures.append(leg.failure)
    return Played(pools, possible, lost, failures)


def _grow_trees(stage: PreferencesStage, run: Run, out: Path, player: Debater) -> Played:
    """Trees of games in which one side branches."""
    players = {name: run.debater(name, stage.opponents) for name in stage.opponents_from}
    players[player.name] = player
    path = out / "trees.jsonl"
    grown = grow_to_file(trees(stage, run), players, run.engine, run.judge(), path, progress=run.progress(out))
    write(path, grown)  # in the order of the questions, without trees that a resumed stage grew again
    pools: list[Pool] = []
    lost: Counter[str] = Counter()
    failures: list[Failure] = []
    possible, games_played = 0, 0
    for tree in grown:
        tree_pools = pools_of(tree, stage.aggregate)
        tree_failures = [leaf.failure for leaf in tree.leaves if leaf.failure is not None]
        # All pairs that a tree lacks are counted under its first failure: which leaf cost which pair is not recorded.
        pairs = tree.size[2]
        scored_pairs = sum(comb(len(pool.candidates), 2) for pool in tree_pools)
        lost[_reason(tree_failures[0] if tree_failures else None)] += pairs - scored_pairs
        possible += pairs
        games_played += len(tree.leaves)
        failures += tree_failures
        pools += tree_pools
    return Played(pools, possible, lost, failures, len(grown), games_played)


def _reason(failure: Failure | None) -> str:
    """What kept speeches from being scored."""
    return "judge_failed" if failure is not None and failure.seat == "judge" else "speech_failed"


def rehearse(stage: PreferencesStage, run: Run, judge: AnyJudge, engine: CountingEngine) -> tuple[int, int]:
    """Play the pools or trees of some questions on an engine that counts.

    Returns:
        Finished games of all questions, and of those that were played.
    """
    player = player_of(stage, run)
    opponents = [run.debater(name, stage.opponents) for name in stage.opponents_from]
    if stage.method == "best_of_n":
        planned = games(stage, run)
        shown = some_games(planned)
        by_player: Opponents = {player.name: opponents} if opponents else None
        play(shown, {player.name: player}, engine, judge, by_player)
        return len(planned), len(shown)
    planned_trees = trees(stage, run)
    shown_games = some_games([tree.game for tree in planned_trees])
    shown_questions = {game.question.id for game in shown_games}
    shown_trees = [tree for tree in planned_trees if tree.game.question.id in shown_questions]
    players = {opponent.name: opponent for opponent in opponents}
    players[player.name] = player
    grow(shown_trees, players, engine, judge)
    return _finished_games(planned_trees), _finished_games(shown_trees)


def _finished_games(grown: Sequence[Tree]) -> int:
    """How many games trees have when they are grown."""
    return sum(tree.size[1] for tree in grown)


def pair_rows(stage: PreferencesStage, run: Run) -> Rows:
    """The most pairs that a preferences stage can make: each pool gives all that it may."""
    planned_trees = {tree.game.id: tree for tree in trees(stage, run)}
    count, tokens, longest_prompt, longest_speech = 0, 0, 0, 0
    for game in games(stage, run):
        new_tokens, turns = game.protocol.max_new_tokens, game.protocol.turns
        if game.id in planned_trees:
            pairs = planned_trees[game.id].size[2]
        else:
            pairs = _speeches(game) * stage.pairs_per_pool
        first_speaker = (game.speakers(0) or game.present)[0]
        first_prompt = rough_tokens(debater_messages(game, first_speaker, 0))
        last_prompt = first_prompt + (turns - 1) * 2 * new_tokens
        count += pairs
        # Two rows a pair, each with a prompt of average length.
        tokens += pairs * (first_prompt + last_prompt + 2 * new_tokens)
        longest_prompt = max(longest_prompt, last_prompt)
        longest_speech = max(longest_speech, new_tokens)
    return Rows(count, tokens, longest_prompt, longest_speech)


def _speeches(game: Transcript) -> int:
    """How many speeches a planned game has."""
    turns = game.protocol.turns
    if game.protocol.calls == "rejected":
        return turns  # the judge calls one side a turn, and nobody is called before the game is played
    return _called_speeches(game)


def _called_speeches(game: Transcript) -> int:
    """Speeches of a game, by the sides that its rules, or the judge so far, call in each turn."""
    return sum(len(game.speakers(turn)) for turn in range(game.protocol.turns))
