"""Rollouts of a judge that learns: it writes answers about finished games, and is paid by the true answers.

A group is one game in one presentation (`judges.presentation.View`), answered G times. Its key is "GAME/VIEW", two
numbers: the game's line in the rows file, and the place of the view among the game's views.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from debate_rl.engines.chat import prompt_ids
from debate_rl.engines.request import Completion, Engine, Request
from debate_rl.errors import UserError
from debate_rl.game.transcript import Transcript
from debate_rl.judges.presentation import View, presentations
from debate_rl.judges.stated import StatedJudge, listed_answers, stated_request
from debate_rl.judges.statement import Stated, read_stated
from debate_rl.records import Record, digest, read
from debate_rl.trainers.grpo.custom import Payer
from debate_rl.trainers.grpo.groups import COPIES, TOO_LONG, UNKNOWN, Playable
from debate_rl.trainers.grpo.judge_settings import JudgeRewards, Judging
from debate_rl.trainers.grpo.rewards import all_equal

JUDGE_TERMS = ("rule", "length", "format")
"""Terms of a reward, which is their sum."""
UNSTATED = -1.0
"""Reward of an answer without a statement where a function pays, unless the function paid less in the same step."""


class Judgement(NamedTuple):
    """An answer of the judge that states a probability, as a reward function gets it.

    Attributes:
        transcript: the game.
        text: all that the judge wrote.
        p_correct: probability that it stated for the correct answer.
        right: 1 if it chose the correct answer, 0 if the other one, 1/2 if neither.
        confidence: probability that it stated for the answer that it chose.
        tokens: length of the answer.
        max_new_tokens: longest answer allowed.
    """

    transcript: Transcript
    text: str
    p_correct: float
    right: float
    confidence: float
    tokens: int
    max_new_tokens: int


class JudgeEarned(Record):
    """The reward of one answer by terms.

    Example:
        JudgeEarned(rule=0.96, length=-0.01, format=0.0)
    """

    rule: float
    length: float = 0.0
    format: float = 0.0

    @property
    def total(self) -> float:
        """The reward."""
        return self.rule + self.length + self.format


@dataclass
class Answer:
    """One answer of a group: prompt and completion as they were sampled, and what it earned."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    earned: JudgeEarned | None = None
    learnt: bool = False
    """Whether the loss counts it."""


@dataclass
class Judged:
    """Answers in the order of the batch, and figures for the log."""

    sequences: list[Answer]
    counts: Counter[str] = field(default_factory=Counter)
    means: dict[str, float] = field(default_factory=dict)
    example: str = ""
    """Beginning of the first answer that states no probability."""


def score(judgement: Judgement, rewards: JudgeRewards) -> float:
    """What a statement earns by a named rule.

    Example:
        A confidence of .8 in the right answer earns 1 by correctness, -.04 by brier and .96 by their sum; in the wrong
        one 0, -.64 and -.64.
    """
    if rewards.rule == "log":
        return math.log(min(max(judgement.p_correct, rewards.least), 1 - rewards.least))
    correctness = judgement.right
    # Without a choice the probability is 1/2, and so is `right`: p_correct then says the same as the confidence.
    brier = -((1 - judgement.p_correct) ** 2)
    if rewards.rule == "correctness":
        return correctness
    return brier if rewards.rule == "brier" else correctness + brier


def least_score(rewards: JudgeRewards) -> float:
    """The worst reward of a named rule, which an answer without a statement gets."""
    if rewards.rule == "log":
        return math.log(rewards.least)
    return 0.0 if rewards.rule == "correctness" else -1.0


def judge_views(game: Transcript, both_orders: bool) -> list[View]:
    """The presentations of a finished game."""
    return [View(sides, order) for sides, order in presentations(game, both_orders)]


def judge_of(judging: Judging, model: str, adapter: str | None = None, temperature: float = 0.0) -> StatedJudge:
    """The judge that learns, as it answers."""
    return StatedJudge(
        name="policy",
        model=model,
        adapter=adapter,
        both_orders=judging.both_orders,
        reasoning=judging.reasoning,
        temperature=temperature,
        max_new_tokens=judging.max_new_tokens,
    )


