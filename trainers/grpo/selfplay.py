"""Rollouts of online training: play the games of a batch, have them judged, and return the sequences to learn from.

One question is one block. Each turn of each learning side is a group of G speeches, one from each game. Rewards depend
on whether speeches answer one another:

- They do not (one simultaneous turn, consultancies): every speech is judged beside each of the other side's G speeches.
  The reward of a speech is its mean over that row of the G x G matrix, and the group's mean is the side's baseline.
- They do: game j is A_j with B_j, and a speech earns what its own game does.

Each turn is a training sequence of its own, whose prompt is what the player was shown. Speeches of the opponent are
therefore part of the prompt and never learnt. The final reward goes to all turns of a debater.
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
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, JudgedDebate, Verdict
from debate_rl.players.debater import Debater
from debate_rl.players.speak import Scorer
from debate_rl.records import digest
from debate_rl.trainers.grpo.custom import Payer
from debate_rl.trainers.grpo.groups import POLICY, GroupKey, learning_sides, places
from debate_rl.trainers.grpo.rewards import Earned, all_equal, earned, invalid_share, win_term
from debate_rl.trainers.grpo.settings import Online, Rewards

LATE = "late"
"""Failure kind of a judge that exceeded its time limit."""

TrialKey = tuple[object, ...]
"""Question, players and texts of a game: games with equal keys get one verdict."""


def independent(rules: Protocol) -> bool:
    """Whether no speech answers the other side, so that any two speeches make a game."""
    return rules.speakers_see == "own" or rules.turns == 1


class Recorder:
    """An engine that remembers its completions with their tokens, by request."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.written: dict[Request, Completion] = {}
        self.choose = engine.choose
        self.revision = engine.revision

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Write a text for each request."""
        answers = self.engine.generate(requests)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Completion):
                self.written[request] = answer
        return answers


@dataclass(frozen=True)
class Participants:
    """Who plays and judges a rollout, and what answers for them."""

    policy: Debater
    """The player that learns."""
    opponent: Callable[[Question], Debater | None]
    """Speaks for the other side on a question; None is the policy itself."""
    engine: Engine
    """Answers for all players; completions carry their tokens."""
    judge: Scorer
    """Gives the verdicts."""
    encode: Callable[[Request], tuple[int, ...]]
    """Token ids of a request's prompt, as the engine reads it."""
    pay: Payer | None = None
    """Pays for a speech in its game, in place of the win term."""


@dataclass
class TrainingSequence:
    """One speech of a group: its prompt and completion as they were sampled, and its reward."""

    group: GroupKey
    prompt: tuple[int, ...]
    """Token ids; empty if the game failed before the speech."""
    completion: tuple[int, ...]
    """Token ids, likewise."""
    earned: Earned | None = None
    learnt: bool = False
    """Whether the loss counts it."""


@dataclass
class RolloutResult:
    """Sequences in the order of the batch, the policy's games with verdicts, and figures for the log."""

    sequences: list[TrainingSequence]
    legs: list[JudgedDebate]
    counts: Counter[str] = field(default_factory=Counter)
    means: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _QuestionGames:
    """G games of one question with the same seats: all of them in self-play, else those of one learning side."""

    question: int
    sides: tuple[Side, ...]
    """Sides that learn from these games."""
    legs: list[JudgedDebate]


@dataclass(frozen=True)
class _TrialGrid:
    """Games that the judge is asked about: row i has leg i's speeches for A, column j has leg j's for B."""

    crossed: bool
    """False: a row has one cell, the leg's own game."""
    cells: list[list[TrialKey | None]]
    """None where one of the two legs failed."""

    def own_trial(self, leg: int) -> TrialKey | None:
        """The game that a leg was really played as."""
        return self.cells[leg][leg if self.crossed else 0]

    def trials_with(self, side: Side, leg: int) -> list[TrialKey | None]:
        """All games with a leg's speeches for a side."""
        if self.crossed and side == "B":
            return [row[leg] for row in self.cells]
        return self.cells[leg]


