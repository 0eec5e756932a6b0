"""A debater: a model with an adapter and a way of choosing what to say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from debate_rl.engines.request import Message, Request, Sampling
from debate_rl.game.prompts import debater_messages
from debate_rl.game.protocol import Side
from debate_rl.game.transcript import Origin, Transcript
from debate_rl.records import Record, digest


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
    aggregate: Literal["mean", "min"] = "mean"
    """Over the simulated opponents: expected or worst case."""

    def request(self, transcript: Transcript, side: Side, turn: int, draw: int = 0) -> Request:
        """Ask for one speech.

        Draw number k of a prompt is the same for every N, opponent and pairing, so Best-of-16 holds Best-of-4 and a
        round robin pays for each speech once.
        """
        return Request(
            messages=tuple(Message(**m) for m in debater_messages(transcript, side, turn)),  # type: ignore[arg-type]
            model=self.model,
            adapter=self.adapter,
            sampling=Sampling(
                max_new_tokens=transcript.protocol.max_new_tokens, temperature=self.temperature, top_p=self.top_p
            ),
            seed=int(digest([transcript.seed, draw]), 16) % 2**31,
        )

    def origin(self, request: Request, revision: str, prompt_tokens: int, new_tokens: int, finish: str) -> Origin:
        """How a speech of this player was made."""
        return Origin(
            player=self.name, model=self.model, adapter=self.adapter, revision=revision, seed=request.seed,
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=request.sampling.max_new_tokens,
            prompt_tokens=prompt_tokens, new_tokens=new_tokens, finish=finish, best_of=self.best_of,
        )  # fmt: skip
