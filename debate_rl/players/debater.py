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
    """Seed of a named stream of random numbers."""
    return int(digest(list(stream)), 16) % 2**31


class Name(NamedTuple):
    """The parts of a player's name in a config."""

    stage: str
    """`base`, or the stage that trained the player."""
    best_of: int = 1
    refine: int = 0


def read_name(name: str) -> Name:
    """Parse a player's name: STAGE, STAGE@N for Best-of-N, STAGE@NcK for Best-of-N with K rounds of critique.

    Example:
        read_name("dpo@4c1") == Name(stage="dpo", best_of=4, refine=1)

    Raises:
        UserError: N or K is not a number from 1 up.
    """
    stage, at, suffix = name.partition("@")
    if not at:
        return Name(stage)
    match = re.fullmatch(r"([1-9]\d*)(?:c([1-9]\d*))?", suffix)
    if match is None:
        raise UserError(
            f"player {name!r}: write NAME@N with N a whole number, for example dpo@4, or dpo@4c1 to have every "
            "candidate criticised and written again once"
        )
    return Name(stage, int(match[1]), int(match[2] or 0))


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
    """Simulate the other side by its own draws, from which its real speech is chosen, instead of by extra ones. That
    saves the texts of the opponents, but candidates are judged against what the other side may really say, which it
    keeps hidden."""
    aggregate: Literal["mean", "min"] = "mean"
    """Score of a candidate over the simulated opponents: expected or worst case."""
    refine: int = Field(default=0, ge=0)
    """Rounds of critique and refinement of each text (Khan et al. 2024). With Best-of-N every candidate is refined, and
    the judge picks among the refined ones."""
    critic: Critic | None = None
    """Model that criticises; None is the player itself."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(**{"name": name, **settings})

    def request(self, transcript: Transcript, side: Side, turn: int, draw: int = 0) -> Request:
        """Build the request for a speech, or for its first draft."""
        # Draw number k of a prompt is the same for every N, opponent and pairing: Best-of-16 contains Best-of-4, and a
        # round robin pays for each speech once.
        return self._request(transcript, debater_messages(transcript, side, turn), draw)

    def critique_request(self, transcript: Transcript, draft: Speech, draw: int, round_: int) -> Request:
        """Build the request for a critique of a draft, in a round of refining counted from 0."""
        request = self._request(transcript, critique_messages(transcript, draft), draw, "critique", round_)
        return request if self.critic is None else request.model_copy(update=self.critic.model_dump())

    def refine_request(self, transcript: Transcript, draft: Speech, critique: str, draw: int, round_: int) -> Request:
        """Build the request for the next form of a draft."""
        return self._request(transcript, refine_messages(transcript, draft, critique), draw, "refine", round_)

    def _request(self, transcript: Transcript, prompt: list[Prompt], *stream: int | str) -> Request:
        """Build a request whose random numbers depend on the game's seed and the name of the stream."""
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
        """Describe how a speech of this player was made."""
        return Origin(
            player=self.name,
            model=self.model,
            adapter=self.adapter,
            revision=answer.revision,
            seed=request.seed,
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=request.sampling.max_new_tokens,
            prompt_tokens=answer.prompt_tokens,
            new_tokens=answer.new_tokens,
            finish=answer.finish,
            best_of=self.best_of,
        )