def rollout(
    groups: Sequence[GroupKey],
    copies: int,
    questions: Sequence[Question],
    online: Online,
    participants: Participants,
    stream: Sequence[int | str],
) -> RolloutResult:
    """Play the games of a batch of groups, judge them, and compute the reward of each speech.

    Args:
        groups: whole blocks of questions.
        copies: G, games per group.
        questions: by the index in a group's key.
        online: protocol, rewards and roles.
        participants: policy, opponent and judge, with the engine that answers for them.
        stream: names the random numbers, for example seed and step.

    Returns:
        `copies` sequences for each group, in the order of `groups`.
    """
    recorder = Recorder(participants.engine)
    blocks = {group.question: questions[group.question] for group in groups}
    played = _play(blocks, copies, online, participants, recorder, stream)
    counts: Counter[str] = Counter(games=0, judge_late=0, judge_failures=0, failed_games=0)
    # Counted before judging, which stores the failures of the judge in the legs as well.
    for games in played:
        counts["games"] += len(games.legs)
        counts["failed_games"] += sum(leg.failure is not None for leg in games.legs)
    win_terms = _judge(played, online, participants.judge, counts)
    sequences_of: dict[GroupKey, list[TrainingSequence]] = {}
    for games, wins in zip(played, win_terms, strict=True):
        for group in places(games.question, questions[games.question], online):
            if group.side in games.sides:
                speeches = _sequences(group, games, wins[group.side], online, participants, recorder, counts)
                sequences_of[group] = speeches
    if participants.pay is not None:
        counts["reward_errors"] = participants.pay.errors
        participants.pay.check()
    result = RolloutResult([], [], counts)
    for group in groups:
        result.sequences.extend(sequences_of[group])
    for games in played:
        result.legs.extend(games.legs)
    result.means = _means(result)
    return result


def _play(
    blocks: Mapping[int, Question],
    copies: int,
    online: Online,
    participants: Participants,
    engine: Engine,
    stream: Sequence[int | str],
) -> list[_QuestionGames]:
    """Play all games in lock-step: each turn is one call to the engine."""
    protocol = online.protocol
    policy = participants.policy
    players = {policy.name: policy}
    planned: list[tuple[int, tuple[Side, ...]]] = []
    transcripts = []
    for index, question in blocks.items():
        opponent = None if protocol.sides == "drawn" else participants.opponent(question)
        if opponent is not None:
            players[opponent.name] = opponent
        # The seed names the copy and not the seats: against an opponent, game j has the same seed on both sides.
        seeds = [int(digest([*stream, question.id, "game", copy]), 16) % 2**31 for copy in range(copies)]
        for sides, seats in _seatings(learning_sides(question, online), protocol, policy, opponent):
            planned.append((index, sides))
            for seed in seeds:
                transcripts.append(Transcript(question=question, protocol=protocol, players=seats, seed=seed))
    legs = iter(play(transcripts, players, engine, None))
    played = []
    for index, sides in planned:
        question_legs = [next(legs) for _ in range(copies)]
        played.append(_QuestionGames(index, sides, question_legs))
    return played


def _seatings(
    learning: tuple[Side, ...], protocol: Protocol, policy: Debater, opponent: Debater | None
) -> list[tuple[tuple[Side, ...], dict[Side, str]]]:
    """List the (learning sides, seats) of a question: one game for both sides in self-play, else one for each side."""
    if not learning:
        return []
    if protocol.sides != "drawn" and opponent is None:
        return [(learning, dict.fromkeys(SIDES, policy.name))]
    seatings: list[tuple[tuple[Side, ...], dict[Side, str]]] = []
    for side in learning:
        seats: dict[Side, str] = {side: policy.name}
        if opponent is not None:
            seats[other(side)] = opponent.name
        seatings.append(((side,), seats))
    return seatings


