"""Rollouts of online training: games through the arena, the judge's matrix, and the token sequences to learn from.

One question is one block. Its groups are the places in which a learning side speaks (side and turn); each group holds G
speeches, one of each game j. Where no speech is a reply to the other side's (one simultaneous turn, consultancies),
every own speech is judged beside each of the other side's G: the reward of a speech is its mean over that row of the
G x G matrix, and the group's mean is the baseline of that side. Where speeches answer one another, game j is A_j with
B_j and a speech earns what its own game does. Each turn is a sequence of its own, with the prompt that the player was
shown, so what the opponent said is prompt and never learnt; the final reward goes to all of a debater's turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from debate_rl.arena.rollout import play
from debate_rl.arena.schedule import round_robin
from debate_rl.engines.request import Completion, Engine, EngineFailure, Request
from debate_rl.game.protocol import SIDES, Protocol, Side, other
from debate_rl.game.question import Question
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import Failure, Leg, Verdict
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Scorer
from debate_rl.records import digest
from debate_rl.trainers.grpo.groups import POLICY, Place, learning_sides, places
from debate_rl.trainers.grpo.rewards import Earned, all_equal, earned, invalid_share, win_term
from debate_rl.trainers.grpo.settings import Online


def independent(rules: Protocol) -> bool:
    """Whether no speech is a reply to the other side's, so that any two of them make a game."""
    return rules.speakers_see == "own" or rules.turns == 1


class Recorder:
    """An engine that remembers what it wrote, token by token, until it is emptied."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.written: dict[Request, Completion] = {}
        self.choose, self.revision = engine.choose, engine.revision

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request."""
        answers = self.engine.generate(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Completion):
                self.written[request] = answer
        return answers


@dataclass
class Sequence_:
    """One speech to learn from, or to leave alone: its prompt and completion as they were sampled."""

    place: Place
    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    earned: Earned | None = None
    learnt: bool = False
    """Whether the loss counts it."""


@dataclass
class Played:
    """A rollout: sequences in the order asked for, the policy's games with verdicts, and what is counted."""

    sequences: list[Sequence_]
    legs: list[Leg]
    counts: Counter[str] = field(default_factory=Counter)
    means: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Games:
    """The G games of one question that belong together: all of self-play, or of one learning side."""

    question: int
    sides: tuple[Side, ...]
    """Sides whose speeches are learnt from."""
    legs: list[Leg]


def rollout(
    wanted: Sequence[Place],
    copies: int,
    questions: Sequence[Question],
    online: Online,
    policy: Debater,
    opponent: Callable[[Question], Debater | None],
    engine: Engine,
    judge: Scorer,
    encode: Callable[[Request], tuple[int, ...]],
    stream: Sequence[int | str],
) -> Played:
    """Play the games of a batch of groups, have them judged, and say what each speech earned.

    Args:
        wanted: the groups, whole blocks of questions.
        copies: G, games of each group.
        questions: by the index in a place.
        online: rules, rewards, roles.
        policy: the player that learns.
        opponent: who speaks for the other side on a question; None is the policy itself.
        engine: answers for all players; completions carry their tokens.
        judge: gives the verdicts.
        encode: token ids of a request's prompt, as the engine reads it.
        stream: names the random numbers, for example seed and step.

    Returns:
        `copies` sequences for each group, in the order of `wanted`.
    """
    recorder = Recorder(engine)
    blocks = {place.question: questions[place.question] for place in wanted}
    found = _play(blocks, copies, online, policy, opponent, recorder, stream)
    counts: Counter[str] = Counter(games=sum(len(games.legs) for games in found), judge_late=0, judge_failures=0)
    counts["failed_games"] = sum(leg.failure is not None for games in found for leg in games.legs)
    rows = _judge(found, online, judge, counts)
    by_place: dict[Place, list[Sequence_]] = {}
    for games in found:
        for place in places(games.question, questions[games.question], online):
            if place.side in games.sides:
                wins = rows[(id(games), place.side)]
                by_place[place] = _group(place, games, wins, policy, online, recorder, encode, counts)
    sequences = [one for place in wanted for one in by_place[place]]
    played = Played(sequences, [leg for games in found for leg in games.legs])
    played.counts, played.means = counts, _means(played)
    return played


