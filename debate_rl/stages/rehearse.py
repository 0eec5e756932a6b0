"""A rehearsal: the games of a stage played by their own rules, with the real prompts, by an engine that only counts.

So a plan counts what the run will ask, for any protocol, player and judge: there is no second account of what they do.
Speeches are words of the speaker's own prompt, as many as expected. Of a stage with many questions the games on some of
them are played, and counts are scaled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from debate_rl.analysis.behaviour import spoken
from debate_rl.analysis.relevance import relevance
from debate_rl.analysis.second import judge_again
from debate_rl.arena.rollout import play
from debate_rl.arena.tree import Opponents, grow
from debate_rl.config_stages import (
    JudgeSettings,
    OversightStage,
    ReadingStage,
    Stage,
    TournamentStage,
    WeakToStrongStage,
)
from debate_rl.config_training import GrpoStage, IterationsStage, JudgeStage, PreferencesStage
from debate_rl.engines.request import Choice, Completion, EngineFailure, Message, Request, Scores
from debate_rl.experiment import Run, judge_of_kind
from debate_rl.game.question import Question
from debate_rl.game.quotes import Quote
from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import Leg
from debate_rl.judges.attacks import chosen
from debate_rl.judges.judge import AnyJudge, Judge, judge_transcripts
from debate_rl.judges.robustness import attack_judge
from debate_rl.players.debater import Debater
from debate_rl.records import digest
from debate_rl.stages import GAMES, iterations, online, preferences, recorded, weak_to_strong
from debate_rl.stages.adversarial import search
from debate_rl.stages.attacks import draw
from debate_rl.stages.judge import CALIBRATION_SHARE, learnt_and_held_out, lone_games
from debate_rl.trainers.curve import START
from debate_rl.trainers.league import draw_player
from debate_rl.trainers.places import POLICY, places
from debate_rl.trainers.selfplay import rollout, schedule

QUESTIONS = 24
"""Questions of a stage that are rehearsed, at least, where it has as many."""
CHARACTERS_PER_TOKEN = 4
"""Where no tokenizer is at hand."""
WORD = 1.35
"""Tokens of a word, about; of the lab's models 1."""
SEARCH = "suffix_search"
_BLOCK = 8
_SAMPLES = 12

Weights = tuple[str, str | None]
"""A model and its adapter."""


@dataclass(frozen=True)
class Habits:
    """What is known of how a run's models write.

    Attributes:
        means: tokens of a speech, by adapter.
        mean: over all; None where nothing is known.
        kinds: so many different texts a model draws from one prompt, each as likely; 0 is without end.
        learning: the same of a policy in online training, which draws at a temperature of its own.
        quoting: different sets of valid quotes for each different speech.
        quoted: length of such a set, as a share of a speech's.
    """

    means: Mapping[str | None, float] = field(default_factory=dict)
    mean: float | None = None
    kinds: int = 0
    learning: int = 0
    quoting: float = 1.0
    quoted: float = 1.0

    def tokens(self, request: Request) -> int:
        """How many tokens an answer is expected to have, else the most that it may have."""
        most = request.sampling.max_new_tokens
        found = self.means.get(request.adapter, self.mean)
        return most if found is None else min(most, max(1, round(found)))


@dataclass
class Asked:
    """What one model with one adapter was asked, in characters of prompts; distinct requests only.

    Attributes:
        texts: to be written; new: tokens of these.
        verdicts: to be scored.
        write, score: characters of their prompts.
        once: characters of all prompts when each beginning is read once.
        longest: characters of the longest prompt.
        samples: some of the prompts, to find out how many characters a token has.
    """

    texts: int = 0
    new: int = 0
    verdicts: int = 0
    write: int = 0
    score: int = 0
    once: int = 0
    longest: int = 0
    samples: list[tuple[Message, ...]] = field(default_factory=list)

    def times(self, factor: float) -> Asked:
        """As much for each of so many repetitions."""
        names = ("texts", "new", "verdicts", "write", "score", "once")
        return replace(self, **{name: round(factor * getattr(self, name)) for name in names})

    def __add__(self, other: Asked) -> Asked:
        """Both together."""
        names = ("texts", "new", "verdicts", "write", "score", "once")
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        samples = [*self.samples, *other.samples][:_SAMPLES]
        return Asked(**both, longest=max(self.longest, other.longest), samples=samples)


