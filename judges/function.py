"""A judge that is a Python function: rules, another library's model, a person behind a form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.game.verdict import Failure, Verdict
from debate_rl.judges.callables import NamedFunction, load_function
from debate_rl.records import Record

Decide = Callable[[Sequence[Transcript]], Sequence[Verdict | Failure | float]]
"""Takes transcripts; gives for each a verdict, a failure, or the probability that answer 0 (side A) is correct."""


class FunctionJudge(Record):
    """A judge whose verdicts come from a function.

    Example:
        >>> longer = FunctionJudge(name="longer", decide=lambda games: [0.9 for game in games])
        >>> longer.name
        'longer'
    """

    name: str = "function"
    decide: NamedFunction
    """See `Decide`; or its name, `module:function`."""

    @property
    def model(self) -> str:
        """No model: the function's name stands for it in cards and tables."""
        return f"function {self.name}"

    @property
    def calibrator(self) -> None:
        """No calibration: the function says what it means."""
        return None

    @property
    def adapter(self) -> None:
        """No adapter."""
        return None


def ask_function(transcripts: Sequence[Transcript], judge: FunctionJudge) -> list[Verdict | Failure]:
    """Judge by calling the function once with all transcripts.

    Raises:
        UserError: there is no such function, it gave another number of answers than there are transcripts, or a number
            outside 0 to 1.
    """
    answers = list(load_function(judge.decide, f"judge {judge.name!r}:")(list(transcripts)))
    if len(answers) != len(transcripts):
        raise UserError(f"judge {judge.name!r} gave {len(answers)} answers to {len(transcripts)} transcripts")
    return [_verdict(answer, judge.name) for answer in answers]


def _verdict(answer: Verdict | Failure | float, name: str) -> Verdict | Failure:
    """An answer of a function as a verdict."""
    if isinstance(answer, Verdict | Failure):
        return answer
    try:
        p = float(answer)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"judge {name!r} answered {answer!r}; give a verdict, or the probability that answer 0 is correct"
        ) from error
    if not 0 <= p <= 1:
        raise UserError(f"judge {name!r} answered {p}; give a probability between 0 and 1")
    return Verdict(judge=name, p=(p, 1 - p))