def judgeable(rows: str, judging: Judging, tokenizer: Any, context: float) -> Playable:
    """Select the games of a job that the judge can learn from.

    Args:
        rows: file of transcripts.
        judging: settings of the training.
        tokenizer: the judge's tokenizer.
        context: longest sequence that the judge can read, in tokens.

    Raises:
        UserError: the file is missing, malformed or empty, or no game can be learnt from.
    """
    games = read(rows, Transcript)
    judge = judge_of(judging, "-")
    selection = Playable([], [], len(games), {UNKNOWN: 0, TOO_LONG: 0}, [])
    for index, game in enumerate(games):
        if game.question.correct is None:
            selection.left_out[UNKNOWN] += 1
            continue
        asked = judge_views(game, judging.both_orders)
        prompts = [list(prompt_ids(tokenizer, stated_request(game, view, judge, 0).messages)) for view in asked]
        longest = max(prompts, key=len)
        if len(longest) + judging.max_new_tokens > context:
            selection.left_out[TOO_LONG] += 1
            selection.over.append(len(longest) + judging.max_new_tokens)
            continue
        selection.prompts.append(longest)
        selection.keys.extend(f"{index}/{place}" for place in range(len(asked)))
    if not selection.keys:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in selection.left_out.items() if count)
        raise UserError(f"{rows}: no game can be judged ({reasons or 'the file is empty'})")
    return selection


def judge_arguments(judging: Judging, train: dict[str, Any]) -> dict[str, Any]:
    """Fields of TRL's config that follow from the settings; the default batch is 8 groups.

    Args:
        judging: settings of the training.
        train: the user's fields of TRL's config.
    """
    copies = train.get("num_generations", COPIES)
    arguments = {"temperature": judging.temperature, "max_completion_length": judging.max_new_tokens}
    if isinstance(copies, int):
        arguments["per_device_train_batch_size"] = 8 * copies
    return arguments


def judge_rollout(
    keys: Sequence[str],
    games: Sequence[Transcript],
    judging: Judging,
    judge: StatedJudge,
    engine: Engine,
    encode: Callable[[Request], tuple[int, ...]],
    stream: Sequence[int | str],
    payer: Payer | None = None,
) -> Judged:
    """Answer a batch of groups, and compute the reward of each answer.

    Args:
        keys: of the groups, each once for each answer.
        games: by the number in a key.
        judging: settings of the training.
        judge: the policy; its temperature draws the answers.
        engine: answers for it; completions carry their tokens.
        encode: token ids of a request's prompt.
        stream: names the random numbers, for example seed and step.
        payer: pays in place of the rule.

    Returns:
        An answer for each key, in order.
    """
    asked: list[tuple[Transcript, View]] = []
    requests = []
    copies: Counter[str] = Counter()
    for key in keys:
        index, place = (int(part) for part in key.split("/"))
        game = games[index]
        view = judge_views(game, judging.both_orders)[place]
        seed = int(digest([*stream, game.id, place, copies[key]]), 16) % 2**31
        copies[key] += 1
        asked.append((game, view))
        requests.append(stated_request(game, view, judge, seed))
    written = engine.generate(requests)
    result = Judged([], Counter(answers=len(keys), groups=len(copies), unstated=0))
    judgements: list[Judgement | None] = []
    completions: list[Completion | None] = []
    for (game, view), request, completion in zip(asked, requests, written, strict=True):
        finished = completion if isinstance(completion, Completion) else None
        completions.append(finished)
        judgements.append(None if finished is None else _judgement(game, view, finished, judging))
        tokens = () if finished is None else finished.tokens
        if tokens is None:
            raise ValueError("the engine does not keep the tokens it draws; open it with keep_tokens")
        result.sequences.append(Answer(encode(request), tokens))
    rules = _rules(judgements, judging.rewards, payer)
    for answer, judgement, finished, rule in zip(result.sequences, judgements, completions, rules, strict=True):
        answer.earned = _earned(finished, judgement, rule, judging)
        if finished is not None and judgement is None:
            result.counts["unstated"] += 1
            result.example = result.example or " ".join(finished.text.split())[:80]
        result.counts["failed"] += finished is None
        result.counts["truncated"] += finished is not None and finished.finish == "length"
        result.counts["no_reward"] += answer.earned is None
    result.counts["reward_errors"] = 0 if payer is None else payer.errors
    if payer is not None:
        payer.check()
    _mark_learnt(keys, result)
    result.means = _means(judgements, result)
    return result


