"""Settings of online training: protocol, opponents, rewards, measurements and alarms. Records only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.engines.number_formats import Format
from debate_rl.engines.server.budget import Price
from debate_rl.engines.server.settings import ServerSettings, Software
from debate_rl.engines.weights import fingerprint
from debate_rl.game.protocol import Protocol
from debate_rl.judges.callables import NamedFunction
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater, PlayerSettings
from debate_rl.records import Record


class Rewards(Record):
    """Terms of a speech's reward: one for winning, and penalties. Each is logged by its name.

    Example:
        Rewards(win="logit", invalid_quotes=0.5, truncated="penalise")
    """

    win: Literal["probability", "logit", "log_score"] = "probability"
    """Function of the judge's probability p for the speaker's side: p, log(p / (1 - p)), or log p."""
    zero_sum: bool = False
    """Use half of the difference between both sides' values, so that what one side wins the other loses. This changes
    what log_score rewards; it only shifts the probability and leaves the logit as it is."""
    least: float = Field(default=0.01, gt=0, lt=0.5)
    """Least distance of a probability from 0 and 1 before the logarithm is taken."""
    length: float = Field(default=0.0, ge=0)
    """Penalty of a speech that uses all of its tokens; shorter ones pay in proportion."""
    invalid_quotes: float = Field(default=0.0, ge=0)
    """Penalty of a speech without a valid quote; others pay in proportion to their share of invalid quotes."""
    truncated: Literal["mask", "penalise", "keep"] = "mask"
    """Speeches that were cut off at their token limit. mask: not learnt from and no part of the baseline; penalise:
    learnt from with the penalty `truncation`; keep: learnt from as they are. All are counted in the log."""
    truncation: float = Field(default=0.5, ge=0)
    """Penalty of a cut-off speech with `truncated: penalise`."""


class Opponents(Record):
    """Who speaks for the other side.

    Example:
        Opponents(kind="pool", snapshot=20, spread=100)
    """

    kind: Literal["self", "start", "pool", "players"] = "self"
    """self: the current policy, which learns on both sides of each game. start: the policy before training. pool: the
    start and past checkpoints, drawn by rating. players: the players named below."""
    players: tuple[Debater, ...] = ()
    """With kind players: one of them is drawn for each question and step."""
    snapshot: int = Field(default=25, ge=1)
    """With kind pool: steps between two checkpoints that join the pool."""
    spread: float = Field(default=200.0, gt=0)
    """With kind pool: Elo difference at which the better member is drawn e times as often."""

    @model_validator(mode="after")
    def _has_players(self) -> Opponents:
        # Players that another kind ignores are a mistake, not a default.
        if (self.kind == "players") != bool(self.players):
            raise ValueError("kind: players and players belong together; name at least one, or choose another kind")
        return self


class Alarms(Record):
    """Limits of the alarms. An alarm sounds when the whole 95 % interval of a value is past its limit.

    Example:
        Alarms(judges_part=0.1, one_side=0.95, stop=True)
    """

    judges_part: float = Field(default=0.1, gt=0, le=1)
    """How much more the training judge gives the policy against the start than the held-out judge does, in
    probability since step 0."""
    one_side: float = Field(default=0.95, gt=0.5, lt=1)
    """Share of the policy's self-play games that one side, A or B, wins."""
    accuracy_falls: float = Field(default=0.1, gt=0, le=1)
    """Loss of a judge's accuracy since step 0, paired by question."""
    stop: bool = False
    """End training at the first alarm; the policy so far is kept."""


class Watch(Record):
    """Measurements during training, on questions that training does not play.

    Example:
        Watch(every=20, questions=40, second=Judge(name="held out", model="lab-base"))
    """

    every: int = Field(default=20, ge=1)
    """Steps between two measurements. There is also one before the first step and one after the last."""
    second: AnyJudge | None = None
    """Held-out judge. It gives no rewards."""
    pool: tuple[Debater, ...] = ()
    """Fixed players that the policy meets, besides the start."""
    alarms: Alarms = Alarms()
    """When to warn, and whether to stop."""


class Server(Record):
    """An OpenAI-compatible server that loads adapters (vLLM) and writes the speeches instead of the training process.

    Example:
        Server(url="http://localhost:8000/v1", model="meta-llama/Meta-Llama-3-8B-Instruct")
    """

    url: str
    """Address of the server; replicas stand behind it."""
    model: str
    """The server's name for the policy's base model."""
    verdicts: bool = True
    """Whether the server also answers for the judges; else the training process loads them."""
    revision: str | None = None
    """Name for the weights behind the url."""
    key_env: str | None = None
    """Environment variable that holds the API key."""
    software: Software | None = None
    """What the server runs (see `engines.server.settings`)."""
    concurrency: int = Field(default=16, ge=1)
    """Requests in flight at a time."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds without a byte from the server after which a try is given up."""
    retries: int = Field(default=5, ge=0)
    """Further tries at a server that is busy or does not answer."""
    ledger: str | None = None
    """File that records what was paid (`engines.server.budget`)."""
    tokens: int | None = Field(default=None, ge=1)
    """Budget in tokens of prompts and answers."""
    money: float | None = Field(default=None, gt=0)
    """Budget in the currency of `prices`."""
    prices: dict[str, Price] = {}
    """Prices by model."""

    def settings(self) -> ServerSettings:
        """The server and how it is asked; it loads the policy's adapters."""
        return ServerSettings(
            url=self.url,
            key_env=self.key_env,
            concurrency=self.concurrency,
            retries=self.retries,
            timeout=self.timeout,
            deployed=self.revision,
            load_adapters=True,
            software=self.software,
        )


