"""A debater: a model with an adapter and a way of choosing what to say."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import Field

from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message as Prompt
from debate_rl.game.prompts import critique_messages, debater_messages, refine_messages
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Origin, Speech, Transcript
from debate_rl.records import Record, digest


@lru_cache(maxsize=4096)
def _seed(*stream: int | str) -> int:
    """Seed of a stream of random numbers, by its name."""
    return int(digest(list(stream)), 16) % 2**31


class Name(NamedTuple):
    """What the name of a player in a config says."""

    stage: str
    """`base`, or the stage that trained it."""
    best_of: int = 1
    refine: int = 0


def read_name(name: str) -> Name:
    """Take a player's name apart: STAGE, STAGE@N for Best-of-N, STAGE@NcK with K rounds of critique as well.

    Example:
        read_name("dpo@4c1") == Name(stage="dpo", best_of=4, refine=1)

    Raises:
        UserError: N or K is not a number from 1 up.
    """
    stage, at, rest = name.partition("@")
    found = re.fullmatch(r"([1-9]\d*)(?:c([1-9]\d*))?", rest)
    if at and found is None:
        raise UserError(
            f"player {name!r}: write NAME@N with N a whole number, for example dpo@4, or dpo@4c1 to have every "
            "candidate criticised and written again once"
        )
    return Name(stage) if found is None else Name(stage, int(found[1]), int(found[2] or 0))


class Critic(Record):
    """A model that criticises drafts.

    Example:
        Critic(model="lab-base", adapter="runs/quickstart/dpo/adapter")
    """

    model: str
    adapter: str | None = None


class Debater(Record):
    """A player that argues.

    Example:
        Debater(name="dpo@4", model="lab-base", adapter="runs/quickstart/dpo/adapter", best_of=4, opponents=2)
    """

    name: str
    model: str
    adapter: str | None = None
    temperature: float = Field(default=0.5, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    best_of: int = Field(default=1, ge=1)
    """Candidates drawn for each speech; the judge picks the best (Arnesen et al. 2024)."""
    opponents: int = Field(default=2, ge=0)
    """Speeches simulated for the other side, against which each candidate is judged; 0 judges it alone."""
    reuse_opponents: bool = False
    """Simulate the other side by its own draws, the same that its speech is chosen from, instead of others: N + M texts
    a speech become N. Candidates are then judged against what the other side may really say, which it keeps hidden."""
    aggregate: Literal["mean", "min"] = "mean"
    """Over the simulated opponents: expected or worst case."""
    refine: int = Field(default=0, ge=0)
    """Rounds of critique and refinement (Khan et al. 2024): each text is a draft, is criticised and written again, so
    often. With Best-of-N every candidate is refined, and the judge picks among the refined ones."""
    critic: Critic | None = None
    """Who criticises; None is the player itself."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(**{"name": name, **settings})

    def request(self, transcript: Transcript, side: Side, turn: int, draw: int = 0) -> Request:
        """Ask for one speech, or for its first draft.

        Draw number k of a prompt is the same for every N, opponent and pairing, so Best-of-16 holds Best-of-4 and a
        round robin pays for each speech once.
        """
        return self._ask(transcript, debater_messages(transcript, side, turn), draw)

    def critique_request(self, transcript: Transcript, draft: Speech, draw: int, round_: int) -> Request:
        """Ask the critic about a draft, in a round of refining counted from 0."""
        asked = self._ask(transcript, critique_messages(transcript, draft), draw, "critique", round_)
        return asked if self.critic is None else asked.model_copy(update=self.critic.model_dump())

    def refine_request(self, transcript: Transcript, draft: Speech, critique: str, draw: int, round_: int) -> Request:
        """Ask for a draft's next form."""
        return self._ask(transcript, refine_messages(transcript, draft, critique), draw, "refine", round_)

    def _ask(self, transcript: Transcript, prompt: list[Prompt], *stream: int | str) -> Request:
        """A request of this player; what `stream` names, in a game's seed, has random numbers of its own."""
        return Request(
            messages=tuple(Message(**m) for m in prompt),  # type: ignore[arg-type]
            model=self.model,
            adapter=self.adapter,
            sampling=Sampling(
                max_new_tokens=transcript.protocol.max_new_tokens, temperature=self.temperature, top_p=self.top_p
            ),
            seed=_seed(transcript.seed, *stream),
        )

    def origin(self, request: Request, answer: Completion) -> Origin:
        """How a speech of this player was made."""
        return Origin(
            player=self.name, model=self.model, adapter=self.adapter, revision=answer.revision, seed=request.seed,
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=request.sampling.max_new_tokens,
            prompt_tokens=answer.prompt_tokens, new_tokens=answer.new_tokens, finish=answer.finish,
            best_of=self.best_of,
        )  # fmt: skip
