"""A debater: a model with an adapter and a way of choosing what to say."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from debate_rl.engines.request import Completion, Message, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.game.prompts import Message as Prompt
from debate_rl.game.prompts import critique_messages, debater_messages, refine_messages, without_marks
from debate_rl.game.protocol import SIDES, Side
from debate_rl.game.quote_grammar import QuoteRules, quote_grammar
from debate_rl.game.quotes import CLOSE, OPEN
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


def _is_plain(value: object) -> bool:
    return value in ("", 1.0, QuoteRules())


class PlayerSettings(Record):
    """How players write their speeches, beside the temperature.

    Example:
        PlayerSettings(opening="The answer is {answer}. The text says: <quote>", quotes=QuoteRules(constrained=True))
    """

    opening: str = ""
    """Beginning of every speech, which the player goes on from: `{answer}` and `{question}` are filled in. It may end
    with `<quote>`."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw from the likeliest tokens that have this probability together; 1 draws from all."""
    repetition_penalty: float = Field(default=1.0, ge=1)
    """Divides the logits of tokens that the player has read or written; 1 does nothing. It counts the passage too, so
    a high one keeps players from quoting."""
    quotes: QuoteRules = QuoteRules()
    """Quotes by construction; see below."""

    @field_validator("opening")
    @classmethod
    def _can_be_filled_in(cls, opening: str) -> str:
        _fill_in(opening, "", "")
        before, tag, behind = opening.partition(OPEN)
        if CLOSE in before or (tag and behind.strip()):
            raise ValueError(f"{OPEN} may only stand at the end of the opening: what follows it has to be quoted")
        return opening


def _fill_in(opening: str, answer: str, question: str) -> str:
    """Put the answer and the question into an opening.

    Raises:
        ValueError: it has another name in braces, or a brace that nothing closes.
    """
    try:
        return opening.format(answer=answer, question=question)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        reason = f"{error} is not known" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{reason}; write {{answer}} and {{question}}, and other braces twice") from error


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
    # Left out of a dump where they say nothing: dumps of players are in the names of trainings.
    opening: str = Field(default="", exclude_if=_is_plain)
    """Beginning of each speech (see `PlayerSettings`)."""
    repetition_penalty: float = Field(default=1.0, ge=1, exclude_if=_is_plain)
    quotes: QuoteRules = Field(default=QuoteRules(), exclude_if=_is_plain)
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
        return self._speech_request(transcript, side, debater_messages(transcript, side, turn), draw)

    def critique_request(self, transcript: Transcript, draft: Speech, draw: int, round_: int) -> Request:
        """Build the request for a critique of a draft, in a round of refining counted from 0."""
        request = self._request(transcript, critique_messages(transcript, draft), draw, "critique", round_)
        return request if self.critic is None else request.model_copy(update=self.critic.model_dump())

    def refine_request(self, transcript: Transcript, draft: Speech, critique: str, draw: int, round_: int) -> Request:
        """Build the request for the next form of a draft."""
        messages = refine_messages(transcript, draft, critique)
        return self._speech_request(transcript, draft.side, messages, draw, "refine", round_)

    def _speech_request(self, transcript: Transcript, side: Side, prompt: list[Prompt], *stream: int | str) -> Request:
        """Build a request for a speech: with the player's opening, and a grammar that holds its quotes to the passage.

        A critique has neither.
        """
        request = self._request(transcript, prompt, *stream)
        changes: dict[str, str] = {}
        if self.opening:
            question = transcript.question
            answer = question.answers[SIDES.index(side)]
            changes["opening"] = _fill_in(self.opening, without_marks(answer), without_marks(question.text))
        if self.quotes.constrained:
            inside = self.opening.rstrip().endswith(OPEN)
            changes["grammar"] = quote_grammar(transcript.question.shown_passage, self.quotes, inside)
        return request.model_copy(update=changes) if changes else request

    def _request(self, transcript: Transcript, prompt: list[Prompt], *stream: int | str) -> Request:
        """Build a request whose random numbers depend on the game's seed and the name of the stream."""
        return Request(
            messages=tuple(Message(**m) for m in prompt),  # type: ignore[arg-type]
            model=self.model,
            adapter=self.adapter,
            sampling=Sampling(
                max_new_tokens=transcript.protocol.max_new_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                repetition_penalty=self.repetition_penalty,
            ),
            seed=_seed(transcript.seed, *stream),
        )

    @property
    def manner(self) -> PlayerSettings:
        """How it writes its speeches, beside the temperature."""
        return PlayerSettings(**{name: getattr(self, name) for name in PlayerSettings.model_fields})

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
            repetition_penalty=self.repetition_penalty if self.repetition_penalty != 1 else None,
            opening=request.opening,
            quotes=self.quotes if self.quotes.constrained else None,
            max_new_tokens=request.sampling.max_new_tokens,
            prompt_tokens=answer.prompt_tokens,
            new_tokens=answer.new_tokens,
            finish=answer.finish,
            best_of=self.best_of,
        )