def _judge(
    played: Sequence[_QuestionGames], online: Online, judge: Scorer, counts: Counter[str]
) -> list[dict[Side, list[float | None]]]:
    """Judge every pair of speeches once and store each leg's verdict in it.

    Returns:
        For each set of games and learning side, the win term of each game's speeches; None without a verdict.
    """
    trials: dict[TrialKey, Transcript] = {}
    grids = [_trial_grid(games, online.protocol, trials) for games in played]
    counts["asked"] = 0
    for grid in grids:
        for row in grid.cells:
            counts["asked"] += sum(trial is not None for trial in row)
    counts["judged"] = len(trials)
    # One call for the whole batch, so that the judge can batch across questions.
    verdicts = dict(zip(trials, judge(list(trials.values())), strict=True))
    for verdict in verdicts.values():
        if isinstance(verdict, Failure):
            counts["judge_late" if verdict.kind == LATE else "judge_failures"] += 1
    win_terms = []
    for games, grid in zip(played, grids, strict=True):
        win_terms.append({side: _win_terms(grid, side, verdicts, online.rewards) for side in games.sides})
        _store_verdicts(games, grid, verdicts)
    return win_terms


def _trial_grid(games: _QuestionGames, protocol: Protocol, trials: dict[TrialKey, Transcript]) -> _TrialGrid:
    """Pair the speeches of both sides and add the games that they make to `trials`."""
    two_sided = len(games.legs[0].transcript.present) == 2
    crossed = two_sided and independent(protocol)
    cells = []
    for first in range(len(games.legs)):
        seconds = range(len(games.legs)) if crossed else [first]
        cells.append([_add_trial(games, first, second, trials) for second in seconds])
    return _TrialGrid(crossed, cells)


def _add_trial(games: _QuestionGames, first: int, second: int, trials: dict[TrialKey, Transcript]) -> TrialKey | None:
    """Add the game of one leg's speeches for A and another leg's for B, under a key that equal games share."""
    leg_a, leg_b = games.legs[first], games.legs[second]
    if leg_a.failure is not None or leg_b.failure is not None:
        return None
    game = leg_a.transcript
    if first != second:
        speeches = [speech for speech in leg_a.transcript.speeches if speech.side == "A"]
        speeches += [speech for speech in leg_b.transcript.speeches if speech.side == "B"]
        speeches.sort(key=lambda speech: (speech.turn, speech.side))
        game = game.model_copy(update={"speeches": tuple(speeches)})
    # Seeds are left out of the key: a policy that has become certain writes equal texts in most games, and each text
    # is judged once.
    texts = [(speech.side, speech.turn, speech.text) for speech in game.speeches]
    key = (games.question, tuple(sorted(game.players.items())), *texts)
    trials.setdefault(key, game)
    return key


def _win_terms(
    grid: _TrialGrid, side: Side, verdicts: Mapping[TrialKey, Verdict | Failure], rewards: Rewards
) -> list[float | None]:
    """The win term of each leg's speeches for a side."""
    terms = []
    for leg in range(len(grid.cells)):
        probabilities = [_p_side(trial, verdicts, side) for trial in grid.trials_with(side, leg)]
        terms.append(win_term(probabilities, rewards))
    return terms


def _p_side(trial: TrialKey | None, verdicts: Mapping[TrialKey, Verdict | Failure], side: Side) -> float | None:
    """Probability of a side in a trial, to six digits; None without a verdict."""
    verdict = None if trial is None else verdicts[trial]
    if not isinstance(verdict, Verdict):
        return None
    # Later digits depend on what else is in the judge's batch, and dividing by a group's spread would magnify them.
    return round(verdict.p_side(side), 6)


def _store_verdicts(games: _QuestionGames, grid: _TrialGrid, verdicts: Mapping[TrialKey, Verdict | Failure]) -> None:
    """Replace each leg by one with the verdict on its own game, or with the judge's failure."""
    for index, leg in enumerate(games.legs):
        trial = grid.own_trial(index)
        if trial is None:
            continue
        verdict = verdicts[trial]
        outcome = "verdict" if isinstance(verdict, Verdict) else "failure"
        games.legs[index] = leg.model_copy(update={outcome: verdict})


