"""What debaters do: how often they quote, how truly, and at what length; clustered by story."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from debate_rl.game.transcript import Speech, Transcript
from debate_rl.game.verdict import Leg
from debate_rl.intervals import Estimate, mean
from debate_rl.records import Record


class Behaviour(Record):
    """A player's speeches in numbers.

    Example:
        Behaviour(player="sft", speeches=160, exact=Estimate(value=0.96, ...), valid=Estimate(value=0.97, ...),
                  quotes=Estimate(value=1.0, ...), words=Estimate(value=17.2, ...))
    """

    player: str
    speeches: int
    exact: Estimate
    """Share of speeches with at least one quote, all of them exact."""
    valid: Estimate
    """Share of speeches with at least one quote, all of them exact or near."""
    quotes: Estimate
    """Quotes in a speech."""
    words: Estimate
    """Words in a speech, tags left out."""


def behaviour(legs: Iterable[Leg]) -> list[Behaviour]:
    """One row for each player, over all its speeches in the legs; a speech that stands in several legs counts once."""
    by_player: dict[str, dict[tuple[str, str, int, str], tuple[Transcript, Speech]]] = {}
    for leg in legs:
        for speech in leg.transcript.speeches:
            key = (leg.transcript.question.id, speech.side, speech.turn, speech.text)
            by_player.setdefault(speech.origin.player, {})[key] = (leg.transcript, speech)
    return [_row(player, list(found.values())) for player, found in by_player.items()]


def _row(player: str, found: Sequence[tuple[Transcript, Speech]]) -> Behaviour:
    """Summarise one player's speeches."""
    labels = [transcript.question.cluster for transcript, _ in found]
    speeches = [speech for _, speech in found]
    return Behaviour(
        player=player,
        speeches=len(speeches),
        exact=mean([all_quotes_are(speech, ("exact",)) for speech in speeches], labels),
        valid=mean([all_quotes_are(speech, ("exact", "near")) for speech in speeches], labels),
        quotes=mean([len(speech.quotes) for speech in speeches], labels),
        words=mean([count_words(speech.text) for speech in speeches], labels),
    )


def all_quotes_are(speech: Speech, verdicts: tuple[str, ...]) -> bool:
    """Whether the speech quotes, and every quote has one of the verdicts."""
    return bool(speech.quotes) and all(quote.verdict in verdicts for quote in speech.quotes)


def count_words(text: str) -> int:
    """Number of words, quote tags left out."""
    return len(text.replace("<quote>", " ").replace("</quote>", " ").split())