class CountingEngine:
    """Answers at once, and counts; what an earlier stage asked is in the store by then, and costs nothing more.

    Args:
        habits: how the models write.
        words: tokens of a word, by model.
    """

    def __init__(self, habits: Habits, words: Callable[[str], float] = lambda model: WORD) -> None:
        self.asked: dict[Weights, Asked] = {}
        self.habits = habits
        self._words = words
        self._known: set[Any] = set()
        self._blocks: set[int] = set()

    def learning(self) -> CountingEngine:
        """One for online training, which draws otherwise and never asks the store."""
        return CountingEngine(replace(self.habits, kinds=self.habits.learning), self._words)

    def begin(self) -> None:
        """Count from 0, for the next stage."""
        self.asked = {}
        self._blocks.clear()

    def take(self, factor: float = 1.0) -> dict[Weights, Asked]:
        """What was asked since the last time, as much for each of so many repetitions; then count from 0."""
        counted = {weights: own.times(factor) for weights, own in self.asked.items()}
        self.asked = {}
        return counted

    def generate(self, requests: Sequence[Request]) -> list[Completion | EngineFailure]:
        """Words of the prompt, from a place that the seed draws."""
        return [self._text(request) for request in requests]

    def choose(self, choices: Sequence[Choice]) -> list[Scores | EngineFailure]:
        """Probabilities drawn by the prompt."""
        return [self._scores(choice) for choice in choices]

    def revision(self, model: str, adapter: str | None) -> str:
        """A name: nothing is loaded."""
        return digest(["rehearsal", model, adapter])

    def _text(self, request: Request) -> Completion:
        new = self.habits.tokens(request)
        own, first = self._count(request)
        if first:
            own.texts += 1
            own.new += new
            own.write += sum(len(message.content) for message in request.messages)
        drawn = request.seed % self.habits.kinds if self.habits.kinds else request.seed
        words = request.messages[-1].content.split() or ["word"]
        start = drawn * 7919 % len(words)
        wanted = max(1, round(new / self._words(request.model)))
        text = " ".join((words[start:] + words * (wanted // len(words) + 1))[:wanted])
        return Completion(
            text=f"{text} {drawn}", prompt_tokens=0, new_tokens=new, finish="stop",
            revision=self.revision(request.model, request.adapter), tokens=(),
        )  # fmt: skip

    def _scores(self, choice: Choice) -> Scores:
        own, first = self._count(choice)
        if first:
            own.verdicts += 1
            own.score += sum(len(message.content) for message in choice.messages)
        drawn = crc32(choice.messages[-1].content.encode()) % 1000 / 1000
        logprobs = [-1.0 - abs(drawn - at / len(choice.candidates)) for at in range(len(choice.candidates))]
        return Scores(logprobs=tuple(logprobs), prompt_tokens=0, revision=self.revision(choice.model, choice.adapter))

    def _count(self, asked: Request | Choice) -> tuple[Asked, bool]:
        """The account of the model that is asked, and whether this is asked for the first time."""
        own = self.asked.setdefault((asked.model, asked.adapter), Asked())
        if asked in self._known:
            return own, False
        self._known.add(asked)
        text = "\n".join(message.content for message in asked.messages)
        own.longest = max(own.longest, len(text))
        if len(own.samples) < _SAMPLES:
            own.samples.append(asked.messages)
        before = hash((asked.model, asked.adapter))
        for start in range(0, len(text), _BLOCK):
            block = text[start : start + _BLOCK]
            before = hash((before, block))
            if before not in self._blocks:
                self._blocks.add(before)
                own.once += len(block)
        return own, True


@dataclass
class Rehearsed:
    """A stage's requests.

    Attributes:
        debates: games of the whole stage.
        scale: whole games for each that was rehearsed.
        asked: of the rehearsed ones, by model and adapter.
    """

    debates: int
    scale: float
    asked: Mapping[Weights, Asked]

    def total(self, name: str) -> int:
        """A count over all models, of the whole stage."""
        return round(self.scale * sum(getattr(own, name) for own in self.asked.values()))


def rehearse(run: Run, name: str, stage: Stage, engine: CountingEngine) -> Rehearsed:
    """Play some of a stage's games, after those of the stages before it.

    Raises:
        UserError: as the stage itself would: questions can not be read, or a player is not there.
    """
    engine.begin()
    if stage.kind not in GAMES:
        return Rehearsed(0, 1.0, {})
    games = GAMES[stage.kind](stage, run)
    judge = run.judge(name)
    if isinstance(stage, GrpoStage):
        return _online(name, stage, run, games, judge, engine)
    if isinstance(stage, PreferencesStage):
        debates, kept = _preferences(stage, run, judge, engine)
        return Rehearsed(debates, debates / max(kept, 1), engine.asked)
    if isinstance(stage, IterationsStage):
        return _iterations(stage, run, games, judge, engine)
    kept_games = _some(games)
    if isinstance(stage, ReadingStage):
        for model in stage.models:
            judge_transcripts(
                kept_games[: len(kept_games) // len(stage.models)], Judge(name=model, model=model), engine
            )
        return Rehearsed(len(games), len(games) / max(len(kept_games), 1), engine.asked)
    if isinstance(stage, JudgeStage) and stage.from_ == "recorded":
        return Rehearsed(0, 1.0, _recorded(stage, run, name, engine))
    silent = isinstance(stage, JudgeStage) or (isinstance(stage, WeakToStrongStage) and not stage.asks_judge)
    legs = play(kept_games, _players(stage, run, kept_games), engine, None if silent else judge)
    scale = len(games) / max(len(kept_games), 1)
    if isinstance(stage, OversightStage) and stage.second is not None:
        _second(stage, run, legs, engine)
    counted = engine.take(scale)
    if isinstance(stage, TournamentStage):
        counted = _sum(counted, _readings(stage, run, legs, engine, scale))
    if isinstance(stage, JudgeStage):
        counted = _sum(counted, _judge_stage(stage, run, name, legs, engine, scale))
    return Rehearsed(len(games), 1.0, counted)


def _sum(*parts: Mapping[Weights, Asked]) -> dict[Weights, Asked]:
    """What was asked in several parts of a stage."""
    every: dict[Weights, Asked] = {}
    for part in parts:
        for weights, asked in part.items():
            every[weights] = every.get(weights, Asked()) + asked
    return every


def _some(games: Sequence[Transcript]) -> list[Transcript]:
    """The games on some of the questions: a half, a quarter... of them, drawn by name, so that stages share them."""
    drawn = {game.question.id: int(digest(["rehearsed", game.question.id]), 16) for game in games}
    share = 1
    while len(drawn) // (2 * share) >= QUESTIONS:
        share *= 2
    names = {name for name, number in drawn.items() if number % share == 0} or set(drawn)
    return [game for game in games if game.question.id in names]


def _players(stage: Stage, run: Run, games: Sequence[Transcript]) -> dict[str, Debater]:
    """Everyone who sits at some table."""
    names = {name for game in games for name in game.players.values()}
    if isinstance(stage, WeakToStrongStage):
        return {name: weak_to_strong.player(stage, run, name) for name in names if name != "-"}
    own = stage.preferences if isinstance(stage, IterationsStage) else stage
    opponents = own.opponents if isinstance(own, TournamentStage | PreferencesStage | OversightStage) else 2
    return {name: run.debater(name, opponents) for name in names if name != "-"}


def _preferences(stage: PreferencesStage, run: Run, judge: AnyJudge, engine: CountingEngine) -> tuple[int, int]:
    """Pools or trees of some questions: finished games of all, and of these."""
    player = preferences.player_of(stage, run)
    rivals = [run.debater(name, stage.opponents) for name in stage.opponents_from]
    if stage.method == "best_of_n":
        games = preferences.games(stage, run)
        kept = _some(games)
        opponents: Opponents = {player.name: rivals} if rivals else None
        play(kept, {player.name: player}, engine, judge, opponents)
        return len(games), len(kept)
    trees = preferences.trees(stage, run)
    names = {game.question.id for game in _some([tree.game for tree in trees])}
    grown = [tree for tree in trees if tree.game.question.id in names]
    grow(grown, {rival.name: rival for rival in rivals} | {player.name: player}, engine, judge)
    return sum(tree.size[1] for tree in trees), sum(tree.size[1] for tree in grown)


def _iterations(
    stage: IterationsStage, run: Run, games: Sequence[Transcript], judge: AnyJudge, engine: CountingEngine
) -> Rehearsed:
    """Every iteration's pools, then the ratings."""
    name = iterations.name_of(run, stage)
    made = [iterations.preferences_of(stage, run, name, k) for k in range(1, stage.iterations + 1)]
    counts = [_preferences(wanted, run, judge, engine) for wanted in made]
    rated = games[sum(len(preferences.games(wanted, run)) for wanted in made) :]
    kept = _some(rated)
    play(kept, _players(stage, run, kept), engine, judge)
    whole, played = sum(count for count, _ in counts) + len(rated), sum(count for _, count in counts) + len(kept)
    return Rehearsed(len(games), whole / max(played, 1), engine.asked)


def _second(stage: OversightStage, run: Run, legs: Sequence[Leg], engine: CountingEngine) -> None:
    """The second judge's verdicts."""
    if stage.second is not None:
        judge_again(legs, second_of(stage.second, run), engine)


def _readings(
    stage: TournamentStage, run: Run, legs: Sequence[Leg], engine: CountingEngine, scale: float
) -> dict[Weights, Asked]:
    """Readings of the quotes alone: so many speeches of each player and side, however many questions there are.

    Speeches quote as often and as much as is known of the players, else all of them from beginning to end.
    """
    if not stage.readings:
        return {}
    quoting = [said._replace(speech=_quoting(said.speech, engine.habits)) for said in spoken(legs)]
    rows = relevance(quoting, Judge(name="reader", model=run.config.models.judge), engine, stage.readings)
    speeches = Counter((said.player, said.argues) for said in quoting)
    there = [speeches[row.player, row.argues] for row in rows]
    rehearsed = sum(min(stage.readings, count) for count in there)
    whole = sum(min(stage.readings, round(scale * count)) for count in there)
    return engine.take(whole / max(rehearsed, 1))


def _quoting(speech: Speech, habits: Habits) -> Speech:
    """A speech with the quote that it would have, or with none; who quotes is drawn by the text."""
    if crc32(speech.text.encode()) % 1000 >= 1000 * habits.quoting:
        return speech
    # From its end: there is what tells one rehearsed speech from another.
    text = speech.text[-max(1, round(habits.quoted * len(speech.text))) :]
    return speech.model_copy(update={"quotes": (Quote(text=text, verdict="exact", start=0, end=len(speech.text)),)})


def _judge_stage(
    stage: JudgeStage, run: Run, name: str, legs: Sequence[Leg], engine: CountingEngine, scale: float
) -> dict[Weights, Asked]:
    """Verdicts of a judge stage: its adversarial rounds, its calibration, the test debates before and after, attacks.

    Searches and attacks are on so many games however many there are: their counts do not grow with the questions.
    """
    before = Judge(name="base judge", model=run.config.models.judge)
    tested = {question.id for question in run.questions("test")}
    games = [leg.transcript for leg in legs if leg.failure is None]
    test = [game for game in games if game.question.id in tested]
    shown, held_out = learnt_and_held_out(stage, run, [game for game in games if game.question.id not in tested])
    adapters = [f"{name}/adapter"] + [f"{name}/round{number + 1}/adapter" for number in range(stage.adversarial_rounds)]
    after = before.model_copy(update={"adapter": adapters[-1]})
    parts: list[dict[Weights, Asked]] = []
    if stage.adversarial_rounds:
        search(shown, before, engine, 1)
        for asked in engine.take().values():  # every round searches as much, each against the judge of the one before
            parts += [{(before.model, adapter): asked} for adapter in adapters[:-1]]
    if stage.calibrate != "none":
        judge_transcripts(held_out, after, engine)
        if stage.calibrate_lone:
            judge_transcripts(lone_games(held_out), after, engine)
    for judge in (before, after):
        judge_transcripts(test, judge, engine)
    parts.append(engine.take(scale))
    if stage.attacks and test:
        parts += _attacks(stage, test, (before, after), engine, scale)
    return _sum(*parts)


def _attacks(
    stage: JudgeStage, test: Sequence[Transcript], judges: Sequence[Judge], engine: CountingEngine, scale: float
) -> list[dict[Weights, Asked]]:
    """Attacks on so many test debates before each judge; the search for a suffix, which is as long for any number."""
    drawn = draw(test, stage.attack_games)
    whole = min(stage.attack_games, round(scale * len(test)))
    names = chosen(stage.attacks)
    plain = tuple(one for one in names if one != SEARCH)
    if plain:
        attack_judge(drawn, judges[0], engine, plain)
    counted = list(engine.take(whole / len(drawn)).values())
    if SEARCH in names:
        attack_judge(drawn, judges[0], engine, (SEARCH,))
    counted += engine.take().values()
    return [{(judge.model, judge.adapter): asked} for judge in judges for asked in counted]


def _recorded(stage: JudgeStage, run: Run, name: str, engine: CountingEngine) -> dict[Weights, Asked]:
    """Verdicts of a judge that learns from recorded games: on those that it is calibrated on, and on the test games."""
    before = Judge(name="untrained judge", model=run.config.models.judge)
    after = before.model_copy(update={"adapter": f"{name}/adapter"})
    held_out = recorded.divided(stage, run, CALIBRATION_SHARE)[1]
    judge_transcripts([leg.transcript for leg in held_out], after, engine)
    test = [leg.transcript for leg in recorded.judged(run, "test")]
    for judge in (before, after):
        judge_transcripts(test, judge, engine)
    return engine.take()


def _online(
    name: str, stage: GrpoStage, run: Run, games: Sequence[Transcript], judge: AnyJudge, engine: CountingEngine
) -> Rehearsed:
    """The rollouts on some questions and one measurement of the curve, each as often as training has them."""
    settings = online.planned(stage, run, judge)
    amount, (played, watched) = online.volume(stage, run, settings), online.shares(stage, run)
    names = {game.question.id for game in _some(games)}
    kept = [question for question in played if question.id in names]
    start, policy = (
        run.debater(player).model_copy(update={"name": seat, "temperature": settings.temperature})
        for player, seat in ((stage.start, START), (name, POLICY))
    )
    drawn = draw_player(settings.opponents.players, run.config.seed) if settings.opponents.players else None

    def opponent(question: Question) -> Debater | None:
        if settings.opponents.kind == "self":
            return None
        return start if drawn is None else drawn(question.id, 0)

    rolling = engine.learning()
    wanted = [place for at, question in enumerate(kept) for place in places(at, question, settings)]
    found = rollout(
        wanted, amount.copies, kept, settings, policy, opponent, rolling,
        lambda asked: judge_transcripts(asked, judge, rolling), lambda request: (), [run.config.seed, "plan"],
    )  # fmt: skip
    times = amount.questions / max(len(kept), 1)
    counted = {weights: own.times(times) for weights, own in rolling.asked.items()}
    debates = round(times * len(found.legs))
    if stage.watch is not None:
        measuring = engine.learning()
        table = {name: run.debater(name) for name in stage.watch.pool} | {POLICY: policy, START: start}
        shown = schedule([START, *stage.watch.pool], watched, settings, run.config.seed)
        legs = play(shown, table, measuring, judge)
        if stage.watch.second is not None:
            own = [leg for leg in legs if POLICY in leg.transcript.players.values()]
            judge_transcripts([leg.transcript for leg in own], second_of(stage.watch.second, run), measuring)
        for weights, asked in measuring.asked.items():
            counted[weights] = counted.get(weights, Asked()) + asked.times(amount.points)
        debates += amount.points * len(shown)
    return Rehearsed(debates, 1.0, counted)


def second_of(wanted: str | JudgeSettings, run: Run) -> AnyJudge:
    """A second judge; one that is still to be trained is as large as the run's own."""
    if not isinstance(wanted, str):
        return judge_of_kind(wanted, run.model_judge())
    if wanted in run.config.stages:
        return run.model_judge().model_copy(update={"adapter": f"{wanted}/adapter", "name": wanted})
    return Judge(name=wanted, model=run.config.models.judge if wanted == "base" else wanted)