def _judgement(game: Transcript, view: View, completion: Completion, judging: Judging) -> Judgement | None:
    """Read an answer; None if it states no probability."""
    stated = read_stated(completion.text, listed_answers(game, view.order))
    if stated is None or game.question.correct is None:
        return None
    first_is_right = view.order[0] == game.question.correct
    right = 0.5 if stated.first is None else float(stated.first == first_is_right)
    return Judgement(
        transcript=game,
        text=completion.text,
        p_correct=_p_of(stated, first_is_right),
        right=right,
        confidence=stated.confidence,
        tokens=completion.new_tokens,
        max_new_tokens=judging.max_new_tokens,
    )


def _p_of(stated: Stated, first: bool) -> float:
    """Stated probability of the answer listed first, or of the other one."""
    return stated.p_first if first else 1 - stated.p_first


def _rules(judgements: Sequence[Judgement | None], rewards: JudgeRewards, payer: Payer | None) -> list[float | None]:
    """What each answer's statement earns; None where the function failed. Without a statement it earns the worst."""
    if payer is None:
        worst = least_score(rewards)
        return [worst if judgement is None else score(judgement, rewards) for judgement in judgements]
    paid = [None if judgement is None else payer(judgement) for judgement in judgements]
    worst = min([UNSTATED, *(value for value in paid if value is not None)])
    return [worst if judgement is None else value for judgement, value in zip(judgements, paid, strict=True)]


def _earned(
    completion: Completion | None, judgement: Judgement | None, rule: float | None, judging: Judging
) -> JudgeEarned | None:
    """The reward of an answer; None without an answer, or where the function failed."""
    if completion is None or rule is None:
        return None
    rewards = judging.rewards
    malformed = judgement is None or completion.finish == "length"
    return JudgeEarned(
        rule=rule,
        length=-rewards.length * completion.new_tokens / judging.max_new_tokens,
        format=-rewards.format if malformed else 0.0,
    )


def _mark_learnt(keys: Sequence[str], result: Judged) -> None:
    """Mark the answers that the loss counts: groups without differences teach nothing."""
    groups: dict[str, list[Answer]] = {}
    for key, answer in zip(keys, result.sequences, strict=True):
        groups.setdefault(key, []).append(answer)
    result.counts["skipped_groups"] = 0
    for answers in groups.values():
        skipped = all_equal([answer.earned for answer in answers])
        result.counts["skipped_groups"] += skipped
        for answer in answers:
            answer.learnt = answer.earned is not None and not skipped and bool(answer.completion)


def _means(judgements: Sequence[Judgement | None], result: Judged) -> dict[str, float]:
    """Means over the answers of a rollout."""
    stated = [judgement for judgement in judgements if judgement is not None]
    answers = result.sequences
    new_tokens = sum(len(answer.completion) for answer in answers)
    means = {
        "new_tokens": float(new_tokens),
        "tokens": new_tokens / max(len(answers), 1),
        "learnt": sum(answer.learnt for answer in answers) / max(len(answers), 1),
        "stated": len(stated) / max(len(answers), 1),
    }
    if stated:
        means["accuracy"] = sum(judgement.right for judgement in stated) / len(stated)
        means["brier"] = sum((1 - judgement.p_correct) ** 2 for judgement in stated) / len(stated)
        means["confidence"] = sum(judgement.confidence for judgement in stated) / len(stated)
    return means