def _play(
    blocks: Mapping[int, Question], copies: int, online: Online, policy: Debater,
    opponent: Callable[[Question], Debater | None], engine: Engine, stream: Sequence[int | str],
) -> list[_Games]:  # fmt: skip
    """All games in one lock-step: each turn is one call to the engine."""
    players = {policy.name: policy}
    planned: list[tuple[int, tuple[Side, ...], list[Transcript]]] = []
    for index, question in blocks.items():
        learning = learning_sides(question, online)
        rival = None if online.protocol.sides == "drawn" else opponent(question)
        if rival is not None:
            players[rival.name] = rival
        for sides, seats in _seatings(learning, online.protocol, policy.name, None if rival is None else rival.name):
            seeds = [int(digest([*stream, question.id, "game", copy]), 16) % 2**31 for copy in range(copies)]
            games = [
                Transcript(question=question, protocol=online.protocol, players=seats, seed=seed) for seed in seeds
            ]
            planned.append((index, sides, games))
    legs = iter(play([game for _, _, games in planned for game in games], players, engine, None))
    return [_Games(index, sides, [next(legs) for _ in games]) for index, sides, games in planned]


def _seatings(
    learning: tuple[Side, ...], rules: Protocol, policy: str, rival: str | None
) -> list[tuple[tuple[Side, ...], dict[Side, str]]]:
    """Sides that learn, and who sits where: one game for both sides in self-play, else one for each."""
    if rules.sides == "drawn":
        return [((side,), {side: policy}) for side in learning]
    if rival is None:
        return [(learning, dict.fromkeys(SIDES, policy))] if learning else []
    return [((side,), {side: policy, other(side): rival}) for side in learning]


def _judge(
    found: Sequence[_Games], online: Online, judge: Scorer, counts: Counter[str]
) -> dict[tuple[int, Side], list[float | None]]:
    """Ask about every pair of speeches once; for each set of games and side the win term of each game's speeches."""
    crossed = independent(online.protocol)
    trials: dict[tuple[object, ...], Transcript] = {}
    grids: list[list[list[tuple[object, ...] | None]]] = []
    for games in found:
        grid = []
        for first in range(len(games.legs)):
            others = range(len(games.legs)) if crossed and len(games.legs[0].transcript.present) > 1 else [first]
            grid.append([_trial(games, first, second, trials) for second in others])
        grids.append(grid)
    counts["asked"] = sum(key is not None for grid in grids for row in grid for key in row)
    counts["judged"] = len(trials)
    verdicts = dict(zip(trials, judge(list(trials.values())), strict=True))
    for verdict in verdicts.values():
        if isinstance(verdict, Failure):
            counts["judge_late" if verdict.kind == LATE else "judge_failures"] += 1
    rows: dict[tuple[int, Side], list[float | None]] = {}
    for games, grid in zip(found, grids, strict=True):
        for side in games.sides:
            # Rows of the grid are speeches of A, or of the one side there is; columns are those of B.
            transposed = side == "B" and len(games.legs[0].transcript.present) > 1 and len(grid[0]) > 1
            lines = list(zip(*grid, strict=True)) if transposed else grid
            p = [[_p(verdicts.get(key), side) if key is not None else None for key in line] for line in lines]
            rows[(id(games), side)] = [win_term(line, online.rewards) for line in p]
    for games, grid in zip(found, grids, strict=True):
        for at, leg in enumerate(games.legs):
            key = grid[at][at if len(grid[at]) > 1 else 0]
            said = verdicts.get(key) if key is not None else None
            if said is not None:
                what = "verdict" if isinstance(said, Verdict) else "failure"
                games.legs[at] = leg.model_copy(update={what: said})
    return rows


LATE = "late"
"""Kind of failure of a judge that took longer than it may."""


def _p(verdict: Verdict | Failure | None, side: Side) -> float | None:
    """The probability of a side to six digits: those after it depend on what else is in the batch, and dividing by a
    group's spread would make much of them."""
    return round(verdict.p_side(side), 6) if isinstance(verdict, Verdict) else None