def _is_plain(players: PlayerSettings) -> bool:
    # Left out of a dump then, which names a training.
    return players == PlayerSettings()


class Online(Record):
    """Settings of one online training, in addition to those of every training job.

    Example:
        Online(protocol=load_protocol("debate"), judge=Judge(model="lab-small", adapter="runs/x/judge/adapter"),
               temperature=0.7, rewards=Rewards(invalid_quotes=0.2), opponents=Opponents(kind="start"))
    """

    protocol: Protocol
    judge: AnyJudge
    """The training judge, whose verdicts become rewards."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the policy. Its log-probabilities are computed at this temperature too."""
    players: PlayerSettings = Field(default=PlayerSettings(), exclude_if=_is_plain)
    """How the policy writes its speeches. It learns the tokens that it draws, by their probabilities without these
    settings; an opening is part of the prompt."""
    rewards: Rewards = Rewards()
    opponents: Opponents = Opponents()
    reward: NamedFunction = None
    """Function of a speech and its game (`JudgedDebate`) that pays in place of `rewards.win`; penalties stay."""
    advantages: Literal["group", "role"] = "group"
    """What a speech is compared with. group: the other speeches of its group (GRPO). role: the running mean of what its
    side has earned (SPIRAL, 2506.24119), with which train.num_generations may be 1."""
    decay: float = Field(default=0.95, ge=0, lt=1)
    """advantages role: weight of the old mean at each rollout."""
    roles: Literal["both", "A", "B", "correct", "wrong"] = "both"
    """Sides that learn: both, one letter, or the side that argues for the correct or the wrong answer. The other side
    is played all the same."""
    judge_seconds: float | None = Field(default=None, gt=0)
    """Time limit of the judge for the games of one step, in seconds. Speeches without a verdict by then get no reward
    and are not learnt from."""
    watch: Watch | None = None
    watch_questions: str | None = None
    """JSON-lines file with the questions that `watch` plays."""
    server: Server | None = None
    """Server that writes the speeches; None uses the training process. With a server, models have the server's names
    and adapters are folders that it can read."""
    device: str | None = None
    """Device of judge and opponents: cpu, cuda, cuda:1...; None uses a GPU if there is one."""
    dtype: Format | None = None
    """Number format in which opponents write: float32, bfloat16, float16 or auto; None is the fastest."""
    judge_dtype: Format = "float32"
    """Number format in which the judge's probabilities are read."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Tokens in memory at once; lower it if memory runs out."""

    @model_validator(mode="after")
    def _speaks_beforehand(self) -> Online:
        protocol = self.protocol
        if protocol.turns == 0:
            raise ValueError(f"under {protocol.name!r} nobody speaks, so nothing is learnt; choose another protocol")
        # A batch has the same groups for every question, so the speakers have to be known before the games.
        if protocol.open or protocol.calls == "rejected":
            raise ValueError(f"protocol {protocol.name!r} does not say beforehand who speaks; choose another protocol")
        if protocol.judge_questions:
            raise ValueError(
                f"protocol {protocol.name!r}: judge_questions are not asked in online training; choose another protocol"
            )
        if (self.watch is None) != (self.watch_questions is None):
            raise ValueError("watch and watch_questions belong together")
        return self


def content(online: Online) -> Any:
    """The settings with paths replaced by fingerprints of what lies there: models, adapters and questions.

    Two trainings with equal content are the same training. A server shows no weights, so its models keep their names;
    its address and its budget are left out.

    Raises:
        UserError: a path does not exist.
    """
    settings = online.model_dump(mode="json", exclude={"server"})
    server = online.server
    if server is None:
        return _by_content(settings)
    # Where the server is and what it may cost does not change what is learnt.
    identity = server.model_dump(mode="json", include={"model", "verdicts", "revision"})
    return {**_by_content(settings, served=True, judges_served=server.verdicts), "server": identity}


def _by_content(value: Any, key: str = "", served: bool = False, judges_served: bool = False) -> Any:
    """Replace paths in a value and everything inside it.

    Args:
        value: what stands under `key`.
        key: name of a field; empty in lists.
        served: models keep their names.
        judges_served: models of judges keep their names.
    """
    if isinstance(value, dict):
        replaced = {}
        for name, inner in value.items():
            inner_served = judges_served if name in ("judge", "second") else served
            replaced[name] = _by_content(inner, name, inner_served, judges_served)
        return replaced
    if isinstance(value, list):
        return [_by_content(inner, "", served, judges_served) for inner in value]
    if not isinstance(value, str):
        return value
    # Adapters are always folders here, also those that a server loads.
    if key == "adapter" or (key == "model" and not served):
        return fingerprint(value)
    if key == "watch_questions":
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()[:16]
    return value
