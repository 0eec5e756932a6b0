"""Settings of online training: what is played, against whom, what a speech earns, and when to stop. Records only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from debate_rl.engines.server.budget import Price
from debate_rl.engines.server.settings import ServerSettings
from debate_rl.engines.weights import fingerprint
from debate_rl.game.protocol import Protocol
from debate_rl.judges.judge import AnyJudge
from debate_rl.players.debater import Debater
from debate_rl.records import Record


class Rewards(Record):
    """What a speech earns: a term for winning, and penalties. Each is logged by its name.

    Example:
        Rewards(win="logit", invalid_quotes=0.5, truncated="penalise")
    """

    win: Literal["probability", "logit", "log_score"] = "probability"
    """Of the judge's probability p for the speaker's side: p, log p / (1 - p), or log p."""
    zero_sum: bool = False
    """Take half of the difference between both sides' values instead, so that what one wins the other loses; it changes
    log_score, and shifts or halves the other two."""
    least: float = Field(default=0.01, gt=0, lt=0.5)
    """Probabilities are kept so far from 0 and 1 before a logarithm is taken."""
    length: float = Field(default=0.0, ge=0)
    """Taken off a speech that uses all of its tokens; of a shorter one in proportion."""
    invalid_quotes: float = Field(default=0.0, ge=0)
    """Taken off a speech without a valid quote; of others in proportion to the share of invalid ones."""
    truncated: Literal["mask", "penalise", "keep"] = "mask"
    """A speech that was cut off at its limit: not learnt from and no part of the baseline, or learnt from with
    `truncation` taken off, or learnt from as it is. All are counted."""
    truncation: float = Field(default=0.5, ge=0)


class Opponents(Record):
    """Who speaks for the other side.

    Example:
        Opponents(kind="pool", snapshot=20, spread=100)
    """

    kind: Literal["self", "start", "pool", "players"] = "self"
    """The current policy, which learns on both sides of each game; the policy as it was at the start; past checkpoints
    and the start, drawn by rating; or the players named."""
    players: tuple[Debater, ...] = ()
    """Of kind players: one is drawn for each question and step."""
    snapshot: int = Field(default=25, ge=1)
    """Of kind pool: a checkpoint joins the pool every so many steps."""
    spread: float = Field(default=200.0, gt=0)
    """Of kind pool: a member is drawn e times as often as one rated so many Elo points lower."""

    @model_validator(mode="after")
    def _has_players(self) -> Opponents:
        if (self.kind == "players") != bool(self.players):
            raise ValueError("kind: players and players belong together; name at least one, or choose another kind")
        return self


class Alarms(Record):
    """When training is going wrong. An alarm sounds when the whole 95 % interval is past its limit.

    Example:
        Alarms(judges_part=0.1, one_side=0.95, stop=True)
    """

    judges_part: float = Field(default=0.1, gt=0, le=1)
    """The training judge gives the policy so much more against the start than the held-out judge does."""
    one_side: float = Field(default=0.95, gt=0.5, lt=1)
    """Of the policy's games with itself one side, A or B, wins at least this share."""
    accuracy_falls: float = Field(default=0.1, gt=0, le=1)
    """A judge is right so much less often than about the start's games, question by question."""
    stop: bool = False
    """End training at the first alarm; what was learnt until then is kept."""


class Watch(Record):
    """What is measured while training goes on, on questions that it does not play.

    Example:
        Watch(every=20, questions=40, second=Judge(name="held out", model="lab-base"))
    """

    every: int = Field(default=20, ge=1)
    """Steps between two measurements; there is one before the first step and one after the last."""
    second: AnyJudge | None = None
    """Held-out judge, by which nothing is trained."""
    pool: tuple[Debater, ...] = ()
    """Fixed players that the policy meets, besides what it started from."""
    alarms: Alarms = Alarms()


class Server(Record):
    """An OpenAI-compatible server that loads adapters (vLLM) and writes the speeches in place of the training process.

    Example:
        Server(url="http://localhost:8000/v1", model="meta-llama/Meta-Llama-3-8B-Instruct")
    """

    url: str
    model: str
    """What it calls the policy's base."""
    verdicts: bool = True
    """Whether it answers for the judges as well; else the training process holds them."""
    revision: str | None = None
    """A name for the weights behind the url."""
    key_env: str | None = None
    concurrency: int = Field(default=16, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=5, ge=0)
    ledger: str | None = None
    """File of what was paid (`engines.budget`)."""
    tokens: int | None = Field(default=None, ge=1)
    """Budget, in tokens of prompts and answers."""
    money: float | None = Field(default=None, gt=0)
    prices: dict[str, Price] = {}

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
        )


class Online(Record):
    """One online training, beside what every training job has.

    Example:
        Online(protocol=load_protocol("debate"), judge=Judge(model="lab-small", adapter="runs/x/judge/adapter"),
               temperature=0.7, rewards=Rewards(invalid_quotes=0.2), opponents=Opponents(kind="start"))
    """

    protocol: Protocol
    judge: AnyJudge
    temperature: float = Field(default=1.0, gt=0)
    """Of the policy; its log-probabilities are taken at this temperature as well."""
    rewards: Rewards = Rewards()
    opponents: Opponents = Opponents()
    roles: Literal["both", "A", "B", "correct", "wrong"] = "both"
    """Sides that learn: all, one letter, or those that argue for the correct or the wrong answer. The others are played
    by the opponent all the same."""
    judge_seconds: float | None = Field(default=None, gt=0)
    """The judge's time for the games of one step; speeches that it has not judged by then earn nothing and are not
    learnt from."""
    watch: Watch | None = None
    watch_questions: str | None = None
    """JSON-lines file of the questions that `watch` plays."""
    server: Server | None = None
    """Where the speeches are written, if not here. Models are then named as the server does, adapters are folders."""
    device: str | None = None
    """Of the judge and of opponents: cpu, cuda, cuda:1...; empty takes a GPU where there is one."""
    dtype: str | None = None
    batch_tokens: int = Field(default=16384, ge=1)

    @model_validator(mode="after")
    def _speaks_beforehand(self) -> Online:
        rules = self.protocol
        if rules.turns == 0:
            raise ValueError(f"under {rules.name!r} nobody speaks, so nothing is learnt; choose another protocol")
        if rules.open or rules.calls == "rejected":
            raise ValueError(f"protocol {rules.name!r} does not say beforehand who speaks; choose another protocol")
        if (self.watch is None) != (self.watch_questions is None):
            raise ValueError("watch and watch_questions belong together")
        return self


def content(online: Online) -> Any:
    """The settings with what lies at their paths in place of the paths: models, adapters and questions by content.

    A server's models go by their names, since it shows no weights; where it is and what it may cost is left out.

    Raises:
        UserError: one of them is not there.
    """
    server, found = online.server, online.model_dump(mode="json", exclude={"server"})
    if server is None:
        return _content(found)
    kept = server.model_dump(mode="json", include={"model", "verdicts", "revision"})
    return {**_content(found, named=True, judges=server.verdicts), "server": kept}


def _content(value: Any, key: str = "", named: bool = False, judges: bool = False) -> Any:
    """Replace what lies under a key; `named` models stay names, and so do those of judges."""
    if isinstance(value, dict):
        return {
            name: _content(inner, name, judges if name in ("judge", "second") else named, judges)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_content(inner, "", named, judges) for inner in value]
    if isinstance(value, str) and (key == "adapter" or (key == "model" and not named)):
        return fingerprint(value)
    if key == "watch_questions" and isinstance(value, str):
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()[:16]
    return value
