"""Questions of the judge to the debaters between two rounds, written by the judge's model.

Michael et al. 2023 and Khan et al. 2024 let the judge ask. A model is asked for one short question, or for none.
"""

from __future__ import annotations

from collections.abc import Sequence

from debate_rl.engines.request import Engine, EngineFailure, Request, Sampling
from debate_rl.errors import UserError
from debate_rl.game.prompts import question_messages
from debate_rl.game.transcript import JudgeQuestion, Origin, Transcript
from debate_rl.game.verdict import Failure
from debate_rl.judges.function import FunctionJudge
from debate_rl.judges.judge import AnyJudge
from debate_rl.judges.panel import Panel
from debate_rl.judges.presentation import as_messages
from debate_rl.records import digest

QUESTION_TOKENS = 60
"""Longest question, in tokens."""
TEMPERATURE = 0.5
"""Sampling temperature of questions."""


def ask_questions(
    games: Sequence[Transcript], turn: int, judge: AnyJudge, engine: Engine
) -> list[JudgeQuestion | Failure]:
    """Have the judge write a question to the debaters of each game, all games in one call to the engine.

    Args:
        games: played up to and with the turn.
        turn: the turn just played, counted from 0.
        judge: of all games.
        engine: answers for the judge's model.

    Returns:
        For each game the question as written, which may be that there is none (see `shown_question`), or the failure.

    Raises:
        UserError: the judge is a function, which writes nothing, or the prompt set has no `question.j2`.
    """
    if not games:
        return []
    model = _writer(judge)
    requests = [_request(game, turn, model) for game in games]
    asked: list[JudgeQuestion | Failure] = []
    for request, answer in zip(requests, engine.generate(requests), strict=True):
        if isinstance(answer, EngineFailure):
            asked.append(Failure(seat="judge", turn=turn, kind=answer.kind, message=f"question: {answer.message}"))
            continue
        origin = Origin(
            player=judge.name,
            model=model,
            revision=answer.revision,
            seed=request.seed,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_new_tokens=request.sampling.max_new_tokens,
            prompt_tokens=answer.prompt_tokens,
            new_tokens=answer.new_tokens,
            finish=answer.finish,
        )
        asked.append(JudgeQuestion(turn=turn, text=answer.text, origin=origin))
    return asked


def _request(game: Transcript, turn: int, model: str) -> Request:
    """The request for one question."""
    # Without the judge's adapter: it was trained to give verdicts, and would answer anything with one.
    return Request(
        messages=as_messages(question_messages(game, turn + 1)),
        model=model,
        sampling=Sampling(max_new_tokens=QUESTION_TOKENS, temperature=TEMPERATURE),
        seed=int(digest([game.seed, "judge question"]), 16) % 2**31,
    )


def _writer(judge: AnyJudge) -> str:
    """The model that writes a judge's questions; a panel's are written by its first member that is a model.

    Raises:
        UserError: there is none.
    """
    if isinstance(judge, Panel):
        for member in judge.members:
            if not isinstance(member, FunctionJudge):
                return _writer(member)
    if isinstance(judge, FunctionJudge | Panel):
        raise UserError(
            f"judge {judge.name!r} is no model and writes no questions; choose a protocol without judge_questions, or "
            "a judge with a model"
        )
    return judge.model