def _sequences(
    group: GroupKey,
    games: _QuestionGames,
    wins: Sequence[float | None],
    online: Online,
    participants: Participants,
    recorder: Recorder,
    counts: Counter[str],
) -> list[TrainingSequence]:
    """Build the sequences of a group with their rewards; a group without differences is not learnt from."""
    sequences = []
    for leg, win in zip(games.legs, wins, strict=True):
        speeches = leg.transcript.speeches
        speech = next((s for s in speeches if s.side == group.side and s.turn == group.turn), None)
        if speech is None:
            # The game failed before this turn. The row stays: TRL expects G rows in every group.
            sequences.append(TrainingSequence(group, (), ()))
            continue
        # The request is built again from what was said before the turn, and leads to the tokens that answered it:
        # encoding the text again might give other tokens than those that were sampled.
        earlier = tuple(s for s in speeches if s.turn < group.turn)
        shown = leg.transcript.model_copy(update={"speeches": earlier})
        request = participants.policy.request(shown, group.side, group.turn)
        tokens = recorder.written[request].tokens
        if tokens is None:
            raise ValueError("the engine does not keep the tokens it draws; open it with keep_tokens")
        if participants.pay is not None:
            win = None if leg.verdict is None else participants.pay(speech, leg)
        reward = earned(speech, win, online.rewards)
        counts["truncated"] += speech.origin.finish == "length"
        counts["no_reward"] += reward is None
        sequences.append(TrainingSequence(group, participants.encode(request), tokens, reward))
    # By role, a speech is not compared with its group, whose rewards may all be equal.
    skipped = online.advantages == "group" and all_equal([sequence.earned for sequence in sequences])
    counts["groups"] += 1
    counts["skipped_groups"] += skipped
    for sequence in sequences:
        sequence.learnt = sequence.earned is not None and not skipped and bool(sequence.completion)
    return sequences


def _means(result: RolloutResult) -> dict[str, float]:
    """Means over the policy's speeches and games of a rollout, and the tokens written by all players."""
    speeches = []
    new_tokens = 0
    p_correct = []
    p_side_a = []
    for leg in result.legs:
        for speech in leg.transcript.speeches:
            new_tokens += speech.origin.new_tokens
            if speech.origin.player == POLICY:
                speeches.append(speech)
        if leg.p_correct is not None:
            p_correct.append(leg.p_correct)
        # Only in self-play does a share of wins other than 1/2 show that one side is favoured.
        if leg.verdict is not None and leg.transcript.players == dict.fromkeys(SIDES, POLICY):
            p_side_a.append(leg.verdict.p[0])
    means = {"new_tokens": float(new_tokens)}
    if speeches:
        means["valid_quotes"] = sum(invalid_share(speech) == 0 for speech in speeches) / len(speeches)
        means["tokens"] = sum(speech.origin.new_tokens for speech in speeches) / len(speeches)
    if p_correct:
        means["judge_accuracy"] = sum(p > 0.5 for p in p_correct) / len(p_correct)
    if p_side_a:
        means["side_a_wins"] = sum(p > 0.5 for p in p_side_a) / len(p_side_a)
    learnt = sum(sequence.learnt for sequence in result.sequences)
    means["learnt"] = learnt / max(len(result.sequences), 1)
    return means


def schedule(pool: Sequence[str], questions: Sequence[Question], online: Online, seed: int) -> list[Transcript]:
    """Schedule the games of a measurement.

    Debates: cross-play of the policy and the pool with sides swapped, and self-play of the policy. Consultancies: the
    policy alone, once on each side.

    Args:
        pool: names of the policy's opponents.
        questions: each is played in all pairings.
        online: the protocol.
        seed: of the games.
    """
    protocol = online.protocol
    game_seed = int(digest([seed, "watch"]), 16) % 2**31
    seatings: list[dict[Side, str]] = [dict.fromkeys(SIDES, POLICY)]
    games: list[Transcript] = []
    if protocol.sides == "drawn":
        seatings = [{side: POLICY} for side in SIDES]
    elif protocol.speakers_see == "all":
        games = round_robin([POLICY, *pool], questions, protocol, game_seed)
    for question in questions:
        for seats in seatings:
            games.append(Transcript(question=question, protocol=protocol, players=seats, seed=game_seed))
    return games
