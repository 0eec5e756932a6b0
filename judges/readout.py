"""Readouts of a model judge: what its verdict is read from, and what is subtracted from it.

- letters: log-probabilities of the prompt set's candidates, summed over tokens (A and B in the default prompts).
- answers: log-likelihood of each answer's own words, a token on average: a long answer is not less likely for that.
- answers_pmi: the same minus what the judge says of the answer without the debate, so that only what the debate changed
  counts (pointwise mutual information, after Holtzman et al. 2021, "Surface form competition"). A judge that is shown
  nothing but the question then gives 1/2.

The prior of a label is the judge's preference for the answer listed first where nothing is known: on a question without
content, after speeches without content (contextual calibration, Zhao et al. 2021).
"""

from __future__ import annotations

from typing import Literal

from debate_rl.engines.request import Scores
from debate_rl.errors import UserError
from debate_rl.game.prompts import Wording
from debate_rl.game.transcript import Transcript

Readout = Literal["letters", "answers", "answers_pmi"]
Debias = Literal["none", "prior"]

_NOTHING = "N/A"
"""Text without content, in the place of question, passage and speeches."""
_NEUTRAL_ANSWERS = ("this", "that")
"""Two answers that mean nothing. They differ, since an answer's own words may be scored; over both orders the words'
likelihoods cancel."""


def wording_of(readout: Readout) -> Wording | None:
    """Wording of the candidates that a readout scores; None is the prompt set's own."""
    return None if readout == "letters" else "answers"


def without_debate(transcript: Transcript) -> Transcript:
    """The game as a blind judge sees it: the question alone, without speeches and passage."""
    protocol = transcript.protocol.model_copy(update={"judge_reads_passage": False})
    return transcript.model_copy(update={"protocol": protocol, "speeches": (), "asked": ()})


def without_content(transcript: Transcript) -> Transcript:
    """A game of the same shape in which nothing is said: speeches by the same sides in the same turns."""
    passage = None if transcript.question.passage is None else _NOTHING
    changes = {"text": _NOTHING, "answers": _NEUTRAL_ANSWERS, "passage": passage, "excerpt": None}
    question = transcript.question.model_copy(update=changes)
    speeches = tuple(speech.model_copy(update={"text": _NOTHING, "quotes": ()}) for speech in transcript.speeches)
    asked = tuple(entry.model_copy(update={"text": _NOTHING}) for entry in transcript.asked)
    players = dict.fromkeys(transcript.players, _NOTHING)
    emptied = {"question": question, "speeches": speeches, "asked": asked, "players": players}
    return transcript.model_copy(update=emptied)


def read_scores(scores: Scores, readout: Readout) -> tuple[float, float]:
    """Score of answer 0 and of answer 1: a log-probability, by the token or summed.

    Raises:
        UserError: the engine did not say how many tokens the answers have.
    """
    first, second = scores.logprobs
    if readout == "letters":
        return first, second
    if scores.candidate_tokens is None:
        raise UserError(
            f"judge.readout {readout} needs engines that score whole answers: this server scores the first token alone "
            "(vLLM scores all), or the store is of an older version; set judge.readout letters, or give the run a new "
            "name=..."
        )
    lengths = scores.candidate_tokens
    return first / lengths[0], second / lengths[1]


def preference_for_first(scores: tuple[tuple[float, float], tuple[float, float]]) -> float:
    """Log-odds by which a judge favours the answer listed first.

    Args:
        scores: of the neutral answers 0 and 1, in order (0, 1) and in order (1, 0).

    Example:
        >>> preference_for_first(((-0.2, -1.2), (-0.9, -0.4)))
        0.75
    """
    listed, reversed_ = scores
    return ((listed[0] - listed[1]) + (reversed_[1] - reversed_[0])) / 2