def _trial(
    games: _Games, first: int, second: int, trials: dict[tuple[object, ...], Transcript]
) -> tuple[object, ...] | None:
    """The game of one leg's speeches for A and another's for B, under a key that equal games share."""
    one, two = games.legs[first], games.legs[second]
    if one.failure is not None or two.failure is not None:
        return None
    game = one.transcript
    if first != second:
        kept = [s for s in game.speeches if s.side == "A"] + [s for s in two.transcript.speeches if s.side == "B"]
        game = game.model_copy(update={"speeches": tuple(sorted(kept, key=lambda s: (s.turn, s.side)))})
    key = (games.question, tuple(sorted(game.players.items())), *((s.side, s.turn, s.text) for s in game.speeches))
    trials.setdefault(key, game)
    return key


def _group(
    place: Place, games: _Games, wins: Sequence[float | None], policy: Debater, online: Online, recorder: Recorder,
    encode: Callable[[Request], tuple[int, ...]], counts: Counter[str],
) -> list[Sequence_]:  # fmt: skip
    """The sequences of one place, with what they earned; a group without differences is not learnt from."""
    group = []
    for leg, win in zip(games.legs, wins, strict=True):
        speech = next((s for s in leg.transcript.speeches if (s.side, s.turn) == (place.side, place.turn)), None)
        if speech is None:
            group.append(Sequence_(place, (), ()))
            continue
        before = tuple(s for s in leg.transcript.speeches if s.turn < place.turn)
        request = policy.request(leg.transcript.model_copy(update={"speeches": before}), place.side, place.turn)
        tokens = recorder.written[request].tokens
        if tokens is None:
            raise ValueError("the engine does not keep the tokens it draws; open it with keep_tokens")
        reward = earned(speech, win, online.rewards)
        counts["truncated"] += speech.origin.finish == "length"
        counts["no_reward"] += reward is None
        group.append(Sequence_(place, encode(request), tokens, reward))
    skip = all_equal([one.earned for one in group])
    counts["groups"] += 1
    counts["skipped_groups"] += skip
    for one in group:
        one.learnt = one.earned is not None and not skip and bool(one.completion)
    return group


def _means(played: Played) -> dict[str, float]:
    """Means over the policy's speeches and games of a rollout."""
    own: list[Speech] = [s for leg in played.legs for s in leg.transcript.speeches if s.origin.player == POLICY]
    found = {"new_tokens": float(sum(s.origin.new_tokens for leg in played.legs for s in leg.transcript.speeches))}
    if own:
        found["valid_quotes"] = sum(invalid_share(s) == 0 for s in own) / len(own)
        found["tokens"] = sum(s.origin.new_tokens for s in own) / len(own)
    correct = [leg.p_correct for leg in played.legs if leg.p_correct is not None]
    if correct:
        found["judge_accuracy"] = sum(p > 0.5 for p in correct) / len(correct)
    p_a = [
        leg.verdict.p[0]
        for leg in played.legs
        if leg.verdict is not None and leg.transcript.players == dict.fromkeys(SIDES, POLICY)
    ]
    if p_a:
        found["side_a_wins"] = sum(p > 0.5 for p in p_a) / len(p_a)
    learnt = [one for one in played.sequences if one.learnt]
    found["learnt"] = len(learnt) / max(len(played.sequences), 1)
    return found


def schedule(pool: Sequence[str], questions: Sequence[Question], online: Online, seed: int) -> list[Transcript]:
    """The games of a measurement: cross-play with sides swapped and self-play; consultancies on both sides alone."""
    rules = online.protocol
    stream = int(digest([seed, "watch"]), 16) % 2**31
    alone: list[dict[Side, str]] = [dict.fromkeys(SIDES, POLICY)]
    cross: list[Transcript] = []
    if rules.sides == "drawn":
        alone = [{side: POLICY} for side in SIDES]
    elif rules.speakers_see == "all":
        cross = round_robin([POLICY, *pool], questions, rules, stream)
    return cross + [
        Transcript(question=question, protocol=rules, players=seats, seed=stream)
        for question in questions
        for seats in alone
    ]
